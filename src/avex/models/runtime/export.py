"""Write a model as one ONNX graph from waveform to embedding and logits, and prove that it computes the same."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError, WeightsError
from avex._core.optional import require
from avex._core.version import __version__
from avex.configs import ModelCard
from avex.io.atomic import atomic_path
from avex.models.base_model import ModelBase
from avex.models.probes.base import Probe
from avex.models.runtime.compare import OutputError, largest_error
from avex.models.runtime.onnx import OnnxGraph
from avex.models.runtime.tracing import GraphOutputs, SampleRange, evaluating, trace

# A file in ONNX' own format (protobuf) cannot be larger than 2 GiB; this leaves room for what is not weights.
_MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how exact it is.

    Attributes:
        path: The file.
        outputs: Name to shape of each output; None where a size is open.
        sample_rate: Rate of the audio in Hz.
        window_samples: Samples of a clip; with `dynamic_time`, of the clip it was made with.
        sample_range: Fewest and most samples of a clip that the graph takes; None for no upper limit.
        batch_size: Clips per run; None for any number.
        errors: Largest differences from PyTorch on noise, a tone and silence, by output.
    """

    path: Path
    outputs: dict[str, tuple[int | None, ...]]
    sample_rate: int
    window_samples: int
    sample_range: SampleRange
    batch_size: int | None
    errors: dict[str, OutputError]


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    sample_rate: int | None = None,
    window_samples: int | None = None,
    batch_size: int | None = None,
    dynamic_time: bool = False,
    opset: int = 18,
    rtol: float = 1e-3,
    card: ModelCard | None = None,
    labels: Sequence[str] | None = None,
) -> ExportReport:
    """Write a model with its front end as one ONNX graph.

    The graph takes `audio` (batch, samples) float32 and gives `embedding` (batch, D), the mean over time as
    `model.embed` computes it, and `logits` (batch, classes) if there is a classifier. A module that is no
    `ModelBase`, such as a probe on an encoder, gives its output as `logits`. Fourier transforms are written as
    products with real matrices (`ExportableOps`), so any runtime can compute the graph.

    Before it appears under its name, the file is run by onnxruntime on seeded noise, a tone over faint noise, and
    silence, and must give what PyTorch gives. Differences are rounding. Against the root mean square of an output
    they are up to 2e-5 for HuBERT, BirdNET, BEATs, EAT, Bird-MAE and ATST-Frame, 1e-4 for ResNet18 and 3e-4 for
    EfficientNet-B0, whose deep stacks of convolutions enlarge them.

    What model it is travels in the file's metadata: `card`, `license`, `sample_rate`, `window_samples`,
    `min_samples`, `max_samples`, `activation`, `labels` (JSON list) and `avex_version`.

    Args:
        model: The model, on the CPU, in float32; it is left as it was.
        path: The `.onnx` file; replaced in one step if it exists.
        sample_rate: Rate of the audio in Hz; None asks the model.
        window_samples: Samples of a clip; None takes the model's window.
        batch_size: Clips per run; None for any number.
        dynamic_time: Also take clips of other lengths, within the `sample_range` of the report. Networks that cut
            or pad to a fixed length have a limited one, or none.
        opset: Version of the ONNX operators, at least 18.
        rtol: Largest difference allowed, relative to the root mean square of the output.
        card: Where name, licence and activation come from; the activation of a probe is its own.
        labels: Names of the classes; None takes the model's.

    Returns:
        What was written.

    Raises:
        ConfigError: The model is a graph file already, is not on the CPU in float32, is too large for one file,
            does something that ONNX cannot express, or there is no window.
        WeightsError: The graph does not give what PyTorch gives. Nothing is written.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.

    Example:
        >>> report = export_onnx(load_model("aves_base_bio"), "aves.onnx")    # doctest: +SKIP
        >>> report.outputs                                                    # doctest: +SKIP
        {'embedding': (None, 768)}
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "export", "Exporting to ONNX")
    outputs = GraphOutputs(model)
    rate, samples = _audio(outputs.encoder, sample_rate, window_samples)
    _check_weights(outputs)
    with evaluating(outputs):
        clip = _signal("noise", batch_size or 2, samples)
        with torch.no_grad():
            # Also fills what the model keeps between calls: the trace would take that for an operation.
            values = dict(zip(outputs.names, outputs(clip), strict=True))
        metadata = {"sample_rate": str(rate), "window_samples": str(samples), **_facts(model, card)}
        if names := _labels(model, labels, values.get("logits")):
            metadata["labels"] = json.dumps(names, ensure_ascii=False)
        program, limits = trace(
            outputs,
            clip,
            any_batch=batch_size is None,
            any_length=dynamic_time,
            opset=opset,
            metadata=metadata,
        )
        with atomic_path(path) as temporary:
            program.save(str(temporary), external_data=False)
            graph = OnnxGraph(temporary)
            errors = _verify(outputs, graph, samples, limits, rtol)
    return ExportReport(Path(path), graph.outputs, rate, samples, limits, batch_size, errors)


def _audio(encoder: nn.Module, rate: int | None, samples: int | None) -> tuple[int, int]:
    """Sample rate and samples of a clip, as given or as the model states."""
    rate = rate or getattr(encoder, "sample_rate", None)
    seconds = getattr(encoder, "window_seconds", None)
    if samples is None and seconds is not None and rate is not None:
        samples = round(seconds * rate)
    if rate is None or samples is None:
        raise ConfigError(
            f"{type(encoder).__name__} states no window. Pass sample_rate=... and window_samples=... (--seconds)."
        )
    return rate, samples


def _check_weights(outputs: GraphOutputs) -> None:
    encoder = outputs.encoder
    heads = getattr(encoder, "head_prefixes", ModelBase.head_prefixes)
    frozen = all(name.startswith(heads) for name, _ in encoder.named_parameters())
    if frozen and getattr(encoder, "reads_graph_file", False):
        raise ConfigError(
            f"{type(encoder).__name__} has no PyTorch weights to export: it runs a graph file already, which can "
            "be used as it is. (BirdNET: load it with backend='native'.)"
        )
    tensors = [*outputs.parameters(), *outputs.buffers()]
    if any(tensor.device.type != "cpu" for tensor in tensors):
        raise ConfigError("A model is exported from the CPU. Load it with device='cpu'.")
    low = {str(t.dtype) for t in tensors if t.dtype in (torch.float16, torch.bfloat16)}
    if low:
        raise ConfigError(
            f"The model's weights are {min(low)}; a graph is written in float32. Load it again with "
            "precision='fp32'."
        )
    size = sum(tensor.nbytes for tensor in tensors)
    if size > _MAX_BYTES:
        raise ConfigError(
            f"The weights take {size / 1e9:.1f} GB; one ONNX file holds 2 GB at most. Export a smaller model."
        )


def _labels(model: nn.Module, labels: Sequence[str] | None, logits: Tensor | None) -> list[str] | None:
    """Names of the classes: those that were given, else the model's; None without classes."""
    if logits is None:
        return None
    mapping = getattr(model, "label_mapping", None)
    if labels is None and mapping is not None:
        labels = [mapping["index_to_label"][index] for index in range(mapping.num_classes)]
    if labels is None:
        labels = getattr(model, "labels", None)  # of a probe
    if labels is not None and len(labels) != logits.shape[-1]:
        raise ConfigError(f"There are {len(labels)} labels, but the model has {logits.shape[-1]} classes.")
    return None if labels is None else list(labels)


def _facts(model: nn.Module, card: ModelCard | None) -> dict[str, str]:
    facts: dict[str, Any] = {"avex_version": __version__}
    if card is not None:
        facts |= {"card": card.name, "license": card.license, "activation": card.activation}
    if isinstance(model, Probe):
        # The logits are the probe's, and so is what makes probabilities of them.
        facts["activation"] = model.info.metadata.get("activation")
    return {key: value for key, value in facts.items() if value is not None}


def _verify(
    outputs: GraphOutputs, graph: OnnxGraph, samples: int, limits: SampleRange, rtol: float
) -> dict[str, OutputError]:
    """Largest differences of each output over all test clips."""
    least, most = limits
    longer = samples * 3 // 2
    lengths = sorted({samples, max(least, samples // 2), longer if most is None else min(most, longer)})
    counts = [graph.input_shape[0]] if graph.input_shape[0] else [1, 3]
    worst: dict[str, OutputError] = {}
    for kind, count, length in itertools.product(("noise", "tone", "silence"), counts, lengths):
        clip = _signal(kind, count, length)
        with torch.no_grad():
            expected = outputs(clip)
        found = _run(graph, clip, samples)
        for name, wanted, got in zip(outputs.names, expected, found, strict=True):
            error = largest_error(wanted, got)
            if not error.scaled <= rtol:
                raise WeightsError(
                    f"The graph is wrong: for {count} x {length} samples of {kind} its output '{name}' is off by "
                    f"{error.scaled:.2g} of the root mean square, allowed is rtol={rtol:g}. Nothing was written. "
                    "Pass a larger rtol (--rtol) if that is exact enough: deep networks enlarge rounding."
                )
            worst[name] = max(worst.get(name, error), error, key=lambda e: e.scaled)
    return worst


def _run(graph: OnnxGraph, clip: Tensor, samples: int) -> list[np.ndarray]:
    try:
        return graph.run(clip.numpy())
    except WeightsError as error:
        if clip.shape[1] == samples:
            raise
        raise ConfigError(
            f"The graph would fail for clips of {clip.shape[1]} samples: the network treats them otherwise than "
            f"those of {samples}. Nothing was written. Export it without dynamic_time (--any-length), or with a "
            "shorter window (--seconds)."
        ) from error


def _signal(kind: str, count: int, samples: int) -> Tensor:
    """Test clips (count, samples): seeded noise, a tone over faint noise, or silence.

    Without that noise, front ends would take logarithms of bins that hold nothing but the rounding of the tone;
    PyTorch's own values of those are arbitrary.
    """
    if kind == "silence":
        return torch.zeros(count, samples)
    rng = np.random.Generator(np.random.PCG64(samples))
    noise = rng.standard_normal((count, samples))
    if kind == "noise":
        return torch.from_numpy((0.1 * noise).astype(np.float32))
    loudness = 0.3 / (1 + np.arange(count))[:, None]
    tone = loudness * np.sin(2 * np.pi * 0.0618 * np.arange(samples))
    return torch.from_numpy((tone + 1e-3 * noise).astype(np.float32))
