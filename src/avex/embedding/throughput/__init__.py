"""How fast a model computes, and how near that is to what the machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

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


__getattr__ = lazy_names(__name__, _HOMES)
