"""Peak memory of `avex embed` on one recording of 1 hour and of 10 hours.

    python bench/bench_memory.py [--hours 1 10]

Prints the peak resident memory of the process (MB), and the ratio of the longest to the shortest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from targets import target

RATE = 48_000


def make_recording(path: Path, hours: float) -> None:
    """Noise as FLAC, written minute by minute."""
    minute = np.random.default_rng(0).normal(0, 0.05, 60 * RATE).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(minute)


def peak_megabytes(recording: Path, output: Path) -> float:
    """Peak resident memory of the command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "avex", "embed", str(recording), "-o", str(output), "-q"],
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"avex embed failed with status {status}")
    return usage.ru_maxrss / 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 10])
    hours = parser.parse_args().hours
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for length in hours:
            recording = Path(name) / f"{length:g}h.flac"
            make_recording(recording, length)
            peaks.append(peak_megabytes(recording, Path(name) / f"{length:g}h.parquet"))
            print(f"{length:5g} h  {peaks[-1]:6.0f} MB{target(peaks[-1], most=600)}", flush=True)
            recording.unlink()
    ratio = peaks[-1] / peaks[0]
    print(f"longest to shortest {ratio:.3f}{target(ratio, most=1.1)}")


if __name__ == "__main__":
    main()
