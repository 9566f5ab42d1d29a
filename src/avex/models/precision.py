"""Arithmetic of a network at inference: float32, bfloat16 or float16, chosen by name.

torch is imported inside functions: names are checked by programs that run BirdNET without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avex._core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

PRECISIONS = ("fp32", "bf16", "fp16", "auto")
LONG_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_CANONICAL = {**{name: name for name in PRECISIONS}, **{long: short for short, long in LONG_NAMES.items()}}


def canonical_precision(name: str) -> str:
    """Return the short name of a precision.

    Args:
        name: `fp32`, `bf16`, `fp16` or `auto`; or `float32`, `bfloat16`, `float16`.

    Raises:
        ConfigError: Another name.

    Example:
        >>> canonical_precision("bfloat16")
        'bf16'
    """
    if name not in _CANONICAL:
        raise ConfigError(
            f"Unknown precision '{name}'.{did_you_mean(str(name), _CANONICAL)} Choose {', '.join(PRECISIONS)} "
            f"(or {', '.join(LONG_NAMES.values())})."
        )
    return _CANONICAL[name]


def resolve_precision(name: str, device: torch.device, model: nn.Module | None = None) -> str:
    """Return the precision that a name stands for on a device.

    `auto` is the fastest one that costs no accuracy worth mentioning: bfloat16 where the device computes in it
    (CUDA from Ampere on; processors with AVX512-BF16, AMX or ARM's BF16), float16 on older CUDA devices, float32
    elsewhere. It is float32 too for graphs, and for models that say (`low_precision_ok`) that their embeddings
    change: cosine to float32 below 0.999.

    Args:
        name: Any name that `canonical_precision` knows.
        device: Where the model runs.
        model: The model, for `auto`.

    Returns:
        `fp32`, `bf16` or `fp16`.

    Raises:
        ConfigError: An unknown name.

    Example:
        >>> import torch
        >>> resolve_precision("float32", torch.device("cpu"))
        'fp32'
    """
    precision = canonical_precision(name)
    if precision != "auto":
        return precision
    if model is not None and (is_graph(model) or not getattr(model, "low_precision_ok", False)):
        return "fp32"
    return fast_precision(device)


def fast_precision(device: torch.device) -> str:
    """Return the precision in which a device multiplies fastest, of those that `auto` may choose."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and _cpu_computes_bfloat16():
        return "bf16"
    return "fp32"


def _cpu_computes_bfloat16() -> bool:
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        found: Any = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # before torch 2.10
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def is_graph(model: nn.Module) -> bool:
    """Whether a model is a LiteRT or ONNX file, whose arithmetic is fixed."""
    from torch import nn

    backbone = getattr(model, "backbone", None)
    return bool(getattr(model, "reads_graph_file", False)) and not isinstance(backbone, nn.Module)


def set_precision(model: nn.Module, name: str) -> str:
    """Make a model compute in a precision from now on, for inference.

    In a lower precision the weights of its linear and convolutional layers are converted, once. Norms, the front
    end, and layers that must stay exact (`keeps_float32`) remain float32. Methods of the model run under autocast
    and return float32. `model.precision` names the precision, and the identity of the weights
    (`avex.weights.fingerprint.weights_identity`) stays that of the float32 weights.

    Args:
        model: A model whose weights are loaded. Lower precisions need a `ModelBase`.
        name: Any name that `canonical_precision` knows.

    Returns:
        What `name` stands for here: `fp32`, `bf16` or `fp16`.

    Raises:
        ConfigError: An unknown name, a precision that the model or its device does not have, or one other than
            the lower precision that the model has already.

    Example:
        >>> from avex.models.hubert.model import Hubert
        >>> model = Hubert(init_config={"encoder_num_layers": 1}, return_features_only=True).eval()
        >>> set_precision(model, "bfloat16")
        'bf16'
    """
    current = getattr(model, "precision", "fp32")
    if canonical_precision(name) == "auto" and current != "fp32":
        return current
    device = _device_of(model)
    precision = resolve_precision(name, device, model)
    if precision == current:
        return precision
    _check(model, device, current, precision)
    from avex.weights.fingerprint import weights_identity

    weights_identity(model)  # remembered: it names the weights as they were loaded
    import torch

    dtype = getattr(torch, LONG_NAMES[precision])
    _convert(model, dtype)
    model.precision, model.low_dtype = precision, dtype  # type: ignore[assignment]
    return precision


def _device_of(model: nn.Module) -> torch.device:
    import torch

    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _check(model: nn.Module, device: torch.device, current: str, wanted: str) -> None:
    import torch

    from avex.models.base_model import ModelBase

    kind = type(model).__name__
    if current != "fp32":
        raise ConfigError(
            f"{kind} has been converted to {current} and cannot go to {wanted}: what was rounded off is gone. "
            f"Load it again with precision='{wanted}'."
        )
    if is_graph(model):
        raise ConfigError(
            f"{kind} is a graph and computes in fp32 only, not in {wanted}. Use precision='fp32', or a backend "
            "that computes in torch if the family has one."
        )
    if not isinstance(model, ModelBase):
        raise ConfigError(
            f"{kind} cannot compute in {wanted}: derive it from avex.models.base_model.ModelBase, or use "
            "precision='fp32'."
        )
    if not torch.amp.is_autocast_available(device.type):
        raise ConfigError(f"torch cannot compute in {wanted} on '{device.type}'. Use precision='fp32'.")
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError(
            "On a CPU fp16 is slower than fp32 and holds no larger numbers than 65504. Use precision='bf16'."
        )


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of linear and convolutional layers; caches that depend on them are dropped."""
    import torch
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    from avex.frontends.base import FrontEnd

    # torch's attention mixes its own float32 parameters with those of its output layer.
    exact = (FrontEnd, nn.MultiheadAttention)
    if isinstance(module, exact) or getattr(module, "keeps_float32", False):
        return
    if isinstance(module, (nn.Linear, _ConvNd)):
        with torch.inference_mode(False), torch.no_grad():
            for parameter in module.parameters(recurse=False):
                if parameter.dtype == torch.float32:
                    parameter.data = parameter.data.to(dtype)
    for child in module.children():
        _convert(child, dtype)
