"""The native BirdNET network against bare LiteRT interpreters, one per processor, on windows from memory.

    python bench/bench_birdnet_native.py [--rounds 5] [--batch 16] [--seconds 2]

The contestants take turns, so that a busy machine disturbs all of them alike; of each, the best round counts.
Prints seconds of audio per second, the ratio to LiteRT and its target, and the same ratio in processor time, which
other programs disturb less. Then, as `avex bench` does, the share of the spectrograms and of the network's
convolutions alone.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable

import torch
from targets import target

from avex import load_model
from avex.embedding.throughput import measure
from avex.io import fetch
from avex.models.birdnet.graph import BirdNetGraph
from avex.models.runtime.threads import available_cpus
from avex.models.utils.registry import get_checkpoint_path

WINDOW, WINDOW_SECONDS = 144_000, 3.0
# Least speed relative to LiteRT, for the way in which `avex embed` runs it.
TARGETS = {"native fp32, one batch per thread": 1.5, "native bf16, one batch per thread": 2.0}
PASS = Callable[[], int]  # computes a batch, returns its number of windows


def litert(cores: int) -> list[PASS]:
    """One session per processor, two windows per call."""
    graph = BirdNetGraph(fetch(get_checkpoint_path("birdnet")))
    windows = noise(2).numpy()
    sessions = [graph.session() for _ in range(cores)]
    return [lambda session=session: len(session.run(windows)[0]) for session in sessions]


def native(precision: str, batch: int) -> PASS:
    """The whole network, logits included."""
    model = load_model("birdnet", device="cpu", backend="native", precision=precision)
    windows = noise(batch)

    def run() -> int:
        with torch.inference_mode():
            return len(model(windows))

    return run


def noise(count: int) -> torch.Tensor:
    return 0.1 * torch.randn(count, WINDOW, generator=torch.Generator().manual_seed(0))


def rate(passes: list[PASS], seconds: float) -> tuple[float, float]:
    """Windows per second and windows per second of processor time, each pass in a thread of its own."""
    counts = [0] * len(passes)
    stop = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < stop:
            counts[index] += passes[index]()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(passes))]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started), sum(counts) / (time.process_time() - cpu)


def parts(batch: int, cores: int) -> None:
    """Print the share of the spectrograms, and how near the network is to its convolutions alone."""
    for result in measure(
        "birdnet", precisions=["fp32", "bf16"], batch_sizes=[batch], threads=cores, rounds=3, device="cpu"
    ):
        print(
            f"{result.precision}: spectrograms {result.frontend_share:.1%} of the time, "
            f"{result.bound_ratio:.2f} of its convolutions alone ({result.gflop_per_window:.2f} GFLOP a window)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    cores = available_cpus()
    fp32, bf16 = native("fp32", arguments.batch), native("bf16", arguments.batch)
    contestants: dict[str, tuple[list[PASS], int]] = {
        "litert": (litert(cores), 1),
        "native fp32, one batch on all threads": ([fp32], cores),
        "native fp32, one batch per thread": ([fp32] * cores, 1),
        "native bf16, one batch on all threads": ([bf16], cores),
        "native bf16, one batch per thread": ([bf16] * cores, 1),
    }
    best = dict.fromkeys(contestants, (0.0, 0.0))
    for _ in range(arguments.rounds):
        for name, (passes, threads) in contestants.items():
            torch.set_num_threads(threads)
            wall, cpu = rate(passes, arguments.seconds)
            best[name] = (max(best[name][0], wall), max(best[name][1], cpu))
    torch.set_num_threads(cores)
    base = best["litert"]
    for name, (wall, cpu) in best.items():
        wanted = TARGETS.get(name)
        print(
            f"{name:40s} {wall * WINDOW_SECONDS:6.0f} x real time   {wall / base[0]:.2f} x litert"
            f"{target(wall / base[0], least=wanted)}   in processor time {cpu / base[1]:.2f} x"
        )
    parts(arguments.batch, cores)
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
