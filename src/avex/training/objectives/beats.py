"""BEATs' self-supervised training: guess the labels of hidden patches, and train what gives the labels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.frontends.masks import group_padding_mask
from avex.models.base_model import ModelBase
from avex.models.beats.model import Beats
from avex.models.beats.pretraining import (
    BeatsPretrainingConfig,
    LabelPredictor,
    embed_patches,
    encode_visible,
)
from avex.nn.masking import random_mask, visible_places
from avex.training.objectives.base import (
    Batch,
    LossOutput,
    Objective,
    detached,
    masked_mean,
    perplexity,
    require_family,
    waveform_of,
)
from avex.training.objectives.tokenizers import LearnedTokenizer, RandomProjectionTokenizer


class BeatsObjective(Objective):
    """Masked prediction of acoustic labels.

    The encoder sees a quarter of the patches, and a predictor guesses the labels of the others. Labels come from a
    random projection in the first iteration; in later ones from a tokenizer that `BeatsTokenizerObjective` trained
    on the encoder of the iteration before.

    Args:
        model: A `Beats` without classifier.
        config: Settings.
        tokenizer: A trained tokenizer, or its file; None for the random projection.
        seed: Of the random projection; it must stay the same throughout a training.
        generator: Source of the masks; None for torch's own, which a checkpoint of the training keeps.

    Raises:
        ConfigError: Another family, a classifier, which would stay as it is, or a tokenizer of other sizes.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058.

    Example:
        >>> from avex.testing import tiny_model
        >>> settings = BeatsPretrainingConfig(codes=8, code_dim=4, predictor_layers=1)
        >>> objective = BeatsObjective(tiny_model("beats", num_classes=None), settings)
        >>> objective({"raw_wav": torch.randn(2, 16000)}).loss.ndim
        0
    """

    name = "beats"
    layout = "microsoft"
    model: Beats

    def __init__(
        self,
        model: ModelBase,
        config: BeatsPretrainingConfig | None = None,
        *,
        tokenizer: nn.Module | str | Path | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        require_family(model, Beats, self.name)
        if not model.return_features_only:
            raise ConfigError("BEATs is pre-trained without a classifier: pass return_features_only=True.")
        super().__init__(model)
        self.config = config or BeatsPretrainingConfig()
        self.generator = generator
        self.tokenizer = self._tokenizer(tokenizer, seed).requires_grad_(False).eval()
        self.predictor = LabelPredictor(self.model.config, self.config)
        self.to(model.device)

    def train(self, mode: bool = True) -> BeatsObjective:
        """Set training mode; the tokenizer stays in eval mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S); patches of padding are neither seen nor guessed.

        Returns:
            `logs` has the accuracy on hidden patches and the number of labels in use.
        """
        fbank, padding = spectrogram(self.model, batch)
        labels = self.tokenizer(fbank, padding)
        mask = random_mask(len(labels), labels.shape[1], self.config.mask_ratio, generator=self.generator)
        places, mask = visible_places(mask).to(fbank.device), mask.to(fbank.device)
        backbone = self.model.backbone
        visible = encode_visible(backbone.encoder, embed_patches(backbone, fbank), mask, places, padding)
        scores = self.predictor(visible, places, labels.shape[1], padding).float()
        wanted = mask if padding is None else mask & ~padding
        loss = masked_mean(functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none"), wanted)
        logs = {
            "loss": loss,
            "masked_accuracy": masked_mean((scores.argmax(-1) == labels).float(), wanted),
            "target_perplexity": perplexity(labels, self.config.codes),
        }
        return LossOutput(loss, detached(**logs))

    def _tokenizer(self, tokenizer: nn.Module | str | Path | None, seed: int) -> nn.Module:
        settings, patch = self.config, self.model.config.input_patch_size
        if tokenizer is None:
            return RandomProjectionTokenizer(patch, settings.codes, settings.code_dim, seed)
        if isinstance(tokenizer, (str, Path)):
            tokenizer = LearnedTokenizer.load(tokenizer)
        if getattr(tokenizer, "codes", settings.codes) != settings.codes:
            raise ConfigError(
                f"The tokenizer has {tokenizer.codes} labels and the objective {settings.codes}: set codes=."
            )
        return tokenizer


class BeatsTokenizerObjective(Objective):
    """Train a tokenizer: its codes must be enough to guess the features of a trained BEATs.

    The loss is one minus the cosine of guess and features, plus the squared distance of vectors to their codes.

    Args:
        model: The teacher, a trained `Beats`; it stays as it is.
        config: Settings; number and length of the codes count.
        estimator_layers: Transformer layers between codes and guess.
        distance_weight: Weight of the distance to the codes.

    Attributes:
        tokenizer: What is trained. Its encoder starts as a copy of the teacher's. Save it with
            `objective.tokenizer.save(path)`, and give that path to `BeatsObjective`; `avex train` writes it to
            `tokenizer.safetensors` in the folder of the run.

    Raises:
        ConfigError: Another family.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058, section 3.2.

    Example:
        >>> from avex.testing import tiny_model
        >>> settings = BeatsPretrainingConfig(codes=8, code_dim=4)
        >>> objective = BeatsTokenizerObjective(tiny_model("beats", num_classes=None), settings)
        >>> sorted(objective({"raw_wav": torch.randn(2, 16000)}).logs)
        ['cosine', 'distance', 'loss', 'perplexity']
    """

    name = "beats_tokenizer"
    layout = "microsoft"
    model: Beats

    def __init__(
        self,
        model: ModelBase,
        config: BeatsPretrainingConfig | None = None,
        *,
        estimator_layers: int = 3,
        distance_weight: float = 1.0,
    ) -> None:
        require_family(model, Beats, self.name)
        super().__init__(model.requires_grad_(False).eval())
        self.config = config or BeatsPretrainingConfig()
        self.distance_weight = distance_weight
        self.tokenizer = LearnedTokenizer(self.model.config, self.config, estimator_layers)
        own = {k: v for k, v in self.model.backbone.state_dict().items() if not k.startswith("predictor.")}
        self.tokenizer.backbone.load_state_dict(own)
        self.to(model.device)

    def train(self, mode: bool = True) -> BeatsTokenizerObjective:
        """Set training mode; the teacher stays in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S)."""
        fbank, padding = spectrogram(self.model, batch)
        with torch.no_grad():
            target = self.model.backbone(fbank, padding).float()
        guess, labels, distance = self.tokenizer.estimate(fbank, padding)
        real = torch.ones_like(labels, dtype=torch.bool) if padding is None else ~padding
        cosine = masked_mean(functional.cosine_similarity(guess.float(), target, dim=-1), real)
        loss = 1.0 - cosine + self.distance_weight * distance
        used = perplexity(labels, self.config.codes)
        return LossOutput(loss, detached(loss=loss, cosine=cosine, distance=distance, perplexity=used))

    def save_extras(self, folder: Path) -> None:
        """Write the tokenizer to `tokenizer.safetensors`."""
        self.tokenizer.save(folder / "tokenizer.safetensors")

    def export(self) -> ModelBase:
        """The tokenizer's encoder as a model, in eval mode on the CPU; its codes are in `tokenizer`."""
        model = super().export().requires_grad_(True)
        assert isinstance(model, Beats)
        own = self.tokenizer.backbone.state_dict()
        model.backbone.load_state_dict({**model.backbone.state_dict(), **own})
        return model


def spectrogram(model: Beats, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Filter bank (B, T, F) of a batch in the network's element type, and which tokens are padding (B, N)."""
    fbank, frames = model.frontend(*waveform_of(batch))
    padding = None
    if frames is not None:
        padding = group_padding_mask(frames, model.config.num_tokens(fbank.shape[1]))
    return fbank.to(model.backbone.patch_embedding.weight.dtype), padding
