"""Transformations of clips: small functions, each with a config of its own, applied in order."""

from __future__ import annotations

from avex.data.transforms.registry import (
    TransformFunction,
    TransformResult,
    apply_transforms,
    register_transform,
)

__all__ = ["TransformFunction", "TransformResult", "apply_transforms", "register_transform"]
