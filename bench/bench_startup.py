"""Start-up: `import avex`, `avex --help`, `avex list-models` against the bare interpreter and a bare torch import.

    python bench/bench_startup.py

Each figure is the smallest of several runs of a whole process; the runs of the commands take turns. `import torch`
shows what it would cost if torch were imported at the start.
"""

from __future__ import annotations

import subprocess
import sys
import time

from targets import target

# What is run, and the most that it may take above the bare interpreter, in ms.
COMMANDS: dict[str, tuple[list[str], float | None]] = {
    "bare interpreter": (["-c", "pass"], None),
    "import avex": (["-c", "import avex"], 50),
    "avex --help": (["-m", "avex", "--help"], 400),
    "avex list-models": (["-m", "avex", "list-models"], 400),
    "import torch": (["-c", "import torch"], None),
}


def seconds(arguments: list[str]) -> float:
    """Time of a whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(5):
        for name, (arguments, _) in COMMANDS.items():
            best[name] = min(best[name], seconds(arguments))
    bare, torch = best["bare interpreter"], best["import torch"]
    for name, (_, most) in COMMANDS.items():
        above = 1000 * (best[name] - bare)
        print(
            f"{name:<18}{1000 * best[name]:7.0f} ms   {above:7.0f} ms above the interpreter   "
            f"{best[name] / torch:5.2f} of importing torch{target(above, most=most)}"
        )


if __name__ == "__main__":
    main()
