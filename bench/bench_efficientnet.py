"""EfficientNet and ResNet: seconds of audio per second, against the plain eager network and against bare GEMMs.

    python bench/bench_efficientnet.py [--model efficientnet|resnet18|resnet50] [--batch-size 8] [--seconds 10]
                                       [--threads 2] [--bf16] [--rounds 8]

All variants take turns in every round and the best round of each counts, so that a busy machine disturbs the
ratios little; with `--threads 1` processor time counts, which it disturbs least. The plain network is the same
modules as PyTorch runs them (convolution, batch norm, activation, channels first). The bound multiplies
matrices of the sizes of all ungrouped convolutions and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator

import torch
from gemm_bound import interleaved
from torch import Tensor, nn

import avex
from avex.configs import AudioConfig
from avex.nn import convolution


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Let every convolution take the plain path."""
    original = convolution.fold
    convolution.fold = lambda conv, norm, x: None
    try:
        yield
    finally:
        convolution.fold = original


def gemm_bound(backbone: nn.Module, image: Tensor) -> Callable[[], None]:
    """What multiplies matrices of the sizes of the network's ungrouped convolutions."""
    sizes: list[tuple[int, int, int]] = []

    def note(conv: nn.Conv2d, _inputs: object, output: Tensor) -> None:
        if conv.groups == 1:
            rows = output.numel() // output.shape[1]
            sizes.append((rows, conv.weight[0].numel(), conv.out_channels))

    handles = [m.register_forward_hook(note) for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    backbone(image)
    for handle in handles:
        handle.remove()
    # One scratch buffer for all, so that the operating system's handing out of memory is not measured.
    left = torch.randn(max(m * k for m, k, _ in sizes))
    right = torch.randn(max(k * n for _, k, n in sizes))
    out = torch.empty(max(m * n for m, _, n in sizes))

    def run() -> None:
        for m, k, n in sizes:
            torch.mm(left[: m * k].view(m, k), right[: k * n].view(k, n), out=out[: m * n].view(m, n))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    audio = AudioConfig(n_fft=800, hop_length=160, win_length=800)
    model = avex.load_model(args.model, audio_config=audio, device="cpu")
    eager = avex.load_model(args.model, audio_config=audio, device="cpu")
    for module in eager.modules():
        if isinstance(module, (nn.SiLU, nn.ReLU)):
            module.inplace = True
    waveform = torch.randn(args.batch_size, round(args.seconds * 16000)) * 0.1

    with torch.inference_mode():
        image = model.frontend(waveform)[0]
        colour = image.contiguous()

        def run_plain() -> None:
            with plain():
                eager.backbone.features(colour) if hasattr(eager.backbone, "features") else eager.backbone(
                    colour
                )

        variants: dict[str, Callable[[], object]] = {
            "whole model": lambda: model.forward_features(waveform),
            "front end": lambda: model.frontend(waveform),
            "network": lambda: model.backbone(image),
            "plain eager network": run_plain,
            "GEMM bound": gemm_bound(model.backbone, image),
        }
        if args.bf16:

            def run_bf16() -> None:
                with torch.autocast("cpu", torch.bfloat16):
                    model.forward_features(waveform)

            variants["whole model, bf16"] = run_bf16
        clock = "cpu" if args.threads == 1 else "wall"
        best = dict(zip(variants, interleaved(list(variants.values()), args.rounds, clock), strict=True))

    total = args.batch_size * args.seconds
    print(f"{args.model}, batch {args.batch_size} x {args.seconds:g} s, {args.threads} threads")
    for name, seconds in best.items():
        print(f"  {name:22} {seconds * 1e3:8.1f} ms   {total / seconds:8.0f} s of audio per s")
    print(f"  network / plain eager  {best['plain eager network'] / best['network']:8.2f} x as fast")
    print(f"  network / GEMM bound   {best['GEMM bound'] / best['network']:8.2f} of the bound")
    print(f"  front end              {best['front end'] / best['whole model']:8.1%} of the time")


if __name__ == "__main__":
    main()
