"""Start-up: `import avex`, `avex --help`, `avex list-models` against the bare interpreter and a bare torch import.

    python bench/bench_startup.py

Each figure is the smallest of several runs of a whole process.
"""

from __future__ import annotations

import subprocess
import sys
import time


def smallest(arguments: list[str], runs: int = 7) -> float:
    """Seconds of the fastest run of a command."""
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    """Print the table."""
    bare = smallest(["-c", "pass"])
    rows = {
        "bare interpreter": bare,
        "import avex": smallest(["-c", "import avex"]),
        "avex --help": smallest(["-m", "avex", "--help"]),
        "avex list-models": smallest(["-m", "avex", "list-models"]),
        "import torch": smallest(["-c", "import torch"], runs=3),
    }
    for name, seconds in rows.items():
        print(f"{name:<18}{1000 * seconds:7.0f} ms   {1000 * (seconds - bare):7.0f} ms above the interpreter")


if __name__ == "__main__":
    main()
