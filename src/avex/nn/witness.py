"""Noticing that parameters have changed, for what was computed from them and kept."""

from __future__ import annotations

from torch import Tensor

# Values of each tensor that are looked at again: few, because it is done in every forward pass.
_FEW = 16


class Witness:
    """Remembers what tensors held, to tell later whether they still do.

    Most changes count up a tensor's version or give it other memory. Fused optimisers (`fused=True`), writes
    through `.data` and writes through NumPy do neither. On a CPU a few values spread over each tensor are therefore
    compared as well: a change of whole tensors shows there, one of single values may not.

    Args:
        *tensors: Plain tensors that count their changes.

    Example:
        >>> import torch
        >>> weight = torch.ones(100)
        >>> witness = Witness(weight)
        >>> witness.agrees(weight)
        True
        >>> _ = weight.data.mul_(2)
        >>> witness.agrees(weight)
        False
    """

    def __init__(self, *tensors: Tensor) -> None:
        # These share the memory of the tensors. While they live, nothing else can get the same address.
        self._seen = [_spread(tensor.detach()) for tensor in tensors]
        self._values = [seen.clone() if seen.device.type == "cpu" else None for seen in self._seen]
        self._state = [(tensor._version, tensor.data_ptr()) for tensor in tensors]

    def agrees(self, *tensors: Tensor) -> bool:
        """Tell whether these are the same tensors, unchanged as far as can be seen."""
        if self._state != [(tensor._version, tensor.data_ptr()) for tensor in tensors]:
            return False
        for seen, values, (_, place) in zip(self._seen, self._values, self._state, strict=True):
            # Sharding frees the memory of a tensor that stays; only then do the two addresses differ.
            if values is not None and (seen.data_ptr() != place or not seen.equal(values)):
                return False
        return True


def _spread(tensor: Tensor) -> Tensor:
    """A view of a few values, whatever the tensor's layout in memory."""
    if not tensor.numel():
        return tensor
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    step = max(1, span // _FEW) | 1  # odd: not always the same column
    return tensor.as_strided((-(-span // step),), (step,))
