"""Measure models: whole, front end and lower bound, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import ModelCard, ModelSpec
from avex.embedding.engines.compiling import compile_network
from avex.embedding.throughput.bound import LowerBound
from avex.embedding.throughput.machine import device_name
from avex.embedding.throughput.memory import peak_memory
from avex.embedding.throughput.plans import BenchPlan, Weights, plan_bench
from avex.embedding.throughput.products import Product, network_products, record_products
from avex.embedding.throughput.result import ProductShare, Throughput
from avex.embedding.throughput.subjects import Subject, load_subjects
from avex.embedding.throughput.timing import Clock, Runner, interleave, runner
from avex.models.base_model import ModelBase

# For models that take any length.
_WINDOW_SECONDS = 10.0
_NAMES = _WHOLE, _FRONT_END, _BOUND = "whole", "front end", "bound"


def measure(
    model: str | Path | ModelSpec | ModelCard | BenchPlan | ModelBase,
    *,
    precisions: Sequence[str] = ("fp32",),
    batch_sizes: Sequence[int] = (1, 8),
    device: str | torch.device | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    workers: int | None = None,
    rounds: int = 5,
    backend: str | None = None,
    compile: bool = False,
    clock: Clock = "wall",
    weights: Weights = "cached",
    on_step: Callable[[str], None] | None = None,
) -> list[Throughput]:
    """Measure how fast a model embeds windows of noise that are in memory already.

    Precisions and batch sizes take turns with their front ends and lower bounds, so that whatever else the machine
    does disturbs all alike. Times can be trusted on a quiet machine only, ratios on most.

    Args:
        model: Anything that `avex.load_model` takes, a plan, or a model that is loaded; that one is not changed.
        precisions: `fp32`, `bf16`, `fp16`, `auto`; those that mean the same are measured once.
        batch_sizes: Windows per pass.
        device: `cpu`, `cuda`, ...; None takes the card's, or that of the loaded model.
        seconds: Length of a window; None takes the model's own, or 10 for one that takes any length.
        threads: Threads of torch; None takes what is set.
        workers: Sessions that run at once, each with a batch of its own and its share of the threads; None
            takes what `avex embed` takes: for BirdNET on a CPU one per thread, else one.
        rounds: Measurements of each; the median counts.
        backend: What computes, where a model has several.
        compile: Let `torch.compile` work on the network first.
        clock: `wall`, or `cpu` for processor time (take one thread).
        weights: Where weights come from: see `plan_bench`. Nothing is downloaded by default.
        on_step: Called with what is done next, in words.

    Raises:
        UnknownModelError: No such model.
        ConfigError: A precision, device or number that makes no sense.
        WeightsError: A graph file that is not here.

    Example:
        >>> results = measure("beats", batch_sizes=[1])                       # doctest: +SKIP
        >>> [round(result.bound_ratio, 2) for result in results]              # doctest: +SKIP
        [0.95]
    """
    _check(batch_sizes, precisions, seconds, threads, workers)
    tell = on_step or (lambda _: None)
    with _thread_limit(threads) as count:
        if isinstance(model, (BenchPlan, nn.Module)):
            plan: BenchPlan | nn.Module = model
        else:
            plan = plan_bench(model, weights=weights, backend=backend)
        tell("loading")
        subjects = load_subjects(plan, precisions, device, workers, count, compile)
        each = max(1, count // subjects[0].workers)
        with runner(subjects[0].workers, each) as run:
            pairs = [
                (subject, _inputs(subject, size, seconds)) for subject in subjects for size in batch_sizes
            ]
            # Before anything is compiled: what runs inside a compiled network cannot be seen.
            products = [_products(subject, waves[0]) for subject, waves in pairs]
            for subject in subjects:
                if subject.compiled:
                    compile_network(subject.models[0])
            cases = []
            for (subject, waves), found in zip(pairs, products, strict=True):
                tell(f"warming up {subject.precision}, batch {len(waves[0])}")
                cases.append(_prepare(subject, waves, found, subjects, run, each))
            tell(f"measuring, {rounds} rounds")
            variants = {(i, name): ops for i, case in enumerate(cases) for name, ops in case.variants.items()}
            times = interleave(variants, rounds=rounds, clock=clock, device=subjects[0].device, run=run)
    return [
        _result(case, count, clock, {name: tuple(times.get((i, name), ())) for name in _NAMES})
        for i, case in enumerate(cases)
    ]


@dataclass(frozen=True)
class _Case:
    """One precision and batch size, ready to be timed: for each variant one operation per session."""

    subject: Subject
    batch_size: int
    window_s: float
    variants: dict[str, list[Callable[[], object]]]
    bound: LowerBound | None
    peak: int | None


def _check(
    batch_sizes: Sequence[int],
    precisions: Sequence[str],
    seconds: float | None,
    threads: int | None,
    workers: int | None,
) -> None:
    for name, values in (("batch_sizes", batch_sizes), ("precisions", precisions)):
        if not values:
            raise ConfigError(f"{name} is empty: there is nothing to measure. Give at least one.")
    numbers = {"batch size": min(batch_sizes), "seconds": seconds, "threads": threads, "workers": workers}
    for name, number in numbers.items():
        if number is not None and number <= 0:
            raise ConfigError(f"The number of {name} must be positive, not {number}.")


@contextmanager
def _thread_limit(threads: int | None) -> Iterator[int]:
    """Threads of torch while it lasts."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _inputs(subject: Subject, size: int, seconds: float | None) -> list[Tensor]:
    """Noise for each session, (B, S)."""
    model = subject.models[0]
    samples = round((seconds or model.window_seconds or _WINDOW_SECONDS) * model.sample_rate)
    generator = torch.Generator().manual_seed(0)
    return [
        (0.1 * torch.randn(size, samples, generator=generator)).to(subject.device) for _ in subject.models
    ]


def _products(subject: Subject, wave: Tensor) -> list[Product]:
    if not subject.has_products:
        return []
    front_ends = [subject.front_end] if subject.front_end else []
    run = _without_gradients(subject.models[0].embed, wave)
    return network_products(record_products(run, front_ends))


def _prepare(
    subject: Subject,
    waves: list[Tensor],
    products: list[Product],
    subjects: Sequence[Subject],
    run: Runner,
    threads: int,
) -> _Case:
    sessions = list(zip(subject.models, waves, strict=True))
    embed = [_without_gradients(model.embed, wave) for model, wave in sessions]
    variants = {_WHOLE: embed}
    if front_end := subject.front_end:
        variants[_FRONT_END] = [_without_gradients(front_end, wave) for wave in waves]
    run(embed, 1)
    others = [other for other in subjects if other is not subject]
    peak = peak_memory(lambda: run(embed, 1), subject.device)
    peak = None if peak is None else peak - sum(other.weight_bytes for other in others)
    with _thread_limit(threads):  # the fastest way may depend on it
        bounds = [LowerBound(products, subject.device) for _ in subject.models] if products else []
    if bounds:
        variants[_BOUND] = [bound.run for bound in bounds]
    window_s = waves[0].shape[1] / subject.models[0].sample_rate
    return _Case(subject, len(waves[0]), window_s, variants, bounds[0] if bounds else None, peak)


def _without_gradients(function: Callable[[Tensor], object], wave: Tensor) -> Callable[[], object]:
    # A setting of the thread that computes, so it belongs into the operation.
    def run() -> None:
        with torch.inference_mode():
            function(wave)

    return run


def _result(case: _Case, threads: int, clock: str, times: dict[str, tuple[float, ...]]) -> Throughput:
    subject, bound = case.subject, case.bound
    parts = bound.parts if bound else []
    return Throughput(
        model=subject.name,
        backend=subject.backend,
        weights=subject.weights,
        device=str(subject.device),
        device_name=device_name(subject.device),
        precision=subject.precision,
        batch_size=case.batch_size,
        workers=subject.workers,
        threads=threads,
        window_s=case.window_s,
        compiled=subject.compiled,
        clock=clock,
        pass_seconds=times[_WHOLE],
        frontend_seconds=times[_FRONT_END],
        bound_seconds=times[_BOUND],
        gflop_per_window=bound.flops / 1e9 / case.batch_size if bound else 0.0,
        peak_memory_bytes=case.peak,
        products=tuple(
            ProductShare(
                label=part.product.label,
                dtype=str(part.product.dtype).removeprefix("torch."),
                count=part.count,
                gflop=part.product.flops * part.count / 1e9,
                way=part.way,
                share=part.share,
                gflop_per_s=part.product.flops / part.seconds / 1e9,
            )
            for part in parts
        ),
    )
