"""How a benchmark names its target."""

from __future__ import annotations


def target(value: float, *, least: float | None = None, most: float | None = None) -> str:
    """Return `" [target ...: met]"` for a limit from below or above, or nothing without one."""
    if least is not None:
        return f" [target >= {least:g}: {'met' if value >= least else 'missed'}]"
    if most is not None:
        return f" [target <= {most:g}: {'met' if value <= most else 'missed'}]"
    return ""
