"""Probes: heads that learn from the layers of an encoder, or from stored embeddings.

Everything here loads with its first use; importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.models.probes.attention import AttentionPoolingProbe, AttentionProbe, TransformerProbe
    from avex.models.probes.base import Probe, ProbeInfo
    from avex.models.probes.checkpoint import load_probe, save_probe
    from avex.models.probes.heads import LinearProbe, LSTMProbe, MLPProbe
    from avex.models.probes.inputs import LayerMix
    from avex.models.probes.prototypes import KNNProbe, PrototypeProbe
    from avex.models.probes.utils.factory import build_probe_from_config
    from avex.models.probes.utils.registry import load_probe_config

_LAZY = {
    "AttentionPoolingProbe": "attention",
    "AttentionProbe": "attention",
    "KNNProbe": "prototypes",
    "LSTMProbe": "heads",
    "LayerMix": "inputs",
    "LinearProbe": "heads",
    "MLPProbe": "heads",
    "Probe": "base",
    "ProbeInfo": "base",
    "PrototypeProbe": "prototypes",
    "TransformerProbe": "attention",
    "build_probe_from_config": "utils.factory",
    "load_probe": "checkpoint",
    "load_probe_config": "utils.registry",
    "save_probe": "checkpoint",
}

__all__ = [
    "AttentionPoolingProbe",
    "AttentionProbe",
    "KNNProbe",
    "LSTMProbe",
    "LayerMix",
    "LinearProbe",
    "MLPProbe",
    "Probe",
    "ProbeInfo",
    "PrototypeProbe",
    "TransformerProbe",
    "build_probe_from_config",
    "load_probe",
    "load_probe_config",
    "save_probe",
]


__getattr__ = lazy_names(__name__, _LAZY)
