"""What an ONNX file of a Perch model offers, found by the names and shapes of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from avex._core.errors import WeightsError

SAMPLE_RATE = 32_000
WINDOW_SAMPLES = 160_000
# Peak to which the authors' programs (perch, perch-hoplite) scale each window before the network.
TARGET_PEAK = 0.25

# Names of each output in the known conversions, Perch v2's first; `output_N` is what TF-Hub called Perch v1's.
_EMBEDDING = ("embedding", "embeddings", "output_1")
_LOGITS = ("label", "logits", "reef_label", "output_0")
_SPATIAL = ("spatial_embedding",)

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class PerchOutputs:
    """Outputs of a Perch graph.

    Attributes:
        embedding: Name of the embedding (B, D).
        embedding_dim: D.
        logits: Name of the logits (B, classes), or None.
        num_classes: How many classes, or None.
        spatial: Name of the embedding map (B, T, F, D), or None.

    Example:
        >>> PerchOutputs.find({"embedding": (None, 1536), "label": (None, 14795)}).embedding_dim
        1536
    """

    embedding: str
    embedding_dim: int
    logits: str | None = None
    num_classes: int | None = None
    spatial: str | None = None

    @classmethod
    def find(cls, outputs: Mapping[str, Shape], path: str = "the graph") -> PerchOutputs:
        """Recognise the outputs of a graph.

        Args:
            outputs: Name to shape of each, None where the graph leaves a size open.
            path: The file, for messages.

        Raises:
            WeightsError: There is no embedding of a fixed length.
        """
        embedding = _first(_EMBEDDING, outputs, rank=2)
        if embedding is None:
            listed = ", ".join(f"{name} {shape}" for name, shape in outputs.items())
            raise WeightsError(
                f"'{path}' is not a Perch model: none of its outputs ({listed}) is an embedding (batch, length) "
                f"called {' or '.join(map(repr, _EMBEDDING))}."
            )
        logits = _first(_LOGITS, outputs, rank=2)
        return cls(
            embedding=embedding,
            embedding_dim=outputs[embedding][-1] or 0,
            logits=logits,
            num_classes=outputs[logits][-1] if logits else None,
            spatial=_first(_SPATIAL, outputs, rank=4),
        )


def _first(names: tuple[str, ...], outputs: Mapping[str, Shape], rank: int) -> str | None:
    """The first name that is an output of that rank with a known last size."""
    fits = (name for name in names if name in outputs and len(outputs[name]) == rank and outputs[name][-1])
    return next(fits, None)
