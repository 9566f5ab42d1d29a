"""What the trainer costs: a step beside a bare PyTorch loop, and reading clips beside decoding them.

python bench/bench_training.py [--model efficientnet] [--batch 4] [--steps 20] [--device cpu] [--data MANIFEST]

Both loops train the same model on the same batches, kept in memory, with the same optimiser: after each step of the
trainer comes one of the bare loop. A step of the trainer lasts from the end of the last one to its own end, so
whatever Lightning and avex do between steps counts, but for reading clips and writing checkpoints. On the CPU the
time is that of the process, on one thread, which other programs hardly disturb; on a GPU it is the clock's. Without
--data, noise of 5 s is written to a temporary folder. Takes one to two minutes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import soundfile
import torch
from targets import target

from avex.audio import read
from avex.configs import RunConfig
from avex.data.sampling import EpochBatches, EpochOrder
from avex.training.building import build_run_objective, build_training_model
from avex.training.data import load_training_data
from avex.training.datamodule import TrainingDataModule
from avex.training.loader import ResumableLoader, TrainingDataset
from avex.training.module import TrainingModule
from avex.training.run import quiet_lightning
from avex.training.trackers import FileLogger

_WARM, _CLIPS, _ROUNDS = 3, 64, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = arguments.data or write_noise(Path(folder), _CLIPS)
        config = configure(arguments, table, folder)
        steps(config, arguments)
        loader(config)


def configure(arguments: argparse.Namespace, table: Path, folder: str) -> RunConfig:
    audio = {"sample_rate": 32000, "target_length_seconds": 5, "n_fft": 800, "hop_length": 160}
    return RunConfig(
        model_spec={"name": arguments.model, "pretrained": False, "device": "cpu", "audio_config": audio},
        training_params={"train_epochs": 1000, "lr": 1e-3, "batch_size": arguments.batch},
        dataset_config={
            "train_datasets": [{"dataset_name": "manifest", "data_root": str(table), "split": "all"}]
        },
        output_dir=folder,
        loss_function="cross_entropy",
        logging="none",
        num_workers=0,
    )


def write_noise(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for i in range(count):
        soundfile.write(folder / f"{i}.flac", 0.1 * rng.standard_normal(5 * 44100), 44100)
        lines.append(f"{i}.flac,class{i % 4}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


def parts(config: RunConfig):
    data = load_training_data(config)
    model = build_training_model(config, data.num_classes)
    return data, build_run_objective(config, data, model.train())


class InMemory(ResumableLoader):
    """Gives the batches of an epoch without reading them."""

    def __init__(self, source: ResumableLoader) -> None:
        super().__init__(source.dataset, source.batches)
        self.ready = list(source)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._next, self._given = 0, 0
        for batch in self.ready:
            self._given += 1
            yield batch


class Pairs(pl.Callback):
    """Times each step of the trainer, and after it one of the bare loop."""

    def __init__(self, bare: Callable[[dict[str, Any]], None], clock: Callable[[], float]) -> None:
        self.bare, self.clock = bare, clock
        self.trained: list[float] = []
        self.plain: list[float] = []
        self.last = 0.0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        now = self.clock()
        self.trained.append(now - self.last)
        self.bare(batch)
        self.last = self.clock()
        self.plain.append(self.last - now)


def steps(config: RunConfig, arguments: argparse.Namespace) -> None:
    data, objective = parts(config)
    plain = copy.deepcopy(objective).to(arguments.device)
    optimizer = torch.optim.AdamW(plain.parameter_groups(1e-3, 0.0))
    cuda = arguments.device.startswith("cuda")

    def clock() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() if cuda else time.process_time()

    def bare(batch: dict[str, Any]) -> None:
        optimizer.zero_grad()
        plain(batch).loss.backward()
        optimizer.step()

    datamodule = TrainingDataModule(config, data, objective.model)
    batches = InMemory(datamodule.train_dataloader())
    datamodule.train_dataloader = lambda: batches
    pairs = Pairs(bare, clock)
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=config.training_params.train_epochs,
            accelerator="gpu" if cuda else "cpu",
            devices=1,
            max_steps=arguments.steps + _WARM,
            callbacks=[pairs],
            logger=FileLogger(Path(config.output_dir)),
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        trainer.fit(TrainingModule(config, data, objective), datamodule)
    ours, theirs = (statistics.median(times[_WARM:]) for times in (pairs.trained, pairs.plain))
    ratio = statistics.median(a / b for a, b in zip(pairs.trained[_WARM:], pairs.plain[_WARM:], strict=True))
    over = 100 * (ratio - 1)
    print(f"{arguments.model}, batch {arguments.batch}, {arguments.device}, {arguments.steps} pairs of steps")
    print(f"bare loop    {1e3 * theirs:8.1f} ms a step")
    print(f"avex train   {1e3 * ours:8.1f} ms a step   {over:+.1f} %{target(over, most=5)}")


def loader(config: RunConfig) -> None:
    data, objective = parts(config)
    rate, count = objective.model.sample_rate, len(data.train)
    dataset = TrainingDataModule(config, data, objective.model)._dataset(data.train, "start")

    def source(workers: int) -> ResumableLoader:
        batches = EpochBatches(EpochOrder(count), config.training_params.batch_size)
        return ResumableLoader(TrainingDataset(dataset), batches, workers=workers)

    def decode() -> None:
        for clip in data.train:
            read(clip.path, start_s=0, end_s=5, sample_rate=rate)

    alone = source(0)
    own = [
        (_took(decode, time.process_time), _took(lambda: list(alone), time.process_time))
        for _ in range(_ROUNDS)
    ]
    share = statistics.median(a / b for a, b in own)
    print(f"decoding and resampling alone: {count / min(a for a, _ in own):.0f} clips per second of one CPU")
    print(f"loader without workers: {share:.2f} of that{target(share, least=0.9)}")
    pool = source(2)
    list(pool)  # workers start
    walls = [
        (_took(decode, time.perf_counter), _took(lambda: list(pool), time.perf_counter))
        for _ in range(_ROUNDS)
    ]
    gain = statistics.median(a / b for a, b in walls)
    print(f"loader with 2 workers: {count / min(b for _, b in walls):.0f} clips/s, {gain:.2f} of one thread")


def _took(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


if __name__ == "__main__":
    main()
