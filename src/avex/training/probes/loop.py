"""Training of heads in mini-batches: AdamW, cosine schedule, early stopping, best state restored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from avex._core.errors import TrainingDivergedError
from avex.models.probes import Probe
from avex.training.probes.examples import Features
from avex.training.probes.options import FitOptions
from avex.training.probes.targets import Targets


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history of a training.

    Attributes:
        epoch: From 1.
        train_loss: Mean loss of the training examples, with dropout.
        validation_loss: Mean loss of the validation examples; NaN without any.
        validation_score: Metric of the validation examples; NaN without any.
        learning_rate: At the end of the epoch.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_score: float
    learning_rate: float


@dataclass(frozen=True, eq=False)
class Part:
    """Examples of one part of a split."""

    features: Features
    targets: Targets


def train_head(
    probe: Probe,
    train: Part,
    validation: Part | None,
    options: FitOptions,
    weights: npt.NDArray[np.float64] | None,
    score: Callable[[Targets, npt.NDArray[np.floating]], float],
    seed: int,
) -> list[Epoch]:
    """Train a probe in place.

    The state with the best validation score is restored (of equal scores, or where no score is possible, that
    with the lowest loss); without validation examples training runs through all epochs. The same seed gives
    the same weights on the same machine.

    Args:
        probe: A probe on embeddings.
        train: Examples to learn from.
        validation: Examples that decide when to stop.
        options: See `FitOptions`.
        weights: (C,) weight of each class, or None.
        score: Metric of targets and logits; higher is better, NaN where it is not defined.
        seed: Of the order of examples and of dropout.

    Raises:
        TrainingDivergedError: The loss became NaN or infinite.
    """
    device = probe.device
    loss = make_loss(train.targets, weights, device)
    parameters = [p for p in probe.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, options.learning_rate, weight_decay=options.weight_decay)
    size = options.batch_of(len(train.features))
    steps = math.ceil(len(train.features) / size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps * options.epochs)
    history: list[Epoch] = []
    best, best_state, waited = (-math.inf, -math.inf), copy.deepcopy(probe.state_dict()), 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for number in range(1, options.epochs + 1):
            order = np.random.default_rng((seed, number)).permutation(len(train.features))
            total = 0.0
            for batch in _batches(order, size):
                total += _step(probe, train, batch, loss, optimiser, options, number) * len(batch)
                schedule.step()
            held_out = _validate(probe, validation, loss, score)
            rate = float(schedule.get_last_lr()[0])
            history.append(Epoch(number, total / len(order), *held_out, rate))
            if validation is None:
                continue
            # Without any positive, the score of several labels is not a number: then the loss decides.
            current = (-math.inf if math.isnan(held_out[1]) else held_out[1], -held_out[0])
            if current > best:
                best, best_state, waited = current, copy.deepcopy(probe.state_dict()), 0
            else:
                waited += 1
            if waited >= options.patience:
                break
    if validation is not None:
        probe.load_state_dict(best_state)
    probe.eval()
    return history


def predict_logits(probe: Probe, features: Features, batch_size: int = 512) -> npt.NDArray[np.float32]:
    """Logits (N, C) of embeddings, in batches; sequences are padded and masked."""
    device = probe.device
    probe.eval()
    parts = []
    with torch.inference_mode():
        for batch in _batches(np.arange(len(features)), batch_size):
            x, mask = collate(features, batch, device)
            parts.append(probe.forward_embeddings(x, mask).float().cpu().numpy())
    return np.concatenate(parts)


def collate(
    features: Features, indices: npt.NDArray[np.int64] | Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """A batch (B, D) or (B, T, D) of features, and where it is padded, (B, T) bool."""
    if not isinstance(features, list):
        return torch.from_numpy(features[np.asarray(indices)]).to(device), None
    items = [features[int(i)] for i in indices]
    lengths = [len(item) for item in items]
    x = np.zeros((len(items), max(lengths), items[0].shape[1]), np.float32)
    for row, item in zip(x, items, strict=True):
        row[: len(item)] = item
    padded = torch.arange(x.shape[1]) >= torch.tensor(lengths)[:, None]
    return torch.from_numpy(x).to(device), padded.to(device) if bool(padded.any()) else None


def make_loss(
    targets: Targets, weights: npt.NDArray[np.float64] | None, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross entropy, or binary cross entropy for several labels, with weights of the classes."""
    tensor = None if weights is None else torch.as_tensor(weights, dtype=torch.float32, device=device)
    if targets.task == "single-label":
        return nn.CrossEntropyLoss(tensor)
    return nn.BCEWithLogitsLoss(pos_weight=tensor)


def _batches(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    return (order[start : start + size] for start in range(0, len(order), size))


def _target(targets: Targets, batch: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    values = torch.from_numpy(targets.values[batch]).to(device)
    return values if targets.task == "single-label" else values.float()


def _step(
    probe: Probe,
    part: Part,
    batch: npt.NDArray[np.int64],
    loss: Callable[[Tensor, Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    options: FitOptions,
    epoch: int,
) -> float:
    probe.train()
    device = probe.device
    x, mask = collate(part.features, batch, device)
    value = loss(probe.forward_embeddings(x, mask), _target(part.targets, batch, device))
    if not torch.isfinite(value):
        raise TrainingDivergedError(
            f"The loss became {float(value.detach())} in epoch {epoch}. Lower learning_rate (now "
            f"{options.learning_rate:g}), or "
            "standardise the features."
        )
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(probe.parameters(), options.max_grad_norm)
    optimiser.step()
    return float(value.detach())


def _validate(
    probe: Probe,
    part: Part | None,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[Targets, npt.NDArray[np.floating]], float],
) -> tuple[float, float]:
    if part is None:
        return math.nan, math.nan
    logits = predict_logits(probe, part.features)
    device = probe.device
    everything = np.arange(len(logits))
    value = loss(torch.from_numpy(logits).to(device), _target(part.targets, everything, device))
    return float(value), score(part.targets, logits)
