"""Where the time of an evaluation goes, and what retrieval costs beside the product that it is made of.

python bench/bench_evaluation.py [--data FOLDER] [--rows 50000] [--dim 1024] [--queries 50000] [--threads 2]

First the small suite with BirdNET in every mode that needs no training of the network: seconds and share of
each stage, once with an empty cache and once with a full one. Then retrieval, all queries by default, and the
matrix product alone of the same blocks on the same processors: no exact search can be faster than that.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time

import numpy as np

from avex.configs.evaluation import EvaluateConfig
from avex.evaluation import evaluate
from avex.metrics import retrieval_scores
from avex.metrics.retrieval import _BLOCK_BYTES

MODES = ["probe", "knn", "retrieval", "clustering", "fewshot"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("AVEX_DATA") or os.environ.get("AVEX_TEST_DATA"))
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.data:
        suite(args.data)
    else:
        print("no --data and no AVEX_DATA: the small suite is left out")
    retrieval(args)


def suite(data: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for title, modes in (("empty cache", MODES[:1]), ("full cache", MODES)):
            config = EvaluateConfig(
                dataset_config="small",
                experiments=[{"run_name": "birdnet", "model": "birdnet", "layers": "last_layer"}],
                eval_modes=modes,
                save_dir=folder,
                data_root=data,
                overwrite="always",
            )
            report = evaluate(config)
            total = sum(report.seconds.values())
            shares = ", ".join(f"{name} {s:.1f} s ({s / total:.0%})" for name, s in report.seconds.items())
            print(f"small suite, {title}: {total:.1f} s: {shares}", flush=True)


def retrieval(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(50, size=args.rows)
    x = rng.standard_normal((args.rows, args.dim), np.float32)
    x += rng.standard_normal((50, args.dim), np.float32)[y] / 3
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    started, used = time.perf_counter(), time.process_time()
    retrieval_scores(x, y, max_queries=args.queries, threads=args.threads)
    wall, processor = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows = max(1, _BLOCK_BYTES // (4 * args.rows))
    out = np.empty((rows, args.rows), np.float32)
    started, used = time.perf_counter(), time.process_time()
    for start in range(0, args.queries, rows):
        block = x[start : min(start + rows, args.queries)]
        np.matmul(block, x.T, out=out[: len(block)])
    product, alone = time.perf_counter() - started, time.process_time() - used
    print(
        f"retrieval, {args.queries} queries in {args.rows} x {args.dim}: {wall:.1f} s, the product alone "
        f"{product:.1f} s ({wall / product:.2f} x; processor {processor:.0f} s and {alone:.0f} s; half of it if "
        f"each pair of clips were multiplied once), "
        f"peak memory {peak:.1f} GB ({before:.1f} GB before)"
    )


if __name__ == "__main__":
    main()
