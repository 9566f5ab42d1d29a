"""What `torch.autocast` makes of element types."""

from __future__ import annotations

import contextlib

import torch


def autocast_disabled(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Context in which operations on `device` keep the precision of their arguments."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def compute_dtype(device: torch.device, own: torch.dtype) -> torch.dtype:
    """Element type in which layers of type `own` compute on `device`: that of autocast where it is on.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     compute_dtype(torch.device("cpu"), torch.float32)
        torch.bfloat16
    """
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return own
