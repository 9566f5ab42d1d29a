"""What stops a training that has gone wrong, and randomness that a restart cannot change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from avex._core.errors import AvexError, ConfigError, TrainingDivergedError

_SHOWN = 8


class TrainingStoppedError(AvexError):
    """Somebody stopped the training: Ctrl-C, or a signal of the system."""


class LossGuard:
    """Stops a training at the first loss that is not finite.

    On the CPU it looks at once. On other devices looking means waiting for the device, so a loss is looked at when
    the next one is there; `settle` looks at what is left.

    Example:
        >>> guard = LossGuard()
        >>> guard.watch(torch.tensor(float("nan")), ["a.wav"], step=3)
        Traceback (most recent call last):
        avex._core.errors.TrainingDivergedError: The loss of step 3 is nan. Clips of the batch: 'a.wav'. ...
    """

    def __init__(self) -> None:
        self._waiting: tuple[Tensor, list[str], str] | None = None

    def watch(self, loss: Tensor, ids: Sequence[str], step: int, *, validation: bool = False) -> None:
        """Note a loss, of a step or of a validation after it; raise if it, or the one before, is not finite.

        Raises:
            TrainingDivergedError: With the step and the clips of the batch.
        """
        self.settle()
        place = f"a validation after step {step}" if validation else f"step {step}"
        self._waiting = (loss.detach(), list(ids), place)
        if loss.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Look at the last loss.

        Raises:
            TrainingDivergedError: It is not finite.
        """
        if self._waiting is None:
            return
        loss, ids, place = self._waiting
        self._waiting = None
        value = float(loss)
        if not np.isfinite(value):
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            raise TrainingDivergedError(
                f"The loss of {place} is {value}. Clips of the batch: "
                f"{', '.join(map(repr, ids[:_SHOWN]))}{more}. Look at these recordings; if they are good, lower "
                "training_params.lr, set gradient_clip_val, or train without amp. Go on from the last checkpoint "
                "with --resume."
            )


def check_same_weights(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Check that the weights of a checkpoint are those of the model that is to go on.

    Raises:
        ConfigError: Some are missing, not wanted, or of another shape.

    Example:
        >>> check_same_weights({"head": torch.zeros(3)}, {"head": torch.zeros(2)})
        Traceback (most recent call last):
        avex._core.errors.ConfigError: The checkpoint is of another model: 'head' is (3,) in it, now (2,). ...
    """
    for name in sorted(stored.keys() | wanted.keys()):
        then, now = (tuple(side[name].shape) if name in side else "absent" for side in (stored, wanted))
        if then != now:
            raise ConfigError(
                f"The checkpoint is of another model: '{name}' is {then} in it, now {now}. Start anew, with "
                "checkpoint_path for the weights."
            )


def seed_step(seed: int, epoch: int, batch: int, rank: int, stage: int = 0) -> None:
    """Seed torch, NumPy and Python for one batch.

    What is random in a batch (dropout, masks, ...) then follows from its place in the training: going on from a
    checkpoint gives what would have come without the stop, on every process, and no state of a generator has to be
    stored.

    Args:
        seed: Of the run.
        epoch: From 0.
        batch: Of the epoch.
        rank: Of the process.
        stage: 0 in training, 1 in validation, 2 before the first step.
    """
    state = np.random.SeedSequence((seed, epoch, batch, rank, stage)).generate_state(2)
    torch.manual_seed(int(state[0]))
    np.random.seed(state[1])
    random.seed(int(state[1]))
