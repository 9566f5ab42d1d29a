"""Parts of the trainer: metrics against scikit-learn, guards, files, curves, processes, trackers, sweeps."""

import dataclasses
import json
import socket
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from avex._core.errors import ConfigError, TrainingDivergedError, UnknownNameError
from avex._core.optional import available
from avex.configs import RunConfig
from avex.configs.sweep import SweepConfig

pytest.importorskip("lightning", reason="needs the extra train", exc_type=ImportError)

from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.training.checkpoint import AtomicCheckpointIO, find_checkpoint, monitored
from avex.training.curves import collect, page
from avex.training.data import TrainingData, load_training_data
from avex.training.metrics import compute_metrics
from avex.training.objectives import LossOutput
from avex.training.objectives.losses import ClassificationLoss
from avex.training.preflight import check_run, find_problems
from avex.training.processes import find_processes
from avex.training.safety import LossGuard, check_same_weights, seed_step
from avex.training.scores import ScoreTable
from avex.training.sweep import sweep
from avex.training.trackers import FileLogger, check_tracker, read_metrics
from avex.training.validation import Validation


def config(**changes):
    base = {
        "model_spec": {"name": "efficientnet"},
        "training_params": {"train_epochs": 4, "lr": 0.1, "batch_size": 2},
        "dataset_config": {"train_datasets": [{"dataset_name": "manifest", "data_root": "a.csv"}]},
        "output_dir": "runs",
        "loss_function": "cross_entropy",
        "device": "cpu",
        "logging": "none",
    }
    return RunConfig(**{**base, **changes})


def measured(names, logits, truth, **options):
    table = ScoreTable(**options)
    for part in np.array_split(np.arange(len(logits)), 3):
        if len(part):
            table.add(np.asarray(logits)[part], np.asarray(truth)[part])
    return compute_metrics(names, table)


@pytest.mark.parametrize("block", [1, 130, 10_000])
def test_metrics_are_those_of_scikit_learn(block):
    """However many classes are read at a time."""
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    logits, truth = rng.standard_normal((60, 4)).astype(np.float32), rng.integers(0, 4, 60)
    found = logits.argmax(1)
    names = ["accuracy", "balanced_accuracy", "multiclass_f1", "roc_auc", "map"]
    values = measured(names, logits, truth, block_values=block)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert values["accuracy"] == pytest.approx(sk.accuracy_score(truth, found))
    assert values["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, found))
    assert values["multiclass_f1"] == pytest.approx(sk.f1_score(truth, found, average="macro"))
    assert values["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr"))
    rows = np.eye(4)[truth]
    assert values["map"] == pytest.approx(sk.average_precision_score(rows, probabilities, average="macro"))
    several = (rng.random((60, 4)) < 0.3).astype(int)
    value = measured(["mAP"], logits, several, block_values=block)["mAP"]
    assert value == pytest.approx(sk.average_precision_score(several, logits, average="macro"))
    two = measured(["binary_f1"], logits[:, :2], truth % 2)["binary_f1"]
    assert two == pytest.approx(sk.f1_score(truth % 2, logits[:, :2].argmax(1)))


def test_metrics_refuse_what_they_cannot_say():
    with pytest.raises(UnknownNameError, match="Did you mean 'accuracy'"):
        measured(["acuracy"], [[0.0, 1.0]], [0])
    with pytest.raises(ConfigError, match="one label per clip"):
        measured(["accuracy"], [[0.0, 1.0]], [[1, 1]])


def test_logits_of_a_validation_are_not_kept_in_memory():
    """2000 clips of 2000 classes are 16 MB of logits; memory must not grow by a quarter of that."""
    tracemalloc.start()
    table = ScoreTable(block_values=100_000)
    rng = np.random.default_rng(0)
    for _ in range(40):
        table.add(rng.standard_normal((50, 2000), dtype=np.float32), rng.integers(0, 2000, 50))
    compute_metrics(["accuracy", "roc_auc", "map"], table)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest < 8e6


@pytest.mark.parametrize("weighted", [False, True])
def test_validation_counts_each_clip_once(weighted):
    """Seven clips on two processes, of which the second repeats the first clip: as on one process."""
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(7, 3, generator=generator), torch.tensor([0, 1, 2, 0, 0, 1, 0])
    weights = torch.tensor([0.5, 1.0, 3.0]) if weighted else None
    loss = ClassificationLoss("cross_entropy", class_weights=weights)
    whole = float(loss(logits, truth))
    sums = []
    for rank in (0, 1):
        part = Validation(["accuracy"], loss, rank, 2)
        for index in ([rank, rank + 2], [rank + 4, (rank + 6) % 7]):
            rows = {"logits": logits[index], "targets": truth[index]}
            part.add(LossOutput(loss(logits[index], truth[index]), {}, rows), index)
        sums.append(part._sums["loss"])
    assert sum(total for total, _ in sums) / sum(weight for _, weight in sums) == pytest.approx(whole)
    one = Validation(["accuracy"], loss)
    one.add(LossOutput(loss(logits, truth), {}, {"logits": logits, "targets": truth}), range(7))
    values = one.compute()
    assert values["loss"] == pytest.approx(whole)
    assert values["accuracy"] == 2 / 7


def test_guard_names_the_clips():
    guard = LossGuard()
    guard.watch(torch.tensor(1.0), ["fine.wav"], 1)
    with pytest.raises(TrainingDivergedError, match=r"step 2 is nan.*'bad\.wav'"):
        guard.watch(torch.tensor(float("nan")), ["bad.wav"], 2)


def test_seed_of_a_step_depends_on_its_place_only():
    def draw(*place):
        seed_step(*place)
        return torch.rand(1).item(), np.random.rand()

    assert draw(1, 2, 3, 0) == draw(1, 2, 3, 0)
    assert (
        len({draw(1, 2, 3, 0), draw(1, 2, 4, 0), draw(1, 3, 3, 0), draw(1, 2, 3, 1), draw(2, 2, 3, 0)}) == 5
    )


def test_rewinding_removes_what_came_after(tmp_path):
    logger = FileLogger(tmp_path)
    for step in range(4):
        logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
    logger.log_metrics({"val/loss": 0.5}, 4)
    logger.log_metrics({"train/loss": 0.1}, 4)
    with logger.path.open("a") as file:
        file.write('{"step": 5, "train/lo')  # killed while it wrote
    logger.rewind(4)
    assert [row["step"] for row in read_metrics(logger.path)] == [0, 1, 2, 3, 4]
    assert read_metrics(logger.path)[-1] == {"step": 4, "val/loss": 0.5}
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step,train/loss,val/loss"


def test_curves_show_every_metric(tmp_path):
    charts = collect(
        [{"step": 0, "train/<b>": 1.0}, {"step": 1, "train/<b>": float("nan")}, {"step": 2, "val/<b>": 3.0}]
    )
    assert charts == {"<b>": {"train": [(0.0, 1.0)], "val": [(2.0, 3.0)]}}
    text = page(charts, "a & b")
    assert "a &amp; b" in text
    assert "<b>" not in text
    assert text.count("<polyline") == 2
    assert "http" not in text


def test_checkpoints_hold_no_code_and_are_found(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"state_dict": Payload()}, tmp_path / "step-000000001.ckpt")
    with pytest.raises(Exception, match="cannot be read"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "step-000000001.ckpt")
    AtomicCheckpointIO().save_checkpoint({"global_step": 2}, tmp_path / "checkpoints" / "step-000000002.ckpt")
    assert find_checkpoint(tmp_path).name == "step-000000002.ckpt"
    with pytest.raises(ConfigError, match="no checkpoint"):
        find_checkpoint(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (1, 1, 1, True)),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3"}, (2, 2, 4, False)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}, (4, 2, 8, True)),
    ],
)
def test_processes_of_torchrun_and_slurm(environment, expected):
    found = find_processes(config(), environment)
    assert (found.devices, found.num_nodes, found.world_size, found.first) == expected


def test_monitored_metric():
    assert monitored(config()) == "val/accuracy"
    assert monitored(config(checkpoints={"monitor": "loss"})) == "val/loss"
    assert monitored(config(label_type="self_supervised")) == "val/loss"


def test_a_tracker_that_does_not_answer_is_said_at_once():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"  # bound, but nobody listens
        with pytest.raises(ConfigError, match="No MLflow server answers"):
            check_tracker(config(logging="mlflow", logging_uri=address))
    check_tracker(config(logging="mlflow", logging_uri="sqlite:///mlflow.db"))


def sweep_config(folder: Path, **changes):
    base = config(output_dir=str(folder)).model_dump(mode="json", exclude_unset=True)
    space = {
        "training_params.lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "training_params.batch_size": {"type": "choice", "values": [2, 4]},
    }
    return SweepConfig(**{"run_config": base, "search_space": space, "trials": 6, **changes})


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    pytest.importorskip("optuna", exc_type=ImportError)
    tried = []

    def value(run):
        tried.append(run)
        if len(tried) == 4:
            raise KeyboardInterrupt
        return -abs(np.log10(run.training_params.lr) + 2)

    with pytest.raises(KeyboardInterrupt):
        sweep(sweep_config(tmp_path), value)
    result = sweep(sweep_config(tmp_path), value)
    finished = [run for i, run in enumerate(tried) if i != 3]
    assert result.finished == 6
    assert len({run.run_name for run in finished}) == 6
    best = max(finished, key=lambda run: -abs(np.log10(run.training_params.lr) + 2))
    assert result.settings["training_params.lr"] == pytest.approx(best.training_params.lr)
    assert result.settings["training_params.batch_size"] == best.training_params.batch_size
    assert json.loads((result.folder / "best.json").read_text())["value"] == pytest.approx(result.best)
    best_run = RunConfig.from_sources(result.folder / "best.yml")
    assert best_run.training_params == best.training_params
    assert best_run.output_dir == str(tmp_path)
    assert best_run.run_name is None
    assert dataclasses.asdict(sweep(sweep_config(tmp_path), value))["finished"] == 6
    assert len(tried) == 7
    other = {"training_params.lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}
    with pytest.raises(ConfigError, match="another search space"):
        sweep(sweep_config(tmp_path, search_space=other), value)
    for change in ({"metric": "val/loss"}, {"direction": "minimize"}):
        with pytest.raises(ConfigError, match="another metric or direction"):
            sweep(sweep_config(tmp_path, **change), value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("checkpoints", "changes", "judged_by"),
    [
        ({}, {}, ("val/accuracy", "max")),
        ({"monitor": "val/loss", "mode": "min"}, {"metric": "val/accuracy"}, ("val/accuracy", "max")),
        ({"monitor": "val/bits", "mode": "min"}, {}, ("val/bits", "min")),
        ({}, {"metric": "val/bits", "direction": "minimize"}, ("val/bits", "min")),
    ],
)
def test_trials_are_judged_in_the_direction_of_the_sweep(tmp_path, checkpoints, changes, judged_by):
    pytest.importorskip("optuna", exc_type=ImportError)
    base = config(output_dir=str(tmp_path), checkpoints=checkpoints).model_dump(
        mode="json", exclude_unset=True
    )
    tried = {}

    def value(run):
        tried[run.training_params.lr] = (run.checkpoints.monitor, run.checkpoints.mode)
        return run.training_params.lr

    result = sweep(sweep_config(tmp_path, run_config=base, trials=3, **changes), value)
    assert set(tried.values()) == {judged_by}
    assert result.best == (max(tried) if judged_by[1] == "max" else min(tried))


def test_a_template_is_not_trained():
    from avex.training.building import build_training_model

    spec = {"name": "speech/hubert.json"}
    with pytest.raises(ConfigError, match=r"'speech/hubert\.json' is a JSON template.*avex probe fit"):
        build_training_model(config(model_spec=spec), 2)


def test_a_check_without_data_still_looks_at_everything_else(tmp_path):
    changes = {
        "dataset_config": {
            "train_datasets": [{"dataset_name": "manifest", "data_root": str(tmp_path / "gone.csv")}]
        },
        "model_spec": {"name": "no_such_model"},
        "preprocessing": "old",
        "metrics": ["acuracy"],
    }
    params = {
        "train_epochs": 4,
        "lr": 0.1,
        "batch_size": 2,
        "optimizer": "adamw8bit",
        "scheduler_type": "step",
    }
    params |= {"amp": True, "amp_dtype": "fp16"}
    report = check_run(config(training_params=params, **changes))
    found = " ".join(report.problems)
    for expected in ("gone.csv", "no_such_model", "Did you mean 'accuracy'", "'fp16' needs a GPU"):
        assert expected in found
    if not available("bitsandbytes"):
        assert "pip install bitsandbytes" in found
    assert "does not use preprocessing" in " ".join(report.notes)
    assert "use scheduler.name" in " ".join(report.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Metric 'accuracy' is for one label per clip"),
        (
            {"metrics": ["map"], "checkpoints": {"monitor": "val/mapp"}},
            "It measures: val/loss, val/accuracy, val/map",
        ),
        ({"metrics": ["map"], "checkpoints": {"monitor": "clustering/ari"}}, "needs clustering_eval"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_first_step(tmp_path, changes, message):
    (tmp_path / "a.wav").touch()
    several, one = (
        Clip(tmp_path / "a.wav", labels=("frog", "newt")),
        Clip(tmp_path / "a.wav", labels=("frog",)),
    )
    data = TrainingData((several,), (one, several), (), LabelEncoder(("frog", "newt"), multi_label=True))
    run = config(multilabel=True, loss_function="bce", **changes)
    (problem,) = find_problems(run, data)
    assert message in problem
    good = config(multilabel=True, loss_function="bce", metrics=["map"], checkpoints={"monitor": "map"})
    assert find_problems(good, data) == []
    (problem,) = find_problems(good, dataclasses.replace(data, validation=()))
    assert "needs val_datasets" in problem
    clustered = {"metrics": ["map"], "clustering_eval": {"enabled": True}}
    (problem,) = find_problems(
        config(multilabel=True, loss_function="bce", **clustered), dataclasses.replace(data, validation=())
    )
    assert "clustering_eval has no clips" in problem


def test_weights_of_another_model_are_refused():
    stored = {"head": torch.zeros(3), "body": torch.zeros(2)}
    check_same_weights(stored, {name: value + 1 for name, value in stored.items()})
    with pytest.raises(ConfigError, match=r"'head' is \(3,\) in it, now absent"):
        check_same_weights(stored, {"body": torch.zeros(2)})


def test_several_datasets_are_one_list_of_clips_with_an_id_each(tmp_path):
    for name, column in (("a", "site"), ("b", "depth")):
        (tmp_path / f"{name}.csv").write_text(
            f"path,label,id,{column}\n{name}.wav,frog,same,1\n{name}2.wav,newt,,2\n"
        )
    data = [
        {"dataset_name": "manifest", "data_root": str(tmp_path / f"{n}.csv"), "split": "all"} for n in "ab"
    ]
    clips = load_training_data(config(dataset_config={"train_datasets": data})).train
    assert len({clip.id for clip in clips}) == 4
    assert clips[0].extra == {"site": "1", "depth": None}
    hard = {"train_datasets": data, "concatenate_method": "hard"}
    with pytest.raises(ConfigError, match="do not have the same columns"):
        load_training_data(config(dataset_config=hard))
    apart = {"train_datasets": data, "concatenate_train": False}
    with pytest.raises(ConfigError, match="concatenate_train is false"):
        load_training_data(config(dataset_config=apart))
