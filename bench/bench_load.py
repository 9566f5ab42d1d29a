"""Loading a checkpoint against reading its file: one process, the file in the page cache.

    python bench/bench_load.py [family ...]

Files of the published sizes are made of seeded random numbers in a temporary folder. Every figure is the
smallest of several fresh processes, since memory that was used before costs less; `import torch` and the import
of the family are not counted. Times of the processor (cpu) are shown beside those of the clock, which on a busy
machine say little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

# Card and what makes a network of its size; the checkpoint then holds that network.
MODELS = {
    "beats": ("beats", {}),
    "eat": ("eat_hf", {"model_id": "worstchan/EAT-base_epoch30_pretrain"}),
    "aves": ("hubert", {}),
    "birdmae-base": ("birdmae", {"model_id": "DBD-research-group/Bird-MAE-Base"}),
}

MAKE = """
import sys, torch
from safetensors.torch import save_file
from avex import build_model
torch.manual_seed(0)
state = build_model(sys.argv[1], device="cpu", return_features_only=True, **eval(sys.argv[2])).state_dict()
state = {name: value.clone() for name, value in state.items()}
save_file(state, sys.argv[3] + ".safetensors")
torch.save(state, sys.argv[3] + ".pt")
"""

MEASURE = """
import importlib, sys, time
import avex, torch
from avex.models.utils.load import load_model
from avex.models.utils.registry import get_model_class, resolve
family, options, path = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
get_model_class(resolve(family).model_spec.name)

def read():
    with open(path, "rb") as file:
        return file.read()

def load():
    return load_model(family, checkpoint_path=path, device="cpu", return_features_only=True, **options)

def timed(what):
    clock, cpu = time.perf_counter(), time.process_time()
    kept.append(what())  # so that both take fresh memory
    return time.perf_counter() - clock, time.process_time() - cpu

# The order is turned around between processes.
kept = []
first, second = (read, load) if sys.argv[4] == "0" else (load, read)
figures = {first.__name__: timed(first), second.__name__: timed(second)}
print(*figures["read"], *figures["load"])
"""


def measure(family: str, options: dict[str, str], path: Path, runs: int) -> list[float]:
    """Smallest seconds of reading the file (clock, processor) and of loading the model (clock, processor)."""
    figures = []
    for run in range(runs):
        command = [sys.executable, "-c", MEASURE, family, repr(options), str(path), str(run % 2)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures.append([float(figure) for figure in output.split()])
    return [min(column) for column in zip(*figures, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--runs", type=int, default=6)
    arguments = parser.parse_args()
    print(f"{'model':<14}{'file':<13}{'MB':>5}{'read':>9}{'load':>9}{'ratio':>7}{'ratio (cpu)':>13}")
    for name in arguments.models or MODELS:
        family, options = MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            stem = f"{folder}/weights"
            subprocess.run([sys.executable, "-c", MAKE, family, repr(options), stem], check=True)
            for suffix in (".safetensors", ".pt"):
                path = Path(stem + suffix)
                path.read_bytes()  # into the page cache
                read, read_cpu, load, load_cpu = measure(family, options, path, arguments.runs)
                times = f"{1000 * read:>6.0f} ms{1000 * load:>6.0f} ms"
                ratios = f"{load / read:>7.2f}{load_cpu / read_cpu:>13.2f}"
                print(f"{name:<14}{suffix:<13}{path.stat().st_size / 1e6:>5.0f}{times}{ratios}")


if __name__ == "__main__":
    main()
