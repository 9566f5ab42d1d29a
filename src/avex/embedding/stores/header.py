"""The settings of a run, as every store carries them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

from avex._core.errors import StoreError
from avex._core.version import __version__

SCHEMA_VERSION = 1
"""Version of the table and of its footer. Readers refuse versions above the one they know."""

BASE_COLUMNS = ("recording", "start_s", "end_s", "channel", "embedding")

_COLUMN_TYPE = re.compile(r"(bool|u?int(?:8|16|32|64)|float(?:16|32|64))(?:\[([1-9]\d*)\])?")
_INFORMATIONAL = frozenset({"avex_version", "created_utc", "runtime", "extra"})


def _now_utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class StoreHeader:
    """The settings that a table of embeddings was made with.

    Two runs may share a store only if every setting that changes the numbers is the same
    (see `compatible_with`). `avex_version`, `created_utc`, `runtime` and `extra` are for people to read.

    Attributes:
        embedding_dim: Length `d` of every embedding.
        card: Name of the model card.
        weights_sha256: Checksum of the weights, or None when they were not read from a file.
        sample_rate: Rate at which audio was delivered to the model, in Hz.
        resampler: Name of the resampler (`kaiser_best`, `soxr_hq`, ...).
        window_s: Window length in seconds.
        hop_s: Distance between window starts in seconds.
        tail: What was done with the end of a recording (`pad`, `drop`, `shift`).
        min_tail_s: Shortest remainder that still became a window, in seconds.
        channel: How channels were treated: `mean`, `each`, or the number of one.
        layers: Names of the layers that were read.
        pooling: How frames became one vector.
        precision: Number format of the computation (`float32`, `bfloat16`, ...).
        runtime: Device and engine that ran.
        dtype: Number format in the store, `float32` or `float16`.
        labels: Names of the classes behind a score column, in its order.
        columns: Further columns, name to `"dtype"` or `"dtype[length]"` (`{"score": "float32[527]"}`).
        avex_version: Version of avex that started the store.
        created_utc: When the store was started, ISO 8601.
        extra: Anything else that is good to know, JSON values only.

    Raises:
        StoreError: A value cannot describe a table.

    Example:
        >>> header = StoreHeader(
        ...     embedding_dim=768, card="beats", weights_sha256=None, sample_rate=16_000,
        ...     resampler="kaiser_best", window_s=5.0, hop_s=5.0, tail="pad", min_tail_s=0.0, channel="mean",
        ...     layers=("last_layer",), pooling="mean", precision="float32", runtime="cpu",
        ... )
        >>> header.compatible_with(header)
        []
    """

    embedding_dim: int
    card: str
    weights_sha256: str | None
    sample_rate: int
    resampler: str
    window_s: float
    hop_s: float
    tail: str
    min_tail_s: float
    channel: str
    layers: Sequence[str]
    pooling: str
    precision: str
    runtime: str
    dtype: str = "float32"
    labels: Sequence[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    avex_version: str = __version__
    created_utc: str = field(default_factory=_now_utc)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "labels", None if self.labels is None else tuple(self.labels))
        if self.embedding_dim < 1:
            raise StoreError(f"A store needs embeddings of at least 1 number, not {self.embedding_dim}.")
        if self.dtype not in ("float32", "float16"):
            raise StoreError(f"A store holds 'float32' or 'float16' embeddings, not '{self.dtype}'.")
        for name, spec in self.columns.items():
            if name in BASE_COLUMNS or not name or "." in name:
                raise StoreError(f"A further column cannot be called '{name}': choose another name.")
            parse_column_type(spec)
        try:
            json.dumps(self.as_dict(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StoreError(f"The header of a store must consist of JSON values: {error}.") from error

    def as_dict(self) -> dict[str, Any]:
        """Return the header as JSON values, in the order of its fields."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: list(value)
            if isinstance(value, tuple)
            else dict(value)
            if isinstance(value, Mapping)
            else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreHeader:
        """Build a header from what `as_dict` returned.

        Raises:
            StoreError: A setting is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise StoreError(
                f"The header of this store cannot be read: {error}. It was written by another version of avex, "
                "or it is damaged."
            ) from error

    def compatible_with(self, other: StoreHeader) -> list[str]:
        """Return the names of the settings that differ and change the numbers; empty means compatible."""
        mine, theirs = self.as_dict(), other.as_dict()
        return [name for name in mine if name not in _INFORMATIONAL and mine[name] != theirs[name]]


def parse_column_type(spec: str) -> tuple[str, int | None]:
    """Split `"float32[10]"` into `("float32", 10)` and `"int64"` into `("int64", None)`.

    Raises:
        StoreError: The text is not a column type.
    """
    match = _COLUMN_TYPE.fullmatch(spec)
    if match is None:
        raise StoreError(
            f"'{spec}' is not a column type. Expected bool, int8-int64, uint8-uint64 or float16-float64, "
            "with an optional length: 'float32[10]'."
        )
    return match[1], int(match[2]) if match[2] else None
