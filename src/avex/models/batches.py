"""Taking apart what a model is given: waveforms, alone or in a mapping, and their padding mask."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avex.frontends.base import check_padding_mask, check_tensor


def waveform_and_mask(
    x: Tensor | Mapping[str, Tensor], padding_mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Take a batch apart.

    Args:
        x: Waveforms, or a mapping with `raw_wav` and optionally `padding_mask`.
        padding_mask: The mask, unless the mapping has one.

    Raises:
        ValueError: There are no waveforms, or no samples in them; or the mask has another shape.
        TypeError: The waveforms are no tensor, or the mask is not bool.
    """
    if isinstance(x, Mapping):
        if "raw_wav" not in x:
            raise ValueError(
                f"A batch must hold waveforms as 'raw_wav'; this one holds {', '.join(x) or 'none'}."
            )
        padding_mask = x.get("padding_mask", padding_mask)
        x = x["raw_wav"]
    if x is None:
        raise ValueError("Input tensor cannot be None.")
    check_tensor(x)
    if x.numel() == 0:
        raise ValueError("Audio tensor cannot be empty.")
    if padding_mask is not None:
        check_padding_mask(padding_mask, x)
    return x, padding_mask
