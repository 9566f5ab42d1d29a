"""Probes without a training loop: class prototypes and nearest neighbours, by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.probes.base import Probe
from avex.models.probes.inputs import LayerMix

P = TypeVar("P", bound="_FittedProbe")

# Similarities that are held at once, in numbers: 256 MB of float32.
_BLOCK = 1 << 26


class _FittedProbe(Probe):
    """What `fit` of both probes shares."""

    def fit(self: P, embeddings: Any, labels: Any, padding_mask: Tensor | None = None) -> P:
        """Learn from examples, in one pass.

        Args:
            embeddings: Of N clips, in any form that `forward_embeddings` takes.
            labels: (N,) class numbers, or (N, C) with 1 for each class of a clip, 0 otherwise.
            padding_mask: (N, T) bool for sequences of embeddings.

        Returns:
            The probe itself.

        Raises:
            ValueError: Labels that do not fit the embeddings, or classes without an example.
        """
        with torch.no_grad():
            values = self.head_input(embeddings, padding_mask)[0].to(self.device)
            if self.input_mean is not None and self.input_std is not None:
                values = (values - self.input_mean) / self.input_std
            targets = one_hot_targets(labels, len(values), self.num_classes).to(values)
            empty = (targets.sum(0) == 0).nonzero().flatten().tolist()
            if empty:
                raise ValueError(
                    f"No example of class {', '.join(map(str, empty[:10]))}{' …' if empty[10:] else ''}: each of "
                    f"the {self.num_classes} classes needs one. Leave the class out, or add examples."
                )
            self._learn(functional.normalize(values, dim=-1), targets)
        return self

    def _learn(self, vectors: Tensor, targets: Tensor) -> None:
        raise NotImplementedError

    def _ready(self, learned: Tensor | None) -> Tensor:
        if learned is None:
            raise ValueError("The probe has seen no examples yet. Call fit(embeddings, labels), or load it.")
        return learned


class PrototypeProbe(_FittedProbe):
    """One vector per class: the mean direction of its examples. Logits are cosines divided by a temperature.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        temperature: What cosines are divided by.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Source:
        Snell et al. (2017), https://arxiv.org/abs/1703.05175 (class means as prototypes).

    Example:
        >>> probe = PrototypeProbe(LayerMix(("x",), (2,)), 2)
        >>> probe = probe.fit(torch.tensor([[1.0, 0.0], [0.0, 5.0]]), [0, 1])
        >>> probe(torch.tensor([[2.0, 0.0]]))
        tensor([[10.,  0.]])
    """

    probe_type = "prototype"
    late_buffers = (*Probe.late_buffers, "prototypes")

    prototypes: Tensor | None

    def __init__(
        self, inputs: LayerMix, num_classes: int, *, temperature: float = 0.1, **options: Any
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        self.temperature = temperature
        self.register_buffer("prototypes", None)

    def _learn(self, vectors: Tensor, targets: Tensor) -> None:
        self.prototypes = functional.normalize(targets.T @ vectors, dim=-1)

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, D)."""
        return functional.normalize(x, dim=-1) @ self._ready(self.prototypes).T / self.temperature


class KNNProbe(_FittedProbe):
    """The classes of the nearest stored examples, by cosine; exact.

    A class's score is the share of its votes among the neighbours. Logits are its logarithm, so that softmax gives
    the shares back; after `fit` with several labels per clip they are log-odds, for sigmoid.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        knn_neighbors: Neighbours that vote; all examples if there are fewer.
        knn_weighting: `uniform`, or `similarity`: votes count exp(cosine / temperature).
        temperature: Of that weighting.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Source:
        Wu et al. (2018), https://arxiv.org/abs/1805.01978, section 3.5 (the weighting).
    """

    probe_type = "knn"
    late_buffers = (*Probe.late_buffers, "bank", "bank_targets", "is_multilabel")

    bank: Tensor | None
    bank_targets: Tensor | None
    is_multilabel: Tensor | None

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        knn_neighbors: int = 5,
        knn_weighting: Literal["uniform", "similarity"] = "similarity",
        temperature: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        if knn_neighbors < 1 or knn_weighting not in ("uniform", "similarity"):
            raise ConfigError(
                f"knn_neighbors must be at least 1 and knn_weighting 'uniform' or 'similarity', not "
                f"{knn_neighbors} and '{knn_weighting}'."
            )
        self.neighbors, self.weighting, self.temperature = knn_neighbors, knn_weighting, temperature
        for name in ("bank", "bank_targets", "is_multilabel"):
            self.register_buffer(name, None)

    def _learn(self, vectors: Tensor, targets: Tensor) -> None:
        self.bank, self.bank_targets = vectors.clone(), targets
        self.is_multilabel = (targets.sum(1) != 1).any()

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, D)."""
        bank, targets = self._ready(self.bank), self._ready(self.bank_targets)
        x = functional.normalize(x, dim=-1)
        rows = max(1, _BLOCK // len(bank))
        votes = torch.cat([self._votes(part, bank, targets) for part in x.split(rows)])
        # No class is ever impossible: a floor well below one vote.
        floor = 1e-4
        if bool(self._ready(self.is_multilabel)):
            return votes.clamp(floor, 1 - floor).logit()
        votes = votes.clamp_min(floor)
        return (votes / votes.sum(1, keepdim=True)).log()

    def _votes(self, x: Tensor, bank: Tensor, targets: Tensor) -> Tensor:
        """Share of votes for each class, (B, C)."""
        near = (x @ bank.T).topk(min(self.neighbors, len(bank)), dim=1)
        weights = torch.ones_like(near.values)
        if self.weighting == "similarity":
            weights = ((near.values - near.values[:, :1]) / self.temperature).exp()
        weights = weights / weights.sum(1, keepdim=True)
        return (weights.unsqueeze(-1) * targets[near.indices]).sum(1)


def one_hot_targets(labels: Any, examples: int, num_classes: int) -> Tensor:
    """Labels as (N, C) of zeros and ones.

    Args:
        labels: (N,) class numbers, or (N, C) of zeros and ones; any sequence, array or tensor.
        examples: N.
        num_classes: C.

    Raises:
        ValueError: Another shape, or numbers that are no classes.

    Example:
        >>> one_hot_targets([1, 0], 2, 2).tolist()
        [[0, 1], [1, 0]]
    """
    targets = torch.as_tensor(list(labels) if isinstance(labels, Sequence) else labels)
    if tuple(targets.shape) == (examples, num_classes):
        if not ((targets == 0) | (targets == 1)).all():
            raise ValueError("Labels of shape (N, C) must be 0 or 1.")
        return targets.long()
    if tuple(targets.shape) != (examples,) or targets.is_floating_point():
        raise ValueError(
            f"Labels must be {examples} class numbers or ({examples}, {num_classes}) zeros and ones, not "
            f"{targets.dtype} of shape {tuple(targets.shape)}."
        )
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
        raise ValueError(
            f"Class numbers must lie between 0 and {num_classes - 1}, not between {int(targets.min())} and "
            f"{int(targets.max())}."
        )
    return functional.one_hot(targets.long(), num_classes)
