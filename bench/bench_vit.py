"""EAT, Bird-MAE and ATST-Frame against the matrix products they consist of: seconds of audio per second and ratio.

    python bench/bench_vit.py [eat] [birdmae_base] [atst_frame_small] ... [--threads 2] [--batch 1 8]
        [--precision fp32 bf16] [--clock wall|cpu]

The bound is every matrix product of the network with nothing in between, and its attention by torch's fused kernel.
On a shared machine take one thread and processor time; seconds then say little, ratios still do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext

import torch
from gemm_bound import interleaved
from torch import Tensor, nn

import avex
from avex.nn.transformer import Attention, PatchProjection

SIZES = {
    "eat": ("eat", {}),
    "eat_large": ("eat", {"model_id": "worstchan/EAT-large"}),
    "birdmae_base": ("birdmae", {"model_id": "Bird-MAE-Base"}),
    "birdmae_large": ("birdmae", {"model_id": "Bird-MAE-Large"}),
    "birdmae_huge": ("birdmae", {"model_id": "Bird-MAE-Huge"}),
    "atst_frame_small": ("atst_frame", {"model_id": "small"}),
    "atst_frame_base": ("atst_frame", {"model_id": "base"}),
}


def matrix_products(backbone: nn.Module, frames: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """A function that does the products of one forward pass and nothing else."""
    products: list[tuple[Tensor, Tensor]] = []
    attentions: list[list[Tensor]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, Attention):
            batch, tokens, dim = args[0].shape
            shape = (batch, module.num_heads, tokens, dim // module.num_heads)
            attentions.append([torch.randn(shape, dtype=dtype) for _ in range(3)])
        else:
            weight = module.weight.flatten(1).detach().to(dtype)
            rows = output.shape[0] * output.shape[1]
            products.append((torch.randn(rows, weight.shape[1], dtype=dtype), weight))

    watched = [m for m in backbone.modules() if isinstance(m, (nn.Linear, PatchProjection, Attention))]
    handles = [module.register_forward_hook(note) for module in watched]
    backbone(frames)
    for handle in handles:
        handle.remove()

    def run() -> None:
        for left, weight in products:
            torch.mm(left, weight.t())
        for query, key, value in attentions:
            nn.functional.scaled_dot_product_attention(query, key, value)

    return run


def measure(name: str, batch: int, precision: str, repeats: int, clock: str) -> str:
    family, options = SIZES[name]
    model = avex.build_model(family, device="cpu", return_features_only=True, **options).eval()
    window = model.window_seconds
    wave = 0.1 * torch.randn(batch, round(window * model.sample_rate))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    frames = model.frontend(wave)[0]
    bound = matrix_products(model.backbone, frames, dtype)

    def forward() -> Tensor:
        with torch.autocast("cpu", dtype) if precision == "bf16" else nullcontext():
            return model.embed(wave)

    whole, front, least = interleaved([forward, lambda: model.frontend(wave), bound], repeats, clock)
    return (
        f"{name:18s} {precision} batch {batch:2d}: {batch * window / whole:7.1f} s/s, {least / whole:.3f} of the "
        f"bound ({batch * window / least:.1f} s/s), front end {front / whole:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["eat", "birdmae_base", "atst_frame_small"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        for name in args.models:
            for precision in args.precision:
                for batch in args.batch:
                    print(measure(name, batch, precision, args.repeats, args.clock), flush=True)


if __name__ == "__main__":
    main()
