"""A probe as one safetensors file: its head, its config, and which weights it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from avex._core.errors import ConfigError, WeightsError
from avex.configs.probe import ProbeConfig
from avex.io import MissingFileError, write_bytes
from avex.models.base_model import ModelBase
from avex.models.probes.base import Probe, ProbeInfo
from avex.models.probes.inputs import LayerMix
from avex.models.probes.utils.dims import mix_for_model
from avex.models.probes.utils.factory import as_model, make_probe
from avex.weights.fingerprint import weights_identity

FORMAT_VERSION = 1
_KEY = "avex_probe"


def save_probe(
    probe: Probe,
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    card: str | None = None,
    weights: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a probe to one file, complete or not at all.

    The file holds the head, its standardisation, the config, the layers and their widths, and what is given here.
    A frozen backbone is not in it, only what it is called; one that was trained along is.

    Args:
        probe: A probe that `build_probe_from_config` or `load_probe` made.
        path: A `.safetensors` file; its folder must exist.
        labels: Names of the classes, in the order of the logits; None keeps those that the probe has.
        card: Name to load the backbone by; None keeps what the probe has.
        weights: Identity of the backbone's weights, such as a store's `weights_sha256`; None asks the probe's base
            model, and keeps what the probe has if it has no base.
        metadata: JSON values: `sample_rate`, `window_s`, `hop_s`, `resampler`, scores. What the probe has is kept.

    Raises:
        ConfigError: The probe was put together by hand, or there are fewer or more labels than classes.

    Example:
        >>> save_probe(probe, "thrushes.safetensors", labels=["merula", "philomelos"])  # doctest: +SKIP
    """
    if probe.config is None:
        raise ConfigError(
            "This probe has no config, so it could not be built again. Build it with build_probe_from_config."
        )
    info = _described(probe, labels, card, weights, metadata)
    if info.labels is not None and len(info.labels) != probe.num_classes:
        raise ConfigError(
            f"{len(info.labels)} labels were given for a probe of {probe.num_classes} classes. Give one per class."
        )
    header = {
        "format_version": FORMAT_VERSION,
        "config": probe.config.model_dump(mode="json"),
        "options": probe.options,
        "num_classes": probe.num_classes,
        "inputs": asdict(probe.inputs),
        "with_backbone": "base_model" in probe._modules,
        "info": asdict(replace(info, metadata=dict(info.metadata))),
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The metadata of a probe must consist of JSON values: {error}.") from error
    state = {name: tensor.detach().contiguous().clone() for name, tensor in probe.state_dict().items()}
    write_bytes(path, save(state, {"format": "pt", _KEY: text}))
    probe.info = info


def _described(
    probe: Probe,
    labels: Sequence[str] | None,
    card: str | None,
    weights: str | None,
    metadata: Mapping[str, Any] | None,
) -> ProbeInfo:
    known, base = probe.info, probe.base_model
    found = {} if base is None else {"sample_rate": base.sample_rate}
    if weights is None and base is not None:
        weights = weights_identity(base)
    return ProbeInfo(
        labels=known.labels if labels is None else tuple(labels),
        card=card or known.card,
        weights=weights or known.weights,
        metadata={**found, **known.metadata, **(metadata or {})},
    )


def load_probe(
    path: str | Path,
    base_model: nn.Module | None = None,
    device: str | torch.device = "cpu",
    *,
    allow_other_weights: bool = False,
) -> Probe:
    """Read a probe that `save_probe` wrote.

    Args:
        path: The file.
        base_model: The encoder, for a probe that takes waveforms; None for one that takes embeddings, however
            it was trained.
        device: Where it is to live.
        allow_other_weights: Take a base model whose weights are not those that the probe was trained on.

    Returns:
        The probe in eval mode; `labels` and `info` say what it was trained on.

    Raises:
        MissingFileError: (a `FileNotFoundError`) There is no such file.
        WeightsError: Not a probe, a damaged one, or a base model with other weights or other layers.
        ConfigError: A base model for a probe that reads the windows of a recording as a sequence.

    Example:
        >>> probe = load_probe("thrushes.safetensors", base_model=load_model("beats"))  # doctest: +SKIP
    """
    header, state = _read(Path(path))
    info = ProbeInfo(**{**header["info"], "labels": _tuple(header["info"]["labels"])})
    config = ProbeConfig(**header["config"])
    inputs = LayerMix(
        **{
            **header["inputs"],
            "names": tuple(header["inputs"]["names"]),
            "dims": tuple(header["inputs"]["dims"]),
        }
    )
    base = None if base_model is None else as_model(base_model)
    if header["with_backbone"] and base is None:
        raise WeightsError(
            f"Probe '{path}' was trained together with its backbone, and works with that only. Pass "
            f"base_model={_how_to_load(info)}: it will get the trained weights."
        )
    if base is not None:
        _check_reads_clips(info, path)
        inputs = _inputs_on(base, config, inputs, path)
        if not header["with_backbone"] and not allow_other_weights:
            _check_weights(base, info, path)
    probe = make_probe(config, inputs, header["num_classes"], device, base, **header["options"])
    try:
        probe.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"Probe '{path}' does not hold what its header says: {error}") from error
    probe.info = info
    return probe.eval()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.exists():
        raise MissingFileError(f"Probe '{path}' does not exist.")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{path}' cannot be read as a safetensors file: {error}") from error
    if text is None:
        raise WeightsError(
            f"'{path}' is not a probe of avex: its header has no '{_KEY}'. Load the state dict of another program "
            "into a probe that build_probe_from_config built."
        )
    header = json.loads(text)
    if header["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"Probe '{path}' has format {header['format_version']}; this avex reads up to {FORMAT_VERSION}. "
            "Update avex."
        )
    return header, state


def _check_reads_clips(info: ProbeInfo, path: str | Path) -> None:
    """A sequence of windows is not what a model makes of one clip, though both are sequences."""
    if info.metadata.get("sequence"):
        raise ConfigError(
            f"Probe '{path}' was trained on sequences of windows, one embedding for each, and a model gives the "
            "time steps of one clip. Load it without base_model, for embeddings; or train a linear or mlp probe."
        )


def _inputs_on(base: ModelBase, config: ProbeConfig, saved: LayerMix, path: str | Path) -> LayerMix:
    """The saved input with the model's own names of layers."""
    found = mix_for_model(config, saved.kind, base, config.target_length)
    # Side by side only the sum counts: a store does not say where one layer ends.
    same = found.dims == saved.dims or (not saved.is_weighted and found.dim == saved.dim)
    if not same:
        raise WeightsError(
            f"Probe '{path}' reads layers of widths {list(saved.dims)}, but {', '.join(found.names)} of this "
            f"{type(base).__name__} have {list(found.dims)}. Pass the model that it was trained on."
        )
    return found


def _check_weights(base: ModelBase, info: ProbeInfo, path: str | Path) -> None:
    identity = weights_identity(base)
    if info.weights == identity:
        return
    if info.weights is None:
        raise WeightsError(
            f"Probe '{path}' does not say which weights it was trained on, so they cannot be compared with this "
            f"{type(base).__name__}'s. If you know that they are the same, pass allow_other_weights=True."
        )
    raise WeightsError(
        f"Probe '{path}' was trained on weights {info.weights}, but this {type(base).__name__} has {identity}: its "
        f"scores would mean nothing. Pass base_model={_how_to_load(info)}, or allow_other_weights=True."
    )


def _how_to_load(info: ProbeInfo) -> str:
    return f"load_model('{info.card}')" if info.card else "the model that it was trained on"


def _tuple(labels: list[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels)
