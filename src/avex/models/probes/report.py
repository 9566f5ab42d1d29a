"""What a probe is made of and what it learned, to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avex.models.probes.base import Probe


def learned_weights(probe: Probe) -> dict[str, float]:
    """Share of each layer in the weighted sum, or an empty dict if layers are not weighted."""
    if probe.layer_weights is None:
        return {}
    shares = probe.layer_weights.detach().float().softmax(0).tolist()
    return dict(zip(probe.inputs.names, shares, strict=True))


def learned_weights_table(probe: Probe) -> str:
    """The learned weights as a table: layer, raw weight, share, per cent."""
    if probe.layer_weights is None:
        return "No learned weights found: layers are weighed with aggregation='none' and several layers only."
    raw = probe.layer_weights.detach().float().tolist()
    width = max(5, *(len(name) for name in probe.inputs.names))
    lines = [f"{'Layer':<{width}}  {'raw':>8}  {'weight':>7}  {'%':>5}"]
    for (name, share), value in zip(learned_weights(probe).items(), raw, strict=True):
        lines.append(f"{name:<{width}}  {value:8.4f}  {share:7.4f}  {100 * share:5.1f}")
    return "\n".join(lines)


def debug_info(probe: Probe) -> dict[str, Any]:
    """Settings and sizes of a probe."""
    head = [p for name, p in probe.named_parameters() if not name.startswith("base_model.")]
    return {
        "probe_type": probe.probe_type,
        "layers": probe.layers,
        "dims": list(probe.inputs.dims),
        "input_dim": probe.inputs.dim,
        "num_classes": probe.num_classes,
        "feature_mode": probe.feature_mode,
        "aggregation": probe.inputs.aggregation,
        "input_processing": probe.inputs.processing,
        "freeze_backbone": probe.freeze_backbone,
        "target_length": probe.config.target_length if probe.config else None,
        "parameters": sum(p.numel() for p in head),
        "is_standardised": probe.input_mean is not None,
        "has_layer_weights": probe.layer_weights is not None,
        "has_embedding_projectors": probe.embedding_projectors is not None,
        "layer_weights": learned_weights(probe),
    }
