"""`avex train`: to a model that loads; killed and resumed; checked before it starts; refused where it must be."""

import importlib.util
import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import avex
from avex.data import read_manifest
from avex.data.streaming import write_shards

_spec = importlib.util.spec_from_file_location("training_runs", Path(__file__).with_name("training_runs.py"))
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs the extra train")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    runs.write_config(folder)
    return folder


@pytest.fixture(scope="module")
def whole(work):
    code, text = runs.run("train", "-c", work / "run.yml", "-p", "run_name=whole")
    assert code == 0, text
    assert "Load it: avex.load_model(" in text
    return work / "runs" / "whole"


def test_a_run_leaves_everything_behind(whole):
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        *("config.yml", "environment.json", "label_map.json", "metrics.jsonl", "metrics.csv"),
        *("curves.html", "model.safetensors", "model.yml", "checkpoints"),
    }
    stored = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert stored == ["best.ckpt", "step-000000008.ckpt", "step-000000009.ckpt"]
    rows = runs.metrics(whole)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 9  # 12 clips in batches of 4, three times
    assert sum("val/accuracy" in row for row in rows) == 3
    rates = [row["train/lr"] for row in rows if "train/lr" in row]
    assert rates[:3] == pytest.approx([0.0003, 0.00165, 0.003])
    assert json.loads((whole / "label_map.json").read_text()) == {"high": 0, "low": 1, "mid": 2}
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert yaml.safe_load((whole / "config.yml").read_text())["training_params"]["lr"] == 0.003
    assert (whole / "curves.html").read_text().count("<svg") >= 3


def test_the_model_loads_with_its_labels(whole):
    model = avex.load_model(str(whole / "model.yml"), device="cpu")
    assert model.label_mapping["label_to_index"] == {"high": 0, "low": 1, "mid": 2}
    audio, _ = soundfile.read(whole.parents[1] / "low0.wav", dtype="float32")
    with torch.no_grad():
        assert model(torch.from_numpy(audio)[None]).shape == (1, 3)
    best = torch.load(whole / "checkpoints" / "best.ckpt", weights_only=True)
    weights = best["state_dict"]["objective.model.classifier.weight"]
    assert torch.equal(model.classifier.weight, weights)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [4, 7])
def test_killed_and_resumed_is_bit_equal(work, whole, lines):
    """SIGKILL within the first and the second epoch; the losses are those of the run that nobody disturbed."""
    folder = work / "runs" / f"killed{lines}"
    process = runs.start("train", "-c", work / "run.yml", "-p", f"run_name={folder.name}")
    deadline = time.monotonic() + 200
    while len(runs.metrics(folder)) < lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list((folder / "checkpoints").glob("step-*.ckpt"))
    code, text = runs.run("train", "-c", work / "run.yml", "-p", f"run_name={folder.name}", "--resume")
    assert code == 0, text
    assert runs.metrics(folder) == runs.metrics(whole)
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_resume_is_bit_equal_with_everything_that_is_random(tmp_path):
    """From shards, with workers, noise and other augmentations, balanced sampling and accumulated gradients."""
    table = runs.write_clips(tmp_path)
    write_shards(read_manifest(table), tmp_path / "shards", sample_rate=runs.RATE, clips_per_shard=5)
    (tmp_path / "noise").mkdir()
    noise = 0.1 * np.random.default_rng(1).standard_normal(3 * runs.RATE)
    soundfile.write(tmp_path / "noise" / "rain.wav", noise, runs.RATE)
    data = {"dataset_name": "shards", "data_root": str(tmp_path / "shards")}
    noise = {"noise_dirs": [str(tmp_path / "noise")], "snr_db_range": [0, 10], "augmentation_prob": 0.5}
    config = runs.write_config(
        tmp_path,
        dataset_config={
            "train_datasets": [{**data, "split": "train"}],
            "val_datasets": [{**data, "split": "validation"}],
        },
        augmentations=[
            *({"noise": noise}, {"reverb": {}}, {"filter": {}}, {"time_mask": {}}, {"frequency_mask": {}}),
            *({"time_shift": {}}, {"gain": {}}, {"mixup": {"alpha": 0.4, "augmentation_prob": 0.8}}),
        ],
        num_workers=2,
        training_params={
            **{"train_epochs": 2, "lr": 0.003, "batch_size": 2, "log_steps": 1},
            "accumulate_grad_batches": 2,
        },
        checkpoints={"every_n_steps": 1, "keep": 20},
    )
    common = ["train", "-c", config, "-p"]
    code, text = runs.run(*common, "run_name=whole")
    assert code == 0, text
    whole, stopped = tmp_path / "runs" / "whole", tmp_path / "runs" / "stopped"
    shutil.copytree(whole, stopped)  # as a kill after the first step of three of the first epoch leaves it
    for checkpoint in (stopped / "checkpoints").iterdir():
        if checkpoint.name != "step-000000001.ckpt":
            checkpoint.unlink()
    code, text = runs.run(*common, "run_name=stopped", "--resume")
    assert code == 0, text
    assert runs.metrics(stopped) == runs.metrics(whole)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_check_finds_every_problem_and_trains_nothing(tmp_path):
    config = runs.write_config(tmp_path)
    table = tmp_path / "clips.csv"
    table.write_text(table.read_text() + "gone.wav,low,train\nnew.wav,unheard,validation\n")
    (tmp_path / "new.wav").write_bytes((tmp_path / "low0.wav").read_bytes())
    (tmp_path / "mid1.wav").write_bytes(b"not audio")
    patches = ["-p", "metrics=[acuracy]", "-p", "augmentations=[{noise: {noise_dirs: [nowhere], "]
    patches[-1] += "snr_db_range: [0, 5], augmentation_prob: 1}}]"
    code, text = runs.run("train", "-c", config, "--check", *patches)
    assert code == 1
    for expected in ("gone.wav", "mid1.wav", "'unheard'", "Did you mean 'accuracy'", "nowhere"):
        assert expected in text.replace("\n", " "), text
    assert not (tmp_path / "runs").exists()


def test_an_empty_split_is_an_error_before_the_first_step(tmp_path):
    config = runs.write_config(tmp_path)
    table = tmp_path / "clips.csv"
    table.write_text(table.read_text().replace("validation", "test"))
    code, text = runs.run("train", "-c", config)
    assert code == 2
    assert "no clips of the split 'validation'" in text


def test_a_loss_that_is_no_number_stops_with_the_clips(tmp_path):
    config = runs.write_config(tmp_path)
    code, text = runs.run(
        "train", "-c", config, "-p", "training_params.lr=1e30", "-p", "scheduler.warmup_steps=0"
    )
    assert code == 1
    assert "The loss of step" in text
    assert ".wav'" in text


def test_a_second_start_does_not_overwrite(work, whole):
    before = (whole / "metrics.jsonl").read_bytes()
    code, text = runs.run("train", "-c", work / "run.yml", "-p", "run_name=whole")
    assert code == 2
    assert "--resume" in text
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_resuming_with_other_data_is_refused(work, whole):
    checkpoint = whole / "checkpoints" / "step-000000008.ckpt"
    patches = ["-p", f"resume_from_checkpoint={checkpoint}", "-p", "seed=7"]
    before = (whole / "metrics.jsonl").read_bytes()
    code, text = runs.run("train", "-c", work / "run.yml", *patches)
    assert code == 2
    assert "another seed: 42, now 7" in text
    assert (whole / "metrics.jsonl").read_bytes() == before
