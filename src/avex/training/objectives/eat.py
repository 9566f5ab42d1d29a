"""EAT's self-supervised training: guess a teacher's features of hidden patches."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.models.eat.model import Eat
from avex.models.eat.pretraining import (
    EatDecoder,
    EatPretrainingConfig,
    embed_patches,
    encode_visible,
    fill_hidden,
    patch_grid,
    teacher_targets,
)
from avex.nn.ema import EmaTeacher, annealed_decay
from avex.nn.masking import inverse_block_mask, visible_places
from avex.training.objectives.base import (
    Batch,
    LossOutput,
    Objective,
    detached,
    masked_mean,
    require_family,
    waveform_of,
)


class EatObjective(Objective):
    """Utterance and frame objective of EAT.

    A teacher, the moving average of the student, hears the whole clip. The student sees a fifth of its patches,
    under several masks at once. A decoder guesses the teacher's features of the hidden patches; the student's CLS
    token guesses their mean. Both losses are means of squared differences per channel, as in the paper; its code
    sums the utterance loss over the clips of a batch, which `utterance_weight` of clips times clones gives here.

    The teacher moves, so the loss of one epoch says little beside that of another: `avex train` exports the last
    weights, not those of the lowest loss.

    Args:
        model: An `Eat`, best without classifier and without `head_norm`.
        config: Settings.
        generator: Source of the masks; None for torch's own, which a checkpoint of the training keeps.

    Raises:
        ConfigError: Another family, or a classifier, which would stay as it is.

    Source:
        Chen et al. (2024), https://arxiv.org/abs/2401.03497, section 3.

    Example:
        >>> from avex.testing import tiny_model
        >>> settings = EatPretrainingConfig(clones=2, decoder_dim=16, decoder_groups=4, decoder_layers=1)
        >>> objective = EatObjective(tiny_model("eat", num_classes=None), settings)
        >>> sorted(objective({"raw_wav": torch.randn(2, 16000)}).logs)
        ['frame_loss', 'loss', 'pred_var', 'target_var', 'utterance_loss']
    """

    name = "eat"
    layout = "fairseq"
    comparable = False
    model: Eat

    def __init__(
        self,
        model: ModelBase,
        config: EatPretrainingConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        require_family(model, Eat, self.name)
        if not model.return_features_only:
            raise ConfigError("EAT is pre-trained without a classifier: pass return_features_only=True.")
        super().__init__(model)
        self.config = config or EatPretrainingConfig()
        if self.model.config.head_norm:
            # It would be a parameter without gradient, which data parallelism refuses.
            self.model.backbone.fc_norm.requires_grad_(False)
        self.generator = generator
        self.teacher = EmaTeacher(self.model.backbone)
        self.decoder = EatDecoder(self.model.config.embed_dim, self.config).to(model.device)

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S); padding is heard as silence."""
        settings, backbone = self.config, self.model.backbone
        frames, _ = self.model.frontend(waveform_of(batch)[0])
        target = teacher_targets(self.teacher.network, frames, settings.top_k)  # type: ignore[arg-type]
        grid = patch_grid(frames)
        mask = inverse_block_mask(
            len(frames) * settings.clones,
            grid,
            settings.keep,
            settings.block,
            settings.mask_adjust,
            generator=self.generator,
        )
        places, mask = visible_places(mask).to(frames.device), mask.to(frames.device)
        patches = embed_patches(backbone, frames).repeat_interleave(settings.clones, 0)
        tokens = encode_visible(backbone, patches, places)
        filled = fill_hidden(tokens[:, 1:], places, patches.shape[1], settings.mask_noise)
        guess = self.decoder(filled, grid).float()
        return self._loss(guess, tokens[:, 0].float(), target, mask)

    def _loss(self, guess: Tensor, cls: Tensor, target: Tensor, mask: Tensor) -> LossOutput:
        wide = target.repeat_interleave(self.config.clones, 0)
        frame = masked_mean((guess - wide).square().mean(-1), mask)
        utterance = functional.mse_loss(cls, wide.mean(1))
        loss = frame + self.config.utterance_weight * utterance
        # A collapse shows first in how little these vary from token to token.
        logs = {"frame_loss": frame, "utterance_loss": utterance, "loss": loss}
        logs["target_var"] = target.flatten(0, 1).std(0, unbiased=False).mean()
        logs["pred_var"] = guess[mask].std(0, unbiased=False).mean()
        return LossOutput(loss, detached(**logs))

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the teacher towards the student."""
        settings = self.config
        decay = annealed_decay(step, settings.ema_start, settings.ema_end, settings.ema_steps)
        self.teacher.update(self.model.backbone, decay)
