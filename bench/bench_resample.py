"""Compare avex's resamplers with librosa (resampy's `kaiser_best`, libsoxr's HQ) on the same signal.

    python bench/bench_resample.py [--seconds 90] [--repeats 5]

Needs the group `bench`: pip install librosa resampy
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from targets import target

from avex.audio import resample

PAIRS = [(48000, 16000), (44100, 16000), (44100, 48000), (32000, 48000), (96000, 48000), (384000, 48000)]


def best_seconds(run: Callable[[], np.ndarray], repeats: int) -> float:
    """Return the shortest of `repeats` times, after one run to warm caches and compilers."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90.0, help="length of the signal")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    try:
        import librosa
        import resampy  # noqa: F401 - librosa loads it by name
    except ImportError:
        print(
            "This benchmark compares with librosa and resampy: pip install librosa resampy", file=sys.stderr
        )
        return 1

    print(
        f"{arguments.seconds:g} s mono, best of {arguments.repeats}; 'off' is the largest absolute difference"
    )
    print(f"{'Hz':>16} {'librosa kaiser':>15} {'avex kaiser':>12} {'ratio':>6} {'off':>8} {'avex soxr':>10}")
    for orig, target_rate in PAIRS:
        x = np.random.default_rng(0).standard_normal(int(arguments.seconds * orig)).astype(np.float32) / 8

        def reference(x: np.ndarray = x, orig: int = orig, to: int = target_rate) -> np.ndarray:
            return librosa.resample(x, orig_sr=orig, target_sr=to, res_type="kaiser_best", scale=True)

        def ours(method: str, x: np.ndarray = x, orig: int = orig, to: int = target_rate) -> np.ndarray:
            return resample(x, orig, to, method)

        theirs_s = best_seconds(reference, max(1, arguments.repeats // 2))
        kaiser_s = best_seconds(lambda run=ours: run("kaiser_best"), arguments.repeats)
        soxr_s = best_seconds(lambda run=ours: run("soxr_hq"), arguments.repeats)
        expected, found = reference(), ours("kaiser_best")
        shared = min(len(expected), len(found))
        off = float(np.abs(expected[:shared] - found[:shared]).max())
        print(
            f"{orig:>7} to {target_rate:<6} {theirs_s * 1e3:>12.1f} ms {kaiser_s * 1e3:>9.1f} ms "
            f"{theirs_s / kaiser_s:>5.0f}x {off:>8.1e} {soxr_s * 1e3:>7.1f} ms"
            f"{target(theirs_s / kaiser_s, least=20) if (orig, target_rate) == (48000, 16000) else ''}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
