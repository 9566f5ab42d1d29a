"""Weights: from a source to a file, to tensors, to a model's own names, into the model, with nothing unexplained.

Label maps are here as well. Importing this package, label maps and sources needs no torch; the rest loads
on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names
from avex.weights.keymap import KeyMap, Rule
from avex.weights.labels import LabelMap, split_label
from avex.weights.report import LoadReport
from avex.weights.source import WeightSource

if TYPE_CHECKING:
    from avex.weights.adapter import CheckpointAdapter, KeyMapAdapter, StateDictAdapter, choose_adapter
    from avex.weights.apply import apply_state
    from avex.weights.fingerprint import compare, output_fingerprint, state_fingerprint, weights_identity
    from avex.weights.readers import Checkpoint, read_checkpoint, read_header

_LAZY = {
    **dict.fromkeys(("CheckpointAdapter", "KeyMapAdapter", "StateDictAdapter", "choose_adapter"), "adapter"),
    "apply_state": "apply",
    **dict.fromkeys(
        ("compare", "output_fingerprint", "state_fingerprint", "weights_identity"), "fingerprint"
    ),
    **dict.fromkeys(("Checkpoint", "read_checkpoint", "read_header"), "readers"),
}

__all__ = [
    "Checkpoint",
    "CheckpointAdapter",
    "KeyMap",
    "KeyMapAdapter",
    "LabelMap",
    "LoadReport",
    "Rule",
    "StateDictAdapter",
    "WeightSource",
    "apply_state",
    "choose_adapter",
    "compare",
    "output_fingerprint",
    "read_checkpoint",
    "read_header",
    "split_label",
    "state_fingerprint",
    "weights_identity",
]


__getattr__ = lazy_names(__name__, _LAZY)
