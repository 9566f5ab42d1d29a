"""Every encoder against the matrix products it consists of, bfloat16 against float32, and plain PyTorch.

    python bench/bench_encoders.py [beats eat ...] [--batch 1 8] [--precision fp32 bf16] [--threads 2]
                                   [--seconds 10] [--rounds 3] [--clock wall|cpu] [--torch-mm]

Whatever is compared takes turns in one run, and each line names its target (two processors with AVX512-BF16). On
a busy machine take `--threads 1 --clock cpu`: times then say little, ratios still do. Weights are random; the
bound is that of `avex bench`: the network's products and convolutions alone, each in the fastest way known. With
`--torch-mm` products of two matrices are those of `torch.mm` and `torch.nn.functional.linear`, without oneDNN's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from plain import PlainBlocks, eager_backbone
from targets import target

from avex.embedding.throughput import Throughput, bound, interleave, measure, plan_bench
from avex.models.base_model import ModelBase


@dataclass(frozen=True)
class Encoder:
    """A network to measure.

    Attributes:
        model: What `load_model` calls it.
        batches: Batch sizes.
        of_bound: Least part of the float32 bound.
        bf16_gain: Least speed in bfloat16, relative to float32.
    """

    model: str
    batches: tuple[int, ...]
    of_bound: float | None = None
    bf16_gain: float | None = None


ENCODERS = {
    "beats": Encoder("beats", (1, 8), 0.95, 3.0),
    "eat": Encoder("eat_base_pretrain", (4,), 0.95, 2.5),
    "hubert": Encoder("aves_base_bio", (4,), 0.95, 2.5),
    "birdmae": Encoder("birdmae_base", (8,), 0.95, 2.5),
    "atst_frame": Encoder("atst_frame_base", (4,), 0.95, 2.5),
    "efficientnet": Encoder("esp_aves2_effnetb0_all", (8,)),
    "resnet": Encoder("resnet18", (8,)),
    "clip": Encoder("clip", (8,)),
}
CONVOLUTIONAL = ("efficientnet", "resnet", "clip")
EAGER_GAIN, OF_PLAIN_BLOCKS = 1.3, 0.95


def report(name: str, encoder: Encoder, args: argparse.Namespace) -> None:
    """Print the lines of one encoder."""
    results = measure(
        plan_bench(encoder.model, weights="random"),
        precisions=args.precision,
        batch_sizes=args.batch or encoder.batches,
        seconds=args.seconds,
        threads=args.threads,
        rounds=args.rounds,
        clock=args.clock,
        device="cpu",
    )
    for result in results:
        print(speed_line(name, result, encoder), flush=True)
    for size in dict.fromkeys(result.batch_size for result in results):
        speeds = {r.precision: r.realtime_factor for r in results if r.batch_size == size}
        if {"fp32", "bf16"} <= speeds.keys():
            gain = speeds["bf16"] / speeds["fp32"]
            print(
                f"{name:13} bf16 batch {size}: {gain:.2f} x fp32{target(gain, least=encoder.bf16_gain)}",
                flush=True,
            )


def speed_line(name: str, result: Throughput, encoder: Encoder) -> str:
    wanted = encoder.of_bound if result.precision == "fp32" else None
    front_end = "" if result.frontend_share is None else f", front end {result.frontend_share:.1%}"
    return (
        f"{name:13} {result.precision} batch {result.batch_size} x {result.window_s:g} s: "
        f"{result.realtime_factor:7.1f} x real time, {result.bound_ratio or 0:.3f} of its products alone "
        f"({result.bound_realtime_factor or 0:.1f} x){target(result.bound_ratio or 0, least=wanted)}{front_end}"
    )


def compare_plain(name: str, encoder: Encoder, args: argparse.Namespace) -> None:
    """Print how the network compares with plain PyTorch."""
    model, features = features_of(encoder, args)
    batch = len(features)
    if name in CONVOLUTIONAL:
        ours, plain = in_inference(model.backbone, features), eager_backbone(model, features)
        wanted, what = EAGER_GAIN if name == "efficientnet" else None, "the plain eager network"
    else:
        ours, plain = in_inference(model.backbone, features), plain_blocks(model, batch, features)
        wanted, what = OF_PLAIN_BLOCKS, "as many plain blocks without positions"
    times = interleave({"ours": [ours], "plain": [plain]}, rounds=args.rounds, clock=args.clock)
    gain = median(p / o for o, p in zip(times["ours"], times["plain"], strict=True))
    print(f"{name:13} fp32 batch {batch}: {gain:.2f} x the speed of {what}", end="", flush=True)
    if name not in CONVOLUTIONAL:
        print(target(gain, least=wanted), flush=True)
        return
    alone = median(times["ours"])
    there = plain_seconds(name, args)
    print(
        f", {there / alone:.2f} x in a process without avex{target(there / alone, least=wanted)}", flush=True
    )


def plain_seconds(name: str, args: argparse.Namespace) -> float:
    """Seconds of the plain eager network in a process of its own, whose memory is handled as torch does.

    `load_model` asks the C library to keep freed memory: plain networks in the same process gain from it as well.
    """
    # avex leaves the allocator alone if one of its settings is given; this one is the default.
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}
    command = [sys.executable, __file__, *sys.argv[1:], "--only-plain", name]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def plain_alone(name: str, args: argparse.Namespace) -> float:
    model, features = features_of(ENCODERS[name], args)
    plain = eager_backbone(model, features)
    return median(interleave({"plain": [plain]}, rounds=args.rounds, clock=args.clock)["plain"])


def features_of(encoder: Encoder, args: argparse.Namespace) -> tuple[ModelBase, torch.Tensor]:
    """A network, and what its front end makes of a batch of noise."""
    model = plan_bench(encoder.model, weights="random").load("cpu")
    samples = round((args.seconds or model.window_seconds or 10.0) * model.sample_rate)
    with torch.inference_mode():
        return model, model.frontend(0.1 * torch.randn(max(args.batch or encoder.batches), samples))[0]


def plain_blocks(model: ModelBase, batch: int, features: torch.Tensor) -> Callable[[], object]:
    config = model.config
    blocks = PlainBlocks(
        config.encoder_embed_dim,
        config.encoder_ffn_embed_dim,
        config.encoder_attention_heads,
        config.encoder_layers,
    ).eval()
    tokens = torch.randn(batch, config.num_tokens(features.shape[1]), config.encoder_embed_dim)
    return in_inference(blocks, tokens)


def in_inference(module: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            module(x)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "encoders", nargs="*", default=list(ENCODERS), metavar="ENCODER", help=", ".join(ENCODERS)
    )
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, help="length of a window; default: the model's, else 10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--torch-mm", action="store_true", help="a bound without oneDNN's linear maps")
    parser.add_argument("--only-plain", metavar="ENCODER", choices=CONVOLUTIONAL, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [name for name in args.encoders if name not in ENCODERS]:
        parser.error(f"unknown encoder '{unknown[0]}'; choose from {', '.join(ENCODERS)}")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.torch_mm:
        fastest = bound._matrix_ways
        bound._matrix_ways = lambda *sizes: {
            way: operation for way, operation in fastest(*sizes).items() if way != "fused linear"
        }
    if args.only_plain:
        print(plain_alone(args.only_plain, args))
        return
    for name in args.encoders:
        report(name, ENCODERS[name], args)
        if name in ("beats", *CONVOLUTIONAL):
            compare_plain(name, ENCODERS[name], args)


if __name__ == "__main__":
    main()
