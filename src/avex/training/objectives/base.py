"""`Objective`: a model together with what only its training needs, and the loss of a batch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.training.objectives.lora import has_lora, merge_lora
from avex.training.objectives.parameters import parameter_groups

# `raw_wav` (B, S); and, where an objective needs them, `padding_mask`, `label`, `text`, `id`.
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class LossOutput:
    """What an objective makes of a batch.

    Attributes:
        loss: Scalar to minimise, the mean over the batch.
        logs: Scalars to record, detached.
        outputs: What metrics need, such as `logits` and `targets`, detached.
    """

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """A way to train a model.

    It owns what only training needs (heads, decoder, teacher, codebook) and is what an optimiser, a checkpoint of
    the training and data parallelism see. A subclass defines `forward`; see `build_objective` for those there are.

    Args:
        model: What is trained.

    Attributes:
        name: Name in configurations.
        layout: Published layout that `published_state` writes; None for the model's own names.
        comparable: Whether losses of two points of a training can be compared; not so where targets move.
    """

    name: str = ""
    layout: str | None = None
    comparable: bool = True

    def __init__(self, model: ModelBase) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of a batch.

        Args:
            batch: `raw_wav` (B, S) float at the model's rate; `padding_mask` (B, S) bool or None; `label` (B,)
                int or (B, C) float; `text`: list of B strings; `id`: list of B strings. Only what the objective
                names is read.
        """
        raise NotImplementedError

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Do what must be done once before the first step, such as finding the targets of HuBERT.

        Every process calls it, also after a checkpoint was loaded: what is there already stays.

        Args:
            batches: Batches of the training data; as many are read as are needed, often none.
        """

    def after_step(self, step: int, total_steps: int) -> None:
        """Do what follows an optimiser step.

        Args:
            step: Steps done so far, from 1 on.
            total_steps: Steps of the whole training.
        """

    def export(self) -> ModelBase:
        """A copy of the trained encoder, in eval mode, on the CPU, without gradients' memory; LoRA is merged."""
        model = copy.deepcopy(self.model).cpu().eval()
        model.zero_grad(set_to_none=True)
        if has_lora(model):
            merge_lora(model)
        return model

    def save_extras(self, folder: Path) -> None:
        """Write what else a later training needs beside the encoder, such as the tokenizer of BEATs.

        Args:
            folder: Of the run.
        """

    def parameter_groups(
        self, lr: float, weight_decay: float, layer_decay: float | None = None
    ) -> list[dict[str, Any]]:
        """Groups for an optimiser. See `avex.training.objectives.parameters.parameter_groups`."""
        return parameter_groups(self, self.model, lr, weight_decay, layer_decay)


def waveform_of(batch: Batch) -> tuple[Tensor, Tensor | None]:
    """The waveform (B, S) of a batch and its padding mask, if there is one.

    Raises:
        ConfigError: There is no waveform.
    """
    if "raw_wav" not in batch:
        raise ConfigError(f"A batch needs 'raw_wav'; this one has {', '.join(sorted(batch)) or 'nothing'}.")
    return batch["raw_wav"], batch.get("padding_mask")


def required(batch: Batch, key: str, objective: str) -> Any:
    """A further entry of a batch.

    Raises:
        ConfigError: It is missing or None.
    """
    value = batch.get(key)
    if value is None:
        raise ConfigError(
            f"The objective '{objective}' needs '{key}' in every batch; this one has {', '.join(sorted(batch))}. "
            "Check label_column and label_type of the dataset."
        )
    return value


def detached(**tensors: Tensor) -> dict[str, Tensor]:
    """The tensors without their graph."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def require_family(model: nn.Module, family: type[ModelBase], objective: str) -> None:
    """Check that an objective fits a model.

    Raises:
        ConfigError: It is made for another family.
    """
    if not isinstance(model, family):
        raise ConfigError(
            f"The objective '{objective}' trains {family.__name__} models, not {type(model).__name__}."
        )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where a mask of the same shape is True; 0, with a gradient, if it is nowhere."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def perplexity(codes: Tensor, count: int) -> Tensor:
    """How many of `count` codes are in use: exp of the entropy of their frequencies, between 1 and `count`.

    Example:
        >>> perplexity(torch.tensor([0, 1, 2, 3]), 8)
        tensor(4.)
    """
    share = torch.bincount(codes.flatten(), minlength=count).float()
    share = share / share.sum()
    return torch.special.entr(share).sum().exp()
