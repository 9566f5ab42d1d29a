"""BEATs-base against the matrix products it consists of: seconds of audio per second, and the ratio.

python bench/bench_beats.py [--threads 2] [--batch 1 8] [--seconds 10] [--precision fp32 bf16] [--clock wall|cpu]
"""

from __future__ import annotations

import argparse

import torch
from gemm_bound import PlainBlocks, Product, encoder_products, interleaved, position_products

from avex.models.beats.model import Beats


def products(clips: int, tokens: int) -> list[Product]:
    return [
        Product(clips * tokens, 256, 512),
        Product(clips * tokens, 512, 768),
        *position_products(clips, tokens, 768, 128, 16),
        *encoder_products(clips, tokens, 768, 3072, 12, 12),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Beats(return_features_only=True).eval()
    plain = PlainBlocks(768, 3072, 12, 12).eval()
    for precision in args.precision:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        for clips in args.batch:
            report(model, plain, clips, args, dtype, precision)


@torch.inference_mode()
def report(
    model: Beats, plain: PlainBlocks, clips: int, args: argparse.Namespace, dtype: torch.dtype, label: str
) -> None:
    waveform = 0.1 * torch.randn(clips, round(args.seconds * 16000))
    tokens = model.config.num_tokens(model.frontend.num_frames(waveform.shape[1]))
    x = torch.randn(clips, tokens, 768)
    bound = [product.operation(dtype) for product in products(clips, tokens)]
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)

    def run_model() -> None:
        with autocast:
            model(waveform)

    def run_plain() -> None:
        with autocast:
            plain(x)

    def run_bound() -> None:
        for product in bound:
            product()

    full, blocks, gemm, front = interleaved(
        [run_model, run_plain, run_bound, lambda: model.frontend(waveform)], args.repeats, args.clock
    )
    audio = clips * args.seconds
    print(
        f"{label} batch {clips} x {args.seconds:g} s, {args.threads} threads: {audio / full:.1f} x real time, "
        f"{gemm / full:.3f} of its products alone ({audio / gemm:.1f} x), {blocks / full:.3f} of plain blocks "
        f"without positions ({audio / blocks:.1f} x), front end {front / full:.1%}"
    )


if __name__ == "__main__":
    main()
