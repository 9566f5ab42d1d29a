"""`avex train`: to a model that loads; killed and resumed; checked before it starts; refused where it must be."""

import importlib.util
import json
import shutil
import signal
import sys
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


KILL = """
import os, signal
from pathlib import Path

import torch
from avex.training.trackers import FileLogger

signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts the tests may ignore it
write, save, saved = FileLogger.log_metrics, torch.save, []

def log_metrics(logger, metrics, step=None):
    write(logger, metrics, step)
    if len(logger.path.read_text().splitlines()) == LINES:
        os.kill(os.getpid(), signal.SIGKILL)

def save_half(content, path):
    save(content, path)
    saved.append(path)
    if len(saved) == CHECKPOINTS:
        os.truncate(path, Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

FileLogger.log_metrics, torch.save = log_metrics, save_half
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_no_success(work, tmp_path, number):
    """Ctrl-C, or the end of a job, after the fourth line of metrics."""
    plugin = tmp_path / "stop.py"
    plugin.write_text(
        KILL.replace("LINES", "4").replace("CHECKPOINTS", "0").replace("signal.SIGKILL", f"{int(number)}")
    )
    patches = ["-p", f"run_name=stopped{int(number)}", "-p", "training_params.train_epochs=30"]
    code, text = runs.run("train", "-c", work / "run.yml", *patches, "--plugin", plugin)
    assert code == 1, text
    assert "was stopped at step" in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "checkpoints"), [(1, 0), (4, 0), (7, 0), (0, 3)])
def test_killed_and_resumed_is_bit_equal(work, whole, tmp_path, lines, checkpoints):
    """SIGKILL after so many lines of metrics, or half way through a checkpoint; the moment is not left to chance.

    The losses are those of the run that nobody disturbed.
    """
    plugin = tmp_path / "kill.py"
    plugin.write_text(KILL.replace("LINES", str(lines)).replace("CHECKPOINTS", str(checkpoints)))
    folder = work / "runs" / f"killed{lines}-{checkpoints}"
    common = ["train", "-c", work / "run.yml", "-p", f"run_name={folder.name}"]
    code, text = runs.run(*common, "--plugin", plugin)
    assert code == -signal.SIGKILL, text
    assert bool(list((folder / "checkpoints").glob("step-*.ckpt"))) == (lines != 1)
    code, text = runs.run_here(*common, "--resume")
    assert code == 0, text
    assert runs.metrics(folder) == runs.metrics(whole)
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not [path.name for path in (folder / "checkpoints").iterdir() if path.suffix != ".ckpt"]


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
    code, text = runs.run_here("train", "-c", config, "--check", *patches)
    assert code == 1
    for expected in ("gone.wav", "mid1.wav", "'unheard'", "Did you mean 'accuracy'", "nowhere"):
        assert expected in text.replace("\n", " "), text
    assert not (tmp_path / "runs").exists()


def test_an_empty_split_is_an_error_before_the_first_step(tmp_path):
    config = runs.write_config(tmp_path)
    table = tmp_path / "clips.csv"
    table.write_text(table.read_text().replace("validation", "test"))
    code, text = runs.run_here("train", "-c", config)
    assert code == 2
    assert "no clips of the split 'validation'" in text


def test_a_loss_that_is_no_number_stops_with_the_clips(tmp_path):
    config = runs.write_config(tmp_path)
    code, text = runs.run_here(
        "train", "-c", config, "-p", "training_params.lr=1e30", "-p", "scheduler.warmup_steps=0"
    )
    assert code == 1
    assert "The loss of step" in text
    assert ".wav'" in text


def test_a_validation_clip_without_a_loss_is_named(tmp_path):
    config = runs.write_config(tmp_path)
    audio, rate = soundfile.read(tmp_path / "low5.wav")
    audio[7] = np.nan
    soundfile.write(tmp_path / "low5.wav", audio, rate, subtype="FLOAT")
    code, text = runs.run_here("train", "-c", config)
    assert code == 1
    assert "The loss of a validation after step 3 is nan" in text
    assert "'low5.wav'" in text


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_checkpoint_without_room_is_an_error_in_words(tmp_path):
    import resource

    config = runs.write_config(tmp_path)
    code, text = runs.run(
        *("train", "-c", config, "-p", "run_name=full"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)),
    )
    assert code == 1, text
    assert "could not be written" in text
    assert "Traceback" not in text
    assert not list((tmp_path / "runs" / "full" / "checkpoints").iterdir())


def test_a_second_start_does_not_overwrite(work, whole):
    before = (whole / "metrics.jsonl").read_bytes()
    code, text = runs.run_here("train", "-c", work / "run.yml", "-p", "run_name=whole")
    assert code == 2
    assert "--resume" in text
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_a_kill_before_the_first_checkpoint_leaves_no_trace(work, whole):
    """What was written before it is neither kept among the metrics nor exported as the best."""
    folder = work / "runs" / "early"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 0, "train/loss": 99.0}\n{"step": 1, "tra')
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"of another training")
    (folder / "checkpoints" / ".avex-1-2.tmp").touch()
    code, text = runs.run_here("train", "-c", work / "run.yml", "-p", "run_name=early", "--resume")
    assert code == 0, text
    assert runs.metrics(folder) == runs.metrics(whole)
    for checkpoint in (folder / "checkpoints").iterdir():
        checkpoint.unlink()
    code, text = runs.run_here("train", "-c", work / "run.yml", "-p", "run_name=early", "--resume")
    assert code == 2
    assert "Its checkpoints are gone" in text


def test_the_folder_of_a_run_can_be_moved(whole, tmp_path):
    moved = shutil.copytree(whole, tmp_path / "Frösche")
    model = avex.load_model(str(moved / "model.yml"), device="cpu")
    assert Path(model.load_report.source).parent == moved
    assert model.label_mapping["label_to_index"] == {"high": 0, "low": 1, "mid": 2}


def test_other_settings_hold_when_a_training_goes_on(work, whole):
    """Above all the learning rate, which one lowers when a loss is no number any more."""
    folder = work / "runs" / "slower"
    shutil.copytree(whole, folder)
    for name in ("best.ckpt", "step-000000009.ckpt"):
        (folder / "checkpoints" / name).unlink()
    patches = ["-p", "run_name=slower", "-p", "training_params.lr=0.0001", "-p", "scheduler.name=none"]
    patches += ["-p", "training_params.weight_decay=0.5"]
    code, text = runs.run_here("train", "-c", work / "run.yml", *patches, "--resume")
    assert code == 0, text
    rates = {row["step"]: row["train/lr"] for row in runs.metrics(folder) if "train/lr" in row}
    before = {row["step"]: row["train/lr"] for row in runs.metrics(whole) if "train/lr" in row}
    assert rates == {**before, 8: 0.0001}
    state = torch.load(folder / "checkpoints" / "step-000000009.ckpt", weights_only=True)
    assert max(g["weight_decay"] for g in state["optimizer_states"][0]["param_groups"]) == 0.5


def test_resuming_with_another_model_or_optimiser_is_refused(work, whole):
    common = ["train", "-c", work / "run.yml", "-p", f"resume_from_checkpoint={whole}", "-p"]
    code, text = runs.run_here(*common, "training_params.optimizer=adam")
    assert code == 2
    assert "another optimizer: adamw, now adam" in text


def test_resuming_with_other_data_is_refused(work, whole):
    checkpoint = whole / "checkpoints" / "step-000000008.ckpt"
    patches = ["-p", f"resume_from_checkpoint={checkpoint}", "-p", "seed=7"]
    before = (whole / "metrics.jsonl").read_bytes()
    code, text = runs.run_here("train", "-c", work / "run.yml", *patches)
    assert code == 2
    assert "another seed: 42, now 7" in text
    assert (whole / "metrics.jsonl").read_bytes() == before
