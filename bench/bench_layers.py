"""What it costs to read all layers, against the forward pass alone: ratios, interleaved.

python bench/bench_layers.py [--families beats hubert eat_hf efficientnet] [--seconds 5] [--batch 2] [--threads 2]

Three ways of reading: `tapped`, all layers as they are; `pooled`, with their means side by side; `probe`, a linear
probe on the weighted sum of all layers. Full-size networks with random weights; the median of the ratios of pairs
that run one right after the other.

Networks that fold batch norms into convolutions for inference do so on all paths: the outputs of blocks are read
outside of what is folded. `pooled` and `probe` do more than read: their means cost time on networks that are fast.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from avex.configs import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.probes import build_probe_from_config
from avex.models.utils.factory import build_model

FAMILIES = ("beats", "hubert", "eat_hf", "atst_frame", "efficientnet", "resnet18")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'family':<14} {'layers':>6} {'forward ms':>10} {'tapped':>8} {'pooled':>8} {'probe':>8}")
    for family in args.families:
        model = build_model(family, device=args.device, return_features_only=True).eval()
        report(family, model, args)


@torch.inference_mode()
def report(family: str, model: ModelBase, args: argparse.Namespace) -> None:
    x = 0.1 * torch.randn(args.batch, round(args.seconds * model.sample_rate), device=args.device)
    config = ProbeConfig(target_layers=["all"], aggregation="none")
    probe = build_probe_from_config(config, 50, args.device, base_model=model).eval()
    ways: dict[str, Callable[[], Any]] = {
        "tapped": lambda: model.layer_features(x, ["all"]),
        "pooled": lambda: model.embed(x, ["all"]),
        "probe": lambda: probe(x),
    }
    for run in (lambda: model.forward_features(x), *ways.values()):
        run()
    base = [seconds(lambda: model.forward_features(x), args.device) for _ in range(5)]
    ratios = {name: ratio(lambda: model.forward_features(x), run, args) for name, run in ways.items()}
    layers = len(model.get_model_layers())
    shown = "".join(f" {100 * (value - 1):+7.1f}%" for value in ratios.values())
    print(f"{family:<14} {layers:>6} {1000 * min(base):>10.1f}{shown}", flush=True)


def ratio(plain: Callable[[], Any], other: Callable[[], Any], args: argparse.Namespace) -> float:
    """Median of the ratios of pairs, which runs first alternating."""
    ratios = []
    for i in range(args.pairs):
        if i % 2:
            a, b = seconds(plain, args.device), seconds(other, args.device)
        else:
            b, a = seconds(other, args.device), seconds(plain, args.device)
        ratios.append(b / a)
    return statistics.median(ratios)


def seconds(run: Callable[[], Any], device: str) -> float:
    # Processor time on the CPU: what others do on the machine does not count.
    cuda = torch.device(device).type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    run()
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    main()
