"""From a module to an ONNX program in memory, quietly, with named outputs."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex._core.version import __version__
from avex.models.base_model import ModelBase
from avex.models.runtime.exportable import ExportableOps

INPUT = "audio"
_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "onnx")
# Limits of torch.export that stand for "none".
_UNLIMITED = 2**31

SampleRange = tuple[int, "int | None"]


class GraphOutputs(nn.Module):
    """A model as a function from waveforms to the outputs of a graph.

    Args:
        model: A `ModelBase` gives `embedding` and, with a classifier, `logits`; any other module, such as a probe,
            gives its output as `logits`.

    Attributes:
        names: The outputs.
        encoder: The model that hears: a probe's base, else the model itself.

    Example:
        >>> GraphOutputs(nn.Tanh()).names
        ('logits',)
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # A probe keeps a frozen base out of its parameters; the graph needs them.
        self.encoder: nn.Module = getattr(model, "base_model", None) or model
        self.names = _output_names(model)

    def forward(self, audio: Tensor) -> tuple[Tensor, ...]:
        """(B, S) to one tensor per name."""
        model = self.model
        if not isinstance(model, ModelBase):
            return (model(audio),)
        if "logits" in self.names:
            return model.embed_and_classify(audio)
        return (model.embed(audio),)


def _output_names(model: nn.Module) -> tuple[str, ...]:
    if not isinstance(model, ModelBase):
        return ("logits",)
    own_features = type(model).forward_features is not ModelBase.forward_features
    if model.return_features_only or (own_features and getattr(model, "classifier", None) is None):
        return ("embedding",)
    return ("embedding", "logits")


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a block, every part as it was afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of torch's exporter, which are about itself, from the user."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def trace(
    outputs: GraphOutputs,
    clip: Tensor,
    *,
    any_batch: bool,
    any_length: bool,
    opset: int,
    metadata: Mapping[str, str],
) -> tuple[Any, SampleRange]:
    """Turn a module into an ONNX program.

    Args:
        outputs: The module, in eval mode.
        clip: (B, S) example of the input, B at least 2 for `any_batch`.
        any_batch: Leave the number of clips open.
        any_length: Leave the number of samples open.
        opset: Version of the ONNX operators.
        metadata: What to store in the file; the range of samples is added.

    Returns:
        The program of `torch.onnx`, and the fewest and most samples that it takes.

    Raises:
        ConfigError: The module does something that cannot be traced or that ONNX cannot express.
    """
    dynamic = torch.export.Dim.DYNAMIC
    free = {axis: dynamic for axis, is_open in enumerate((any_batch, any_length)) if is_open}
    try:
        with quiet(), torch.enable_grad(), ExportableOps():
            exported = torch.export.export(outputs, (clip,), dynamic_shapes=(free,), strict=False)
        # The exporter's optimiser is off: it takes x + 1e-8 for x, and silence then divides by zero.
        with quiet():
            program = torch.onnx.export(
                exported, dynamo=True, opset_version=opset, verbose=False, optimize=False, input_names=[INPUT]
            )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        hint = " Without dynamic_time it may be possible." if any_length else ""
        raise ConfigError(
            f"{type(outputs.model).__name__} cannot be written as an ONNX graph: {reason}{hint}"
        ) from error
    assert program is not None
    limits = _sample_range(exported) if any_length else (clip.shape[1], clip.shape[1])
    _name(program.model, outputs.names)
    _forget_sources(program.model)
    lengths = {"min_samples": limits[0], "max_samples": limits[1]}
    program.model.producer_name, program.model.producer_version = "avex", __version__
    program.model.metadata_props.update(metadata)
    program.model.metadata_props.update({k: str(v) for k, v in lengths.items() if v is not None})
    return program, limits


def _sample_range(exported: Any) -> SampleRange:
    """What the branches that were taken say about the length."""
    node = next(node for node in exported.graph.nodes if node.op == "placeholder" and node.name == INPUT)
    limits = exported.range_constraints[node.meta["val"].shape[1].node.expr]
    return int(limits.lower), int(limits.upper) if limits.upper < _UNLIMITED else None


def _forget_sources(model: Any) -> None:
    """Clear what the exporter notes at every operation: lines and paths of the program, larger than it."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()


def _name(model: Any, names: tuple[str, ...]) -> None:
    """Name the outputs; other values may bear these names already."""
    for node in model.graph:
        for value in node.outputs:
            if value.name in (*names, INPUT):
                value.name = f"{value.name}_inside"
    for value, name in zip(model.graph.outputs, names, strict=True):
        value.name = name
