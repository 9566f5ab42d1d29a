"""How fast a model computes, and how near that is to what the machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from avex._core.registry import load_attribute

if TYPE_CHECKING:
    from avex.embedding.throughput.bound import LowerBound
    from avex.embedding.throughput.measuring import measure
    from avex.embedding.throughput.plans import BenchPlan, plan_bench
    from avex.embedding.throughput.products import Product, record_products
    from avex.embedding.throughput.result import Throughput
    from avex.embedding.throughput.timing import interleave

__all__ = [
    "BenchPlan",
    "LowerBound",
    "Product",
    "Throughput",
    "interleave",
    "measure",
    "plan_bench",
    "record_products",
]

_HOMES = {
    "BenchPlan": "plans",
    "LowerBound": "bound",
    "Product": "products",
    "Throughput": "result",
    "interleave": "timing",
    "measure": "measuring",
    "plan_bench": "plans",
    "record_products": "products",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load_attribute(f"{__name__}.{_HOMES[name]}:{name}")
