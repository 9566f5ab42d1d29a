"""The native BirdNET network against bare LiteRT interpreters, one per processor, on windows from memory.

    python bench/bench_birdnet_native.py [--rounds 5] [--batch 16] [--seconds 2]

The contestants take turns, so that a busy machine disturbs all of them alike; of each, the best round counts.
Prints seconds of audio per second, the ratio to LiteRT, the same ratio in processor time (which other programs
disturb less), the share of the spectrograms, and the ratio to a bound: the network's multiplications at the rate
of one large float32 matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from avex import load_model
from avex.embedding.engines.birdnet import available_cpus
from avex.io import fetch
from avex.models.birdnet.graph import BirdNetGraph
from avex.models.utils.registry import get_checkpoint_path

WINDOW, WINDOW_SECONDS = 144_000, 3.0
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


def gflops(size: int = 1024, repeats: int = 5) -> float:
    """Rate of a large float32 matrix product, in GFLOP/s."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times) / 1e9


def network_gflop() -> float:
    """Operations of the convolutions and the classifier for one window, in GFLOP."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load_model("birdnet", device="cpu", backend="native")
    with torch.inference_mode():
        spectrograms = model.frontend(noise(1))[0]
        with FlopCounterMode(display=False) as counter:
            model.classifier(model.backbone(spectrograms).mean((2, 3)))
    return counter.get_total_flops() / 1e9


def frontend_share(batch: int) -> float:
    model = load_model("birdnet", device="cpu", backend="native")
    windows, times = noise(batch), {}
    with torch.inference_mode():
        for name, part in (("spectrograms", model.frontend), ("all", model)):
            part(windows)
            started = time.process_time()
            for _ in range(3):
                part(windows)
            times[name] = time.process_time() - started
    return times["spectrograms"] / times["all"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    cores = available_cpus()
    fp32, bf16 = native("float32", arguments.batch), native("bfloat16", arguments.batch)
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
    torch.set_num_threads(1)
    single, gflop, share = gflops(), network_gflop(), frontend_share(arguments.batch)
    base = best["litert"]
    result = {"cores": cores, "load": os.getloadavg()[0], "frontend_share": share}
    for name, (wall, cpu) in best.items():
        print(
            f"{name:40s} {wall * WINDOW_SECONDS:6.0f} x real time   ratio {wall / base[0]:.2f}   "
            f"in processor time {cpu / base[1]:.2f}   of the float32 bound {cpu * gflop / single:.2f}"
        )
        result[name] = wall / base[0]
    print(f"share of the spectrograms in fp32: {share:.2f}; network {gflop:.2f} GFLOP per window")
    print(json.dumps({key: round(float(np.round(value, 3)), 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
