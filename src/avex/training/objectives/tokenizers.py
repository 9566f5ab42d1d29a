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
from avex.nn.linear import Linear
from avex.training.objectives.quantiser import Quantiser

_META = "avex_tokenizer"


class RandomProjectionTokenizer(nn.Module):
    """Labels of the first iteration: the nearest of random codes to a random projection of each patch.

    Nothing is trained. Spectrograms are normalised clip by clip, padding left out, without which a few codes take
    most patches. What is compared has length 1. Projection and codes are part of the state dict.

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
    def forward(self, fbank: Tensor, padding: Tensor | None = None) -> Tensor:
        """Labels (B, N) int64 of the patches of a spectrogram (B, T, F).

        `padding`: (B, N) bool, True for patches of padding, or None.
        """
        x = functional.linear(
            _normalised(raw_patches(fbank.float(), self.patch_size), padding), self.projection
        )
        # Among vectors of length 1 the nearest is the one of the largest product.
        return functional.linear(functional.normalize(x, dim=-1), self.vectors).argmax(-1)


class LearnedTokenizer(nn.Module):
    """Labels of later iterations: an encoder of its own and a quantiser, trained by distillation.

    Args:
        config: Sizes of the encoder, those of BEATs.
        settings: Number and length of the codes.
        estimator_layers: Transformer layers that guess the teacher's features from the codes.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058, section 3.2.

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
    def forward(self, fbank: Tensor, padding: Tensor | None = None) -> Tensor:
        """Labels (B, N) int64 of the patches of a spectrogram (B, T, F).

        `padding`: (B, N) bool, True for patches of padding, or None.
        """
        was_training = self.training
        self.eval()
        labels = self.quantiser(self.down(self.backbone(fbank, padding)))[1]
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


def _normalised(patches: Tensor, padding: Tensor | None) -> Tensor:
    """Patches (B, N, P) with mean 0 and variance 1 over those of a clip that are not padding."""
    weight = patches.new_ones(patches.shape[:2]) if padding is None else (~padding).to(patches)
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1.0)).unsqueeze(-1)
    centred = patches - (patches * weight).sum(1, keepdim=True).mean(-1, keepdim=True)
    variance = (centred.square() * weight).sum(1, keepdim=True).mean(-1, keepdim=True)
    return centred * (variance + 1e-5).rsqrt()
