"""What the trainer costs: a step beside a bare PyTorch loop, and reading clips beside decoding them.

python bench/bench_training.py [--model efficientnet] [--batch 8] [--steps 30] [--device cpu] [--data MANIFEST]

Both loops train the same model on the same batches with the same optimiser; the times are medians of single steps
after five that are not counted. Without --data, noise of 5 s is written to a temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import soundfile
import torch

from avex.audio import read
from avex.configs import RunConfig
from avex.data.sampling import EpochBatches, EpochOrder
from avex.training.building import build_run_objective, build_training_model
from avex.training.data import load_training_data
from avex.training.datamodule import TrainingDataModule
from avex.training.loader import ResumableLoader, TrainingDataset
from avex.training.module import TrainingModule
from avex.training.run import quiet_lightning

_WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = arguments.data or write_noise(Path(folder), 4 * arguments.batch)
        config = configure(arguments, table, folder)
        bare, trained = bare_steps(config, arguments), lightning_steps(config, arguments)
        print(f"{arguments.model}, batch {arguments.batch}, {arguments.device}")
        print(f"bare loop    {1e3 * bare:8.1f} ms a step")
        print(f"avex train   {1e3 * trained:8.1f} ms a step   {100 * (trained / bare - 1):+.1f} %")
        loader(config)


def configure(arguments: argparse.Namespace, table: Path, folder: str) -> RunConfig:
    audio = {"sample_rate": 32000, "target_length_seconds": 5, "n_fft": 800, "hop_length": 160}
    epochs = -(-(arguments.steps + _WARM) // 4)
    return RunConfig(
        model_spec={"name": arguments.model, "pretrained": False, "device": "cpu", "audio_config": audio},
        training_params={"train_epochs": epochs, "lr": 1e-3, "batch_size": arguments.batch},
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


def bare_steps(config: RunConfig, arguments: argparse.Namespace) -> float:
    data, objective = parts(config)
    objective.to(arguments.device)
    batches = list(TrainingDataModule(config, data, objective.model).train_dataloader())
    optimizer = torch.optim.AdamW(objective.parameter_groups(1e-3, 0.0))
    times = []
    for step in range(arguments.steps + _WARM):
        batch = {k: _to(v, arguments.device) for k, v in batches[step % len(batches)].items()}
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = objective(batch).loss
        loss.backward()
        optimizer.step()
        _wait(arguments.device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[_WARM:])


class Clock(pl.Callback):
    """Time from the start of a step to its end, once a batch is there."""

    def __init__(self, device: str) -> None:
        self.device, self.times, self.start = device, [], 0.0

    def on_train_batch_start(self, *args: object) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, *args: object) -> None:
        _wait(self.device)
        self.times.append(time.perf_counter() - self.start)


def lightning_steps(config: RunConfig, arguments: argparse.Namespace) -> float:
    data, objective = parts(config)
    clock = Clock(arguments.device)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="gpu" if arguments.device.startswith("cuda") else "cpu",
            devices=1,
            max_epochs=config.training_params.train_epochs,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        datamodule = TrainingDataModule(config, data, objective.model)
        trainer.fit(TrainingModule(config, data, objective), datamodule)
    return statistics.median(clock.times[_WARM:])


def loader(config: RunConfig) -> None:
    data, objective = parts(config)
    dataset = TrainingDataModule(config, data, objective.model)._dataset(data.train, "start")
    start = time.perf_counter()
    for clip in data.train:
        read(clip.path, start_s=0, end_s=5, sample_rate=objective.model.sample_rate)
    decode = time.perf_counter() - start
    for workers in (0, 2):
        batches = EpochBatches(EpochOrder(len(data.train)), config.training_params.batch_size)
        source = ResumableLoader(TrainingDataset(dataset), batches, workers=workers)
        list(source)  # workers start
        start = time.perf_counter()
        list(source)
        taken = time.perf_counter() - start
        rate = len(data.train) / taken
        print(
            f"reading, {workers} workers: {rate:.0f} clips/s, {decode / taken:.2f} of decoding alone in one thread"
        )


def _to(value: object, device: str) -> object:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
