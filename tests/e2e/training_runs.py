"""What the tests of training share: synthetic clips, a configuration of a tiny model, and processes."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
import yaml

from avex.cli import main
from avex.testing import tiny_card

RATE, CLASSES = 16000, ("low", "mid", "high")
SECONDS = 1200  # a busy machine is no failure


def write_clips(folder, per_class=6):
    """Tones of three pitches in noise; the last third of each class is for validation."""
    rng = np.random.default_rng(0)
    rows = []
    t = np.arange(RATE) / RATE
    for label, pitch in zip(CLASSES, (400, 1500, 5000), strict=True):
        for i in range(per_class):
            name = f"{label}{i}.wav"
            tone = np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * t)
            soundfile.write(folder / name, 0.3 * tone + 0.02 * rng.standard_normal(RATE), RATE)
            rows.append((name, label, "train" if i < per_class * 2 // 3 else "validation"))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "clips.csv"


def write_config(folder, **changes):
    """A run of a tiny EAT on those clips, in `folder/run.yml`."""
    table = write_clips(folder)
    spec = tiny_card("eat").model_spec.model_dump(mode="json", exclude_unset=True)
    data = {"dataset_name": "manifest", "data_root": str(table)}
    config = {
        "model_spec": {**spec, "device": "cpu", "pretrained": False},
        "training_params": {"train_epochs": 3, "lr": 0.003, "batch_size": 4, "log_steps": 1},
        "scheduler": {"name": "cosine", "warmup_steps": 2},
        "dataset_config": {
            "train_datasets": [{**data, "split": "train"}],
            "val_datasets": [{**data, "split": "validation"}],
        },
        "augmentations": [{"gain": {}}, {"time_shift": {}}],
        "checkpoints": {"every_n_steps": 2},
        "loss_function": "cross_entropy",
        "output_dir": str(folder / "runs"),
        "logging": "none",
        "device": "cpu",
        "num_workers": 0,
        **changes,
    }
    (folder / "run.yml").write_text(yaml.safe_dump(config))
    return folder / "run.yml"


def start(*arguments, processes=1, **options):
    """Start `avex` with arguments, under torchrun for several processes."""
    runner = ["-m", "avex"]
    if processes > 1:
        count = str(processes)
        runner = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count, "-m", "avex"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *runner, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(*arguments, **options):
    """The same, to its end: exit code and everything printed."""
    process = start(*arguments, start_new_session=True, **options)
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out + err


def run_here(*arguments):
    """The same in this process, where all is imported already; with one thread, as the others have."""
    said, threads = io.StringIO(), torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        mock.patch.dict(os.environ),
        mock.patch.multiple(sys, argv=["avex", *map(str, arguments)], path=list(sys.path)),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as end,
    ):
        main()
    torch.set_num_threads(threads)
    return end.value.code, said.getvalue()


def metrics(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
