"""AVES and BirdAVES against the matrix products they consist of: seconds of audio per second, and the ratio.

python bench/bench_hubert.py [--large] [--threads 2] [--batch 1 8] [--precision fp32 bf16] [--clock wall|cpu]
"""

from __future__ import annotations

import argparse

import torch
from gemm_bound import PlainBlocks, Product, encoder_products, interleaved, position_products

from avex.models.hubert.config import HubertConfig
from avex.models.hubert.model import Hubert

LARGE = {"encoder_embed_dim": 1024, "encoder_num_layers": 24, "encoder_ff_interm_features": 4096}


def products(config: HubertConfig, clips: int, samples: int) -> list[Product]:
    found, length, inputs = [], samples, 1
    for channels, kernel, stride in config.extractor_conv_layer_config:
        length = (length - kernel) // stride + 1
        # One clip at a time: all clips at once would leave the processor's cache.
        found.append(Product(length, inputs * kernel, channels, count=clips))
        inputs = channels
    dim, groups = config.encoder_embed_dim, config.encoder_pos_conv_groups
    return [
        *found,
        Product(clips * length, inputs, dim),
        *position_products(clips, length, dim, config.encoder_pos_conv_kernel, groups),
        *encoder_products(
            clips,
            length,
            dim,
            config.encoder_ff_interm_features,
            config.encoder_num_heads,
            config.encoder_num_layers,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Hubert(return_features_only=True, init_config=LARGE if args.large else None).eval()
    config = model.config
    plain = PlainBlocks(
        config.encoder_embed_dim,
        config.encoder_ff_interm_features,
        config.encoder_num_heads,
        config.encoder_num_layers,
    ).eval()
    for precision in args.precision:
        for clips in args.batch:
            report(model, plain, clips, args, precision)


@torch.inference_mode()
def report(model: Hubert, plain: PlainBlocks, clips: int, args: argparse.Namespace, precision: str) -> None:
    low = precision == "bf16"
    waveform = 0.1 * torch.randn(clips, round(args.seconds * 16000))
    x = torch.randn(clips, model.config.num_frames(waveform.shape[1]), model.config.encoder_embed_dim)
    dtype = torch.bfloat16 if low else torch.float32
    bound = [product.operation(dtype) for product in products(model.config, clips, waveform.shape[1])]
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=low)

    def run_model() -> None:
        with autocast:
            model(waveform)

    def run_convolutions() -> None:
        with autocast:
            model.backbone.feature_extractor(waveform)

    def run_plain() -> None:
        with autocast:
            plain(x)

    def run_bound() -> None:
        for product in bound:
            product()

    full, convolutions, blocks, gemm = interleaved(
        [run_model, run_convolutions, run_plain, run_bound], args.repeats, args.clock
    )
    audio = clips * args.seconds
    print(
        f"{precision} batch {clips} x {args.seconds:g} s, {args.threads} threads: {audio / full:.1f} x real time, "
        f"{gemm / full:.3f} of its products alone ({audio / gemm:.1f} x), plain blocks alone {blocks / full:.1%}, "
        f"convolutions {convolutions / full:.1%}"
    )


if __name__ == "__main__":
    main()
