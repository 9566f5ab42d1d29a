"""`avex bench`."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from avex._core.errors import ConfigError
from avex.cli import options as o

if TYPE_CHECKING:
    from avex.embedding.throughput.plans import Weights

PRECISION_NAMES = ("fp32", "bf16", "fp16", "auto", "float32", "bfloat16", "float16")
_MORE: dict[str, Callable[[str], object]] = {
    "--precision": PRECISION_NAMES.__contains__,
    "--batch-size": re.compile(r"\d+").fullmatch,
}


class Clock(str, Enum):
    """What is measured."""

    wall = "wall"
    cpu = "cpu"


class BenchCommand(TyperCommand):
    """Understands several values after one `--precision` or `--batch-size`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, then parse."""
        rewritten: list[str] = []
        remaining = list(args)
        while remaining:
            argument = remaining.pop(0)
            rewritten.append(argument)
            if argument == "--":
                rewritten += remaining
                break
            if argument in _MORE and remaining:
                rewritten.append(remaining.pop(0))
                while remaining and _MORE[argument](remaining[0]):
                    rewritten += [argument, remaining.pop(0)]
        return super().parse_args(ctx, rewritten)


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Model names, aliases, families or card files.", show_default=False
        ),
    ],
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            metavar="NAME...",
            help="One or more of fp32, bf16, fp16, auto; default: fp32.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size", metavar="N...", min=1, help="Windows per pass; default: 1 8.", show_default=False
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Length of a window; default: the model's, else 10.")
    ] = None,
    device: o.Device = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads of torch.", rich_help_panel=o.RUNNING),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Sessions that run at once; default: for birdnet one per thread, else one.",
            rich_help_panel=o.RUNNING,
        ),
    ] = None,
    backend: o.Backend = None,
    compiled: o.Compile = False,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Measurements of each; the median counts.")
    ] = 5,
    clock: Annotated[
        Clock, typer.Option("--clock", help="Elapsed time, or time of the processor (with --threads 1).")
    ] = Clock.wall,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights, even if the checkpoint is here.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch checkpoints that are not on this machine.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures here.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List the products that the bound consists of.")
    ] = False,
) -> None:
    """Measure how many seconds of audio a model embeds per second, and how near that is to the machine's limit.

    The bound is what the network's matrix products and convolutions alone take, on this machine and in the same
    run. Nothing is downloaded by default: without its checkpoint a model gets random weights, which are as fast.

    Examples:

      avex bench esp_aves2_sl_beats_all

      avex bench beats eat aves --precision fp32 bf16 --batch-size 1 8 --json speed.json

      avex bench birdnet --backend litert
    """
    if random and download:
        raise ConfigError("--random and --download contradict each other. Leave out one of them.")
    o.import_plugins(plugin)
    o.trust_models(models, trust)
    from avex.cli.bench_report import BenchReport
    from avex.embedding.throughput import measure, plan_bench

    weights: Weights = "random" if random else "download" if download else "cached"
    # All of them first: a wrong name should not cost the time of the others.
    plans = [plan_bench(model, weights=weights, backend=backend) for model in models]
    report = BenchReport(json_file, verbose)
    for plan in plans:
        with report.waiting(plan.card.name) as tell:
            results = measure(
                plan,
                precisions=precision or ["fp32"],
                batch_sizes=batch_size or [1, 8],
                device=device,
                seconds=seconds,
                threads=threads,
                workers=workers,
                rounds=rounds,
                compile=compiled,
                clock=clock.value,
                on_step=tell,
            )
        report.add(results)
