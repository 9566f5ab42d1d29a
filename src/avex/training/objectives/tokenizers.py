"""Acoustic tokenizers of BEATs: from patches to labels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import WeightsError
from avex.io.atomic import atomic_path
from avex.models.beats.config import BeatsConfig
from avex.models.beats.network import BeatsBackbone, Encoder
from avex.models.beats.pretraining import BeatsPretrainingConfig, raw_patches
from avex.nn.transformer import Linear
from avex.training.objectives.gathering import copy_of_first, sum_over_processes
from avex.training.objectives.kmeans import fit_kmeans

_META = "avex_tokenizer"
# A moving average of uses per step below which a code is given away: after 460 steps without one.
_UNUSED = 0.01


class RandomProjectionTokenizer(nn.Module):
    """Labels of the first iteration: the nearest of random codes to a random projection of each patch.

    Nothing is trained. Spectrograms are normalised clip by clip, without which a few codes take most patches; the
    projection and the codes have length 1. Both are part of the state dict.

    Args:
        patch_size: Side of a patch.
        codes: Number of labels.
        code_dim: Length of a code.
        seed: Of projection and codes.

    Source:
        Chiu et al. (2022), https://arxiv.org/abs/2202.01855; Chen et al. (2022),
        https://arxiv.org/abs/2212.09058, section 3.2.

    Example:
        >>> RandomProjectionTokenizer(16, codes=8, code_dim=4)(torch.randn(2, 32, 128)).shape
        torch.Size([2, 16])
    """

    projection: Tensor
    vectors: Tensor

    def __init__(self, patch_size: int = 16, codes: int = 1024, code_dim: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.codes = codes
        generator = torch.Generator().manual_seed(seed)
        projection = torch.empty(code_dim, patch_size**2)
        nn.init.xavier_uniform_(projection, generator=generator)
        self.register_buffer("projection", projection)
        vectors = torch.randn(codes, code_dim, generator=generator)
        self.register_buffer("vectors", functional.normalize(vectors, dim=-1))

    @torch.no_grad()
    def forward(self, fbank: Tensor) -> Tensor:
        """Labels (B, N) int64 of the patches of a spectrogram (B, T, F)."""
        x = functional.layer_norm(fbank.float(), fbank.shape[1:])
        x = functional.linear(raw_patches(x, self.patch_size), self.projection)
        # Among vectors of length 1 the nearest is the one of the largest product.
        return functional.linear(functional.normalize(x, dim=-1), self.vectors).argmax(-1)


class Quantiser(nn.Module):
    """Replaces vectors by the nearest of a set of codes, which follow them as a moving average.

    Vectors and codes have length 1. Codes start from k-means of the first batch; one that nobody used for long
    moves to a vector of the batch. Gradients pass as if nothing had been replaced.

    Args:
        codes: Number of codes.
        dim: Length of a vector.
        decay: Of the moving average.

    Source:
        van den Oord et al. (2017), https://arxiv.org/abs/1711.00937, appendix A.1.

    Example:
        >>> quantiser = Quantiser(4, 2)
        >>> quantised, labels, distance = quantiser(torch.randn(1, 16, 2))
        >>> labels.shape
        torch.Size([1, 16])
    """

    vectors: Tensor
    counts: Tensor
    started: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", functional.normalize(torch.randn(codes, dim), dim=-1))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise.

        Args:
            x: (..., D).

        Returns:
            The codes (..., D) of length 1, their numbers (...), and the mean squared distance that pulls `x`
            towards them.
        """
        unit = functional.normalize(x.float(), dim=-1)
        flat = unit.detach().flatten(0, -2)
        if self.training and not bool(self.started):
            self._start(flat)
        labels = functional.linear(flat, self.vectors).argmax(-1)
        codes = functional.embedding(labels, self.vectors).view_as(unit)
        if self.training:
            self._follow(flat, labels)
        distance = (unit - codes).square().sum(-1).mean()
        return unit + (codes - unit).detach(), labels.view(unit.shape[:-1]), distance

    def _start(self, flat: Tensor) -> None:
        count = len(self.vectors)
        # A batch may have fewer vectors than there are codes; the rest stays random.
        found = functional.normalize(fit_kmeans(flat, min(count, len(flat)), iterations=10), dim=-1)
        self.vectors[: len(found)] = found
        self.vectors.copy_(copy_of_first(self.vectors))
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, labels: Tensor) -> None:
        used = sum_over_processes(torch.bincount(labels, minlength=len(self.vectors)).to(flat))
        sums = sum_over_processes(torch.zeros_like(self.vectors).index_add_(0, labels, flat))
        self.counts.lerp_(used, 1.0 - self.decay)
        means = functional.normalize(sums, dim=-1)
        moved = functional.normalize(self.vectors.lerp(means, 1.0 - self.decay), dim=-1)
        self.vectors.copy_(torch.where(used.unsqueeze(1) > 0, moved, self.vectors))
        unused = self.counts < _UNUSED
        if bool(unused.any()):
            others = torch.randint(len(flat), (int(unused.sum()),))
            self.vectors[unused] = copy_of_first(flat[others.to(flat.device)])
            self.counts[unused] = 1.0


class LearnedTokenizer(nn.Module):
    """Labels of later iterations: an encoder of its own and a quantiser, trained by distillation.

    Args:
        config: Sizes of the encoder, those of BEATs.
        settings: Number and length of the codes.
        estimator_layers: Transformer layers that guess the teacher's features from the codes.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058, section 3.3.

    Example:
        >>> tokenizer = LearnedTokenizer(BeatsConfig(encoder_layers=1))         # doctest: +SKIP
    """

    def __init__(
        self, config: BeatsConfig, settings: BeatsPretrainingConfig | None = None, estimator_layers: int = 3
    ) -> None:
        super().__init__()
        settings = settings or BeatsPretrainingConfig()
        self.config = dataclasses.replace(config, finetuned_model=False)
        self.settings = settings
        self.estimator_layers = estimator_layers
        self.codes = settings.codes
        dim = config.encoder_embed_dim
        self.backbone = BeatsBackbone(self.config)
        self.down = nn.Sequential(Linear(dim, dim), nn.Tanh(), Linear(dim, settings.code_dim))
        self.quantiser = Quantiser(settings.codes, settings.code_dim)
        self.up = Linear(settings.code_dim, dim)
        self.estimator = Encoder(dataclasses.replace(self.config, encoder_layers=estimator_layers))
        self.guess = Linear(dim, dim)

    @torch.no_grad()
    def forward(self, fbank: Tensor) -> Tensor:
        """Labels (B, N) int64 of the patches of a spectrogram (B, T, F)."""
        was_training = self.training
        self.eval()
        labels = self.quantiser(self.down(self.backbone(fbank)))[1]
        self.train(was_training)
        return labels

    def estimate(self, fbank: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Guess a teacher's features through the codes.

        Args:
            fbank: (B, T, F).
            padding: (B, N) bool, True for patches of padding.

        Returns:
            The guess (B, N, C), the labels (B, N), and the quantiser's distance.
        """
        codes, labels, distance = self.quantiser(self.down(self.backbone(fbank, padding)))
        return self.guess(self.estimator(self.up(codes.to(fbank.dtype)), padding)), labels, distance

    def save(self, path: str | Path) -> None:
        """Write weights and sizes to a safetensors file, all of it or nothing."""
        about = {
            "config": dataclasses.asdict(self.config),
            "settings": dataclasses.asdict(self.settings),
            "estimator_layers": self.estimator_layers,
        }
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary, metadata={_META: json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> LearnedTokenizer:
        """Read what `save` wrote, in eval mode and without gradients.

        Raises:
            WeightsError: The file is not a tokenizer of BEATs.
        """
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {}).get(_META, "null")) or {}
            state = {name: cast(Tensor, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        if not about:
            raise WeightsError(
                f"'{path}' is not a tokenizer of BEATs. "
                "Write one with BeatsTokenizerObjective.tokenizer.save(path)."
            )
        tokenizer = cls(
            BeatsConfig(**about["config"]),
            BeatsPretrainingConfig(**about["settings"]),
            about["estimator_layers"],
        )
        tokenizer.load_state_dict(state)
        return tokenizer.requires_grad_(False).eval()
