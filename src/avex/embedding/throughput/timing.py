"""Timing of operations that take turns, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, Protocol, TypeVar

import torch

from avex._core.errors import ConfigError
from avex.embedding.throughput.bound import synchronize

Clock = Literal["wall", "cpu"]

_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


Name = TypeVar("Name", bound=Hashable)


class Runner(Protocol):
    """How operations are computed: one at a time, or the same on several threads at once."""

    def __call__(self, operations: Sequence[Callable[[], object]], repeats: int) -> None:
        """Compute each of the operations so many times."""


def run_in_turn(operations: Sequence[Callable[[], object]], repeats: int) -> None:
    """Compute operations in this thread, one after the other."""
    for operation in operations:
        for _ in range(repeats):
            operation()


@contextmanager
def runner(workers: int, threads_each: int = 1) -> Iterator[Runner]:
    """A runner with a thread for each worker, each of which gives torch so many; one worker is the caller itself.

    Example:
        >>> with runner(2) as run:
        ...     run([lambda: None, lambda: None], 3)
    """
    if workers == 1:
        yield run_in_turn
        return
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads_each,)) as pool:

        def run_at_once(operations: Sequence[Callable[[], object]], repeats: int) -> None:
            tasks = [pool.submit(run_in_turn, [operation], repeats) for operation in operations]
            for task in tasks:
                task.result()

        yield run_at_once


def interleave(
    variants: Mapping[Name, Sequence[Callable[[], object]]],
    *,
    rounds: int = 5,
    clock: Clock = "wall",
    device: torch.device | str = "cpu",
    run: Runner = run_in_turn,
    shortest: float = 0.05,
) -> dict[Name, list[float]]:
    """Time variants in turns: each once per round.

    Args:
        variants: By name, the operations of one variant: one, or one per thread of `run`.
        rounds: How many times.
        clock: `wall`, or `cpu` for processor time of all threads, which other programs disturb less; take one
            thread for it, as threads that wait count.
        device: Waited for before and after each measurement.
        run: Computes the operations of a variant.
        shortest: Variants that take less than this many seconds are repeated within a measurement.

    Returns:
        Seconds of one pass of each variant in each round. A first round, which warms up, is left out.

    Raises:
        ConfigError: No rounds, or an unknown clock.

    Example:
        >>> {name: len(seconds) for name, seconds in interleave({"sum": [lambda: sum(range(9))]}).items()}
        {'sum': 5}
    """
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1, not {rounds}.")
    if clock not in _CLOCKS:
        raise ConfigError(f"Unknown clock '{clock}'. Choose wall or cpu.")
    now, device = _CLOCKS[clock], torch.device(device)

    def seconds(name: Name, repeats: int) -> float:
        synchronize(device)
        started = now()
        run(variants[name], repeats)
        synchronize(device)
        return (now() - started) / repeats

    repeats = {}
    for name in variants:
        first = seconds(name, 1)
        # What the first pass prepares would make a short variant look long.
        typical = first if first > shortest else seconds(name, 1)
        repeats[name] = max(1, min(10_000, round(shortest / max(typical, 1e-7))))
    times: dict[Name, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name in variants:
            times[name].append(seconds(name, repeats[name]))
    return times
