"""Mixup: clips mixed with others of their batch, and labels with theirs."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.configs.augmentation import MixupAugment


def mix(
    batch: MutableMapping[str, Any], config: MixupAugment, rng: np.random.Generator, classes: int
) -> None:
    """Mix a batch in place.

    Row i becomes `w * row_i + (1 - w) * row_j` with w from Beta(alpha, alpha), and its label the same mixture of
    labels: a clip that is 70 % frog is 0.7 frog. For several labels at once that holds for each of them. Padding is
    what is padding in both.

    Args:
        batch: `raw_wav` (B, S), and where there are any `padding_mask` (B, S) and `label` (B,) or (B, C).
        config: How often and how much.
        rng: Generator of this batch.
        classes: C.

    Raises:
        ConfigError: Class numbers without a number of classes.

    Source:
        Zhang et al. (2018), https://arxiv.org/abs/1710.09412.

    Example:
        >>> batch = {"raw_wav": torch.eye(2), "label": torch.tensor([0, 1])}
        >>> mix(batch, MixupAugment(alpha=0.4, augmentation_prob=1), np.random.default_rng(0), classes=2)
        >>> bool(torch.allclose(batch["raw_wav"], batch["label"]))
        True
    """
    waves: Tensor = batch["raw_wav"]
    if len(waves) < 2 or rng.random() >= config.augmentation_prob:
        return
    for _ in range(config.n_mixup):
        weight = torch.from_numpy(rng.beta(config.alpha, config.alpha, len(waves)).astype(np.float32))
        # A turn by at least one place: no clip is mixed with itself.
        partner = (np.arange(len(waves)) + rng.integers(1, len(waves))) % len(waves)
        _mix_once(batch, weight.to(waves.device), torch.from_numpy(partner).to(waves.device), classes)


def _mix_once(batch: MutableMapping[str, Any], weight: Tensor, partner: Tensor, classes: int) -> None:
    waves = batch["raw_wav"]
    rows = weight.to(waves).unsqueeze(1)
    batch["raw_wav"] = rows * waves + (1.0 - rows) * waves[partner]
    mask = batch.get("padding_mask")
    if mask is not None:
        batch["padding_mask"] = mask & mask[partner]
    if "label" in batch:
        label = soft_labels(batch["label"], classes)
        rows = weight.to(label).unsqueeze(1)
        batch["label"] = rows * label + (1.0 - rows) * label[partner]


def soft_labels(label: Tensor, classes: int) -> Tensor:
    """Class numbers (B,) as rows (B, C) float; rows stay as they are.

    Raises:
        ConfigError: Class numbers without a number of classes.
    """
    if label.ndim == 2:
        return label.float()
    if classes < 1:
        raise ConfigError("Mixing class numbers needs the number of classes.")
    return functional.one_hot(label, classes).float()
