"""A stand-in for a GPU: a torch device, `standin`, whose tensors compute on the CPU but refuse what a GPU's refuse.

Operations on tensors of both devices fail, NumPy cannot read its tensors, autocast follows CUDA's lists, and each
wait of the processor for a value of the device is counted in `waits`. What passes on it asks for nothing that is
only on the CPU, and gives the CPU's numbers. It shows nothing of CUDA's kernels, its memory or its speed.

Importing this module registers the device for the whole process, and torch then believes that there is an
accelerator: `test_other_device.py` runs the cases in processes of their own.

Source:
    https://docs.pytorch.org/docs/stable/accelerator/index.html (devices outside torch); the lists of
    https://docs.pytorch.org/docs/stable/amp.html (autocast).
"""

from __future__ import annotations

import traceback
from collections import Counter

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "standin"
aten = torch.ops.aten

waits: Counter[str] = Counter()
"""Places in avex that waited for a value of the device."""
operations: Counter[str] = Counter()
"""What was computed on the device."""


class _Module(backend_registration._DummyBackendModule):
    """What torch and avex ask of `torch.standin`."""

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def get_device_name(self, device=None):
        return "stand-in"

    def _lazy_init(self):
        pass

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)

# Copies between devices, and what a GPU takes from the CPU as well: indices.
_BETWEEN = {aten.copy_.default, aten._to_copy.default}
_TAKES_INDICES = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
_WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
}


class StandIn(torch.Tensor):
    """A tensor of the device: a CPU tensor in a wrapper."""

    @staticmethod
    def __new__(cls, raw: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=DEVICE,
        )

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw

    def __repr__(self, **_):
        return f"StandIn({self.raw!r})"

    # torch implements these in C++, past the wrapper.

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value):
        torch.Tensor.data.__set__(self, value)
        self.raw = value.raw

    def __getitem__(self, index):
        return torch.Tensor.__getitem__(self, _index(index))

    def __setitem__(self, index, value):
        torch.Tensor.__setitem__(self, _index(index), value)

    def __reduce_ex__(self, protocol):
        return self.raw.__reduce_ex__(protocol)  # in a file, a tensor of the CPU

    def tolist(self):
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # In inference mode, operations arrive that are made of others.
        made = func.decompose(*args, **kwargs) if func._can_decompose() else NotImplemented
        return _run(func, args, kwargs) if made is NotImplemented else made


def _run(func, args, kwargs):
    """Compute an operation on the wrapped tensors."""
    flat, spec = pytree.tree_flatten((args, kwargs))
    own = [value for value in flat if isinstance(value, StandIn)]
    if func not in _BETWEEN:
        _check_devices(func, flat)
    operations[str(func)] += 1
    to_cpu = func is aten._to_copy.default and _is_cpu(kwargs.get("device"))
    if to_cpu or func in _WAITING:
        waits[_place()] += 1
    raw = [
        value.raw
        if isinstance(value, StandIn)
        else torch.device("cpu")
        if isinstance(value, torch.device)
        else value
        for value in flat
    ]
    raw_args, raw_kwargs = pytree.tree_unflatten(raw, spec)
    raw_kwargs.pop("non_blocking", None)
    result = func(*raw_args, **raw_kwargs)
    if to_cpu or (func is aten.copy_.default and not isinstance(args[0], StandIn)):
        return result
    in_place = {id(value.raw): value for value in own}
    shares = any(returned.alias_info is not None for returned in func._schema.returns)

    def wrap(value):
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in in_place:
            return in_place[id(value)]
        # A view of a tensor from outside inference mode is one from outside as well.
        with torch.inference_mode(
            own[0].is_inference() if shares and own else torch.is_inference_mode_enabled()
        ):
            return StandIn(value)

    return pytree.tree_map(wrap, result)


def _check_devices(func, flat) -> None:
    for value in flat:
        if isinstance(value, StandIn) or not isinstance(value, torch.Tensor) or value.ndim == 0:
            continue
        if func in _TAKES_INDICES and value.dtype in (torch.int64, torch.bool):
            continue
        raise RuntimeError(f"{func} of {DEVICE} was given a tensor of {value.device}, {tuple(value.shape)}.")


def _index(index):
    """Lists as tensors, which torch makes past the wrapper."""
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    return torch.tensor(index).to(DEVICE) if isinstance(index, list) else index


def _is_cpu(device) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _place() -> str:
    frames = [f for f in traceback.extract_stack() if "/avex/" in f.filename.replace("\\", "/")]
    return f"{frames[-1].filename.rpartition('avex/')[2]}:{frames[-1].lineno}" if frames else "outside"


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return StandIn(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return StandIn(torch.empty_strided(size, stride, dtype=dtype))


def _from_values(make):
    """`torch.tensor` and `torch.as_tensor`, which torch implements past the wrapper."""

    def build(data, *args, device=None, **kwargs):
        if device is None or torch.device(device).type != NAME:
            return make(data, *args, **kwargs, **({} if device is None else {"device": device}))
        if isinstance(data, StandIn):
            return data.to(kwargs.get("dtype") or data.dtype)
        return make(data, *args, **kwargs).to(DEVICE)

    return build


_aten = torch.library.Library("aten", "IMPL")
_aten.impl("empty.memory_format", _empty, "PrivateUse1")
_aten.impl("empty_strided", _empty_strided, "PrivateUse1")
_all = torch.library.Library("_", "IMPL")
_all.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
_all.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
torch.tensor, torch.as_tensor = _from_values(torch.tensor), _from_values(torch.as_tensor)

# -- autocast, by CUDA's lists ----------------------------------------------------------------------------

_LOW = "linear matmul mm bmm addmm baddbmm conv1d conv2d convolution scaled_dot_product_attention"
_FLOAT32 = (
    "layer_norm group_norm softmax.int log_softmax.int exp log log1p pow.Tensor_Scalar sum sum.dim_IntList "
    "norm.ScalarOpt_dim binary_cross_entropy_with_logits mse_loss nll_loss cumsum rsqrt reciprocal softplus "
    "cosine_similarity prod"
)
_WIDEST = "cat stack"
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _autocast(name: str, choose) -> None:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(aten, packet), overload or "default")

    def implementation(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            numbers = [
                value
                for value in pytree.tree_leaves((args, kwargs))
                if isinstance(value, StandIn) and value.is_floating_point() and value.dtype != torch.float64
            ]
            dtype = choose(numbers)
            chosen = {id(value) for value in numbers}
            cast = pytree.tree_map(lambda v: v.to(dtype) if id(v) in chosen else v, (args, kwargs))
            return operation(*cast[0], **cast[1])

    _aten.impl(name, implementation, "AutocastPrivateUse1")


for _name in _LOW.split():
    _autocast(_name, lambda numbers: torch.get_autocast_dtype(NAME))
for _name in _FLOAT32.split():
    _autocast(_name, lambda numbers: torch.float32)
for _name in _WIDEST.split():
    _autocast(_name, lambda numbers: max((v.dtype for v in numbers), key=lambda t: t.itemsize, default=None))
