"""Whole evaluations with a tiny encoder: every mode, splits, resuming, and scikit-learn beside it."""

import importlib.util
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from avex._core.errors import AudioError, ConfigError
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.evaluation import EmbeddingCache, evaluate, plan_jobs, predicting, read_predictions
from avex.evaluation import runner as runner_module
from avex.evaluation.cache import CacheEntry
from avex.evaluation.encoder import ClipEncoder
from avex.evaluation.layer_weights import predict_weighted
from avex.evaluation.modes import online
from avex.evaluation.tasks import Task
from avex.metrics import clustering_scores
from avex.training.probes.fitting import fit_examples

_SPEC = importlib.util.spec_from_file_location(
    "evaluation_data", Path(__file__).with_name("evaluation_data.py")
)
data = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(data)

ALL = ["probe", "knn", "retrieval", "clustering", "fewshot"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return folder, data.write_clips(folder / "folds"), data.write_model(folder)


def by_mode(report):
    return {result.mode: result for result in report.results}


def encoder_of(job, pooling="mean"):
    card = job.source.card
    return ClipEncoder(job.source.load(), card.name, card.resampler, pooling, settings=job.source.settings)


def vectors(folder, job):
    encoder = encoder_of(job)
    entry = EmbeddingCache(folder / "embeddings").entry(encoder.plan, job.opened)
    return entry.vectors("last_layer")


def test_every_mode_gives_what_scikit_learn_gives(world, tmp_path):
    probe = {"probe_type": "linear", "target_layers": ["last_layer"], "extra_config": {"strength": 0.01}}
    experiments = [{"run_name": "tiny", "model": str(world[2]), "probe_config": probe}]
    settings = data.config(tmp_path, *world[1:], eval_modes=ALL, experiments=experiments, knn_neighbors=1)
    found = by_mode(evaluate(settings))
    assert set(found) == set(ALL)
    job = plan_jobs(settings)[0]
    task, x = job.opened, vectors(tmp_path / "out", job)
    y = task.targets().values
    right = {"probe": [], "knn": []}
    for r in task.rounds():
        scaler = StandardScaler().fit(x[r.train])
        model = LogisticRegression(C=0.01, max_iter=3000).fit(scaler.transform(x[r.train]), y[r.train])
        right["probe"] += list(model.predict(scaler.transform(x[r.test])) == y[r.test])
        near = KNeighborsClassifier(1, metric="cosine").fit(x[r.train], y[r.train])
        right["knn"] += list(near.predict(x[r.test]) == y[r.test])
    for mode, hits in right.items():
        assert found[mode].main[0] == pytest.approx(np.mean(hits)), mode
    assert found["retrieval"].scores["retrieval_precision_at_1"][0] == pytest.approx(np.mean(right["knn"]))
    assert list(found["fewshot"].scores) == ["fewshot_1_accuracy", "fewshot_2_accuracy"]
    assert -1 <= found["clustering"].main[0] <= 1
    assert sum(sum(row) for row in found["probe"].details["confusion"]["counts"]) == 24
    assert set(found["probe"].details["folds"]) == {"1", "2", "3"}
    assert np.mean(list(found["probe"].details["folds"].values())) == pytest.approx(found["probe"].main[0])


def test_predictions_are_of_probes_that_did_not_see_the_clip(world, tmp_path):
    settings = data.config(tmp_path, *world[1:])
    evaluate(settings)
    job = plan_jobs(settings)[0]
    saved = read_predictions(job.path)
    assert saved.ids == tuple(clip.id for clip in job.opened.clips)
    assert saved.rounds == job.opened.parts
    np.testing.assert_allclose(saved.probabilities.sum(1), 1, atol=1e-5)


def test_fixed_parts_test_the_test_part_only(world, tmp_path):
    manifest = data.write_clips(tmp_path / "split", split=True)
    report = evaluate(data.config(tmp_path, manifest, world[2], eval_modes=ALL))
    found = by_mode(report)
    assert found["probe"].clips == {"train": 12, "validation": 4, "test": 8}
    saved = read_predictions(report.jobs[0].path)
    assert len(saved.ids) == 8
    assert set(saved.rounds) == {"test"}
    assert found["retrieval"].details["mode"] == "test_vs_test"
    assert found["retrieval"].details["queries"] == 8
    job = report.jobs[0]
    x, y = (
        vectors(tmp_path / "out", job)[job.opened.tested()],
        job.opened.targets().values[job.opened.tested()],
    )
    alone = clustering_scores(x, y, seed=3, scaling="unit").values
    assert {name: score[0] for name, score in found["clustering"].scores.items()} == pytest.approx(alone)


def test_earlier_versions_searched_the_test_with_the_training_clips(world, tmp_path):
    manifest = data.write_clips(tmp_path / "split", split=True)
    fields = data.settings(tmp_path, manifest, world[2], eval_modes=["retrieval"], retrieval_k=[1])
    fields["dataset_config"]["evaluation_sets"][0]["retrieval_mode"] = "train_vs_test"
    report = evaluate(data.EvaluateConfig(**fields))
    task = report.jobs[0].opened
    x, y = vectors(tmp_path / "out", report.jobs[0]), task.targets().values
    near = KNeighborsClassifier(1, metric="cosine").fit(x[task.indices("test")], y[task.indices("test")])
    right = near.predict(x[task.indices("train")]) == y[task.indices("train")]
    assert report.results[0].scores["retrieval_precision_at_1"][0] == pytest.approx(right.mean())
    assert report.results[0].details["queries"] == 12


def test_intervals_are_of_groups(world, tmp_path):
    """Two clips of a site say less than two clips of two sites; the values are the same."""
    rows = world[1].read_text().splitlines()
    grouped = world[1].with_name("grouped.csv")
    sites = [f"{row[:3]}{row[-1]}" for row in rows[1:]]
    lines = [f"{row},{site}" for row, site in zip(rows[1:], sites, strict=True)]
    grouped.write_text("\n".join([f"{rows[0]},group", *lines]) + "\n")
    modes = ["knn", "retrieval", "clustering"]
    apart, together = (
        by_mode(evaluate(data.config(tmp_path / path.stem, path, world[2], eval_modes=modes)))
        for path in (world[1], grouped)
    )
    for mode in modes:
        one, other = apart[mode].main, together[mode].main
        assert one[0] == other[0]
        assert one[1:] != other[1:], mode


def test_the_same_again_changes_nothing_and_computes_nothing(world, tmp_path):
    settings = data.config(tmp_path, *world[1:], eval_modes=["probe", "knn"])
    first = evaluate(settings)
    before = {job.path: job.path.read_bytes() for job in first.jobs}
    again = evaluate(settings)
    assert (again.ran, again.computed) == (0, 0)
    assert {path: path.read_bytes() for path in before} == before
    assert [r.main for r in again.results] == [r.main for r in first.results]


def test_progress_is_told_unless_it_is_switched_off(world, tmp_path):
    told, silent = [], []
    evaluate(data.config(tmp_path / "a", *world[1:]), on_progress=told.append)
    evaluate(data.config(tmp_path / "b", *world[1:], disable_tqdm=True), on_progress=silent.append)
    assert told == ["tiny · tones · probe", "tones: 24 of 24 clips have embeddings"]
    assert silent == []


def test_a_part_of_the_clips_and_other_folds_take_what_is_there(world, tmp_path):
    fields = data.settings(tmp_path, *world[1:], eval_modes=["knn"])
    rows = world[1].read_text().splitlines()
    sets = fields["dataset_config"]["evaluation_sets"]
    for name, kept in {
        "three": [row for row in rows if not row.startswith("wren")],
        "moved": [rows[0], *(f"{row[:-1]}{'231'[int(row[-1]) - 1]}" for row in rows[1:])],
    }.items():
        path = world[1].with_name(f"{name}.csv")
        path.write_text("\n".join(kept) + "\n")
        folds = {"dataset_name": "manifest", "data_root": str(path), "split": "all"}
        sets.append({"name": name, "folds": folds})
    report = evaluate(data.EvaluateConfig(**fields))
    assert [(r.task, sum(r.clips.values())) for r in report.results] == [
        ("tones", 24),
        ("three", 18),
        ("moved", 24),
    ]
    assert report.computed == 24


def test_settings_of_the_network_are_part_of_what_embeddings_are(world, tmp_path):
    """Another normalisation with the same weights: not the embeddings of the first experiment."""
    card = data.write_model(tmp_path, "eat")
    experiments = [
        {"run_name": "own", "model": str(card), "layers": "last_layer"},
        {
            "run_name": "loud",
            "model": str(card),
            "layers": "last_layer",
            "model_spec": {"eat_norm_mean": 0.0},
        },
    ]
    report = evaluate(data.config(tmp_path, *world[1:], experiments=experiments, eval_modes=["retrieval"]))
    assert report.computed == 48
    own, loud = report.results
    assert own.model["weights"] == loud.model["weights"]
    assert own.scores != loud.scores


def test_experiments_share_embeddings(world, tmp_path):
    experiments = [
        {"run_name": "one", "model": str(world[2]), "layers": "last_layer"},
        {"run_name": "two", "model": str(world[2]), "layers": "layer_0,last_layer"},
    ]
    report = evaluate(
        data.config(tmp_path, *world[1:], experiments=experiments, eval_modes=["probe", "retrieval"])
    )
    assert report.computed == 24  # each clip once, with the layers of both
    two = next(r for r in report.results if r.experiment == "two" and r.mode == "probe")
    assert [point["layer"] for point in two.details["layers"]] == two.model["layers"]
    one = next(r for r in report.results if r.experiment == "one" and r.mode == "probe")
    assert two.details["layers"][-1]["value"] == one.main[0]


def test_weights_of_layers_are_learned(world, tmp_path):
    probe = {"target_layers": ["all"], "aggregation": "none", "online_training": False}
    experiments = [{"run_name": "mix", "model": str(world[2]), "probe_config": probe}]
    result = evaluate(data.config(tmp_path, *world[1:], experiments=experiments)).results[0]
    weights = list(result.details["layer_weights"].values())
    assert sum(weights) == pytest.approx(1)
    assert np.ptp(weights) > 1e-3
    assert result.main[0] > 0.5


@pytest.mark.parametrize("classes", ["ab", "abc"])
def test_a_layer_beside_itself_gives_the_linear_probe_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    names = tuple(classes[i % len(classes)] for i in range(90))
    clips = tuple(Clip(Path(f"{i}.wav"), labels=(name,)) for i, name in enumerate(names))
    parts = ("train",) * 60 + ("test",) * 30
    task = Task("two", clips, parts, LabelEncoder.fit(clips))
    y = task.targets().values
    x = (rng.normal(size=(90, 5)) + 1.5 * np.eye(5)[y]).astype(np.float32)
    found, weights = predict_weighted(task, np.stack([x, x], 1), seed=0)
    scaler = StandardScaler().fit(x[:60])
    model = LogisticRegression(C=found.strengths[0], tol=1e-8, max_iter=3000).fit(
        scaler.transform(x[:60]), y[:60]
    )
    np.testing.assert_allclose(found.probabilities, model.predict_proba(scaler.transform(x[60:])), atol=2e-3)
    assert weights == pytest.approx([0.5, 0.5])
    loud = np.stack([x, x], 1)
    loud[60:, 1] *= 1000  # of the test clips, which choose nothing
    other, same = predict_weighted(task, loud, seed=0)
    assert (other.strengths, same) == (found.strengths, weights)


@pytest.mark.parametrize("online", [False, True])
def test_sequence_probes_from_the_cache_and_through_the_model(world, tmp_path, online):
    probe = {
        "probe_type": "attention_pooling",
        "target_layers": ["last_layer"],
        "num_heads": 1,
        "online_training": online,
    }
    experiments = [{"run_name": "attention", "model": str(world[2]), "probe_config": probe}]
    result = evaluate(data.config(tmp_path, *world[1:], experiments=experiments)).results[0]
    assert result.model["pooling"] == "none"
    assert ("history" in result.details) == online
    assert 0 <= result.main[0] <= 1


def test_fine_tuning_learns_and_is_the_same_twice(world, tmp_path):
    params = {"train_epochs": 6, "lr": 5e-3, "batch_size": 8, "warmup_epochs": 1, "freeze_backbone_epochs": 1}
    manifest = data.write_clips(tmp_path / "split", split=True, noise=0.05)
    changes = {"eval_modes": ["finetune"], "training_params": params}
    first = evaluate(data.config(tmp_path / "a", manifest, world[2], **changes)).results[0]
    second = evaluate(data.config(tmp_path / "b", manifest, world[2], **changes)).results[0]
    assert first.scores == second.scores
    history = first.details["history"]["test"]
    assert [e["epoch"] for e in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert first.details["trained_backbone"]


@pytest.mark.parametrize(
    ("scores", "best"), [([0.1, 0.2, 0.1, 0.9, 0.9, 0.3], 3), ([math.nan] * 6, 5)], ids=["scores", "no score"]
)
def test_fine_tuning_goes_by_its_settings(world, tmp_path, monkeypatch, scores, best):
    """Frozen at first, with two rates; the state that did best on clips that are not learned is the one tested."""
    epochs, states, fits = [], [], []
    run_epoch, fit = online._Trainer._epoch, online._Trainer.fit

    def weights(trainer):
        return {name: value.clone() for name, value in trainer._probe.named_parameters()}

    def note_epoch(trainer, *args):
        before = weights(trainer)
        loss = run_epoch(trainer, *args)
        moved = {
            k.startswith("base_model.") for k, v in weights(trainer).items() if not torch.equal(before[k], v)
        }
        epochs.append((moved, trainer._probe.base_model.training))
        return loss

    def score(trainer):
        states.append(weights(trainer))
        return scores[(len(states) - 1) % 6]

    def note_fit(trainer):
        history = fit(trainer)
        fits.append((trainer, weights(trainer)))
        return history

    for name, function in {"_epoch": note_epoch, "_score": score, "fit": note_fit}.items():
        monkeypatch.setattr(online._Trainer, name, function)
    params = {"train_epochs": 6, "lr": 0.1, "batch_size": 8, "freeze_backbone_epochs": 2}
    params |= {"second_stage_lr": 0.04, "scheduler_type": "step", "warmup_epochs": 0}
    result = evaluate(data.config(tmp_path, *world[1:], eval_modes=["finetune"], training_params=params))
    assert epochs == 3 * ([({False}, False)] * 2 + [({False, True}, True)] * 4)
    rates = [epoch["learning_rate"] for epoch in result.results[0].details["history"]["1"]]
    assert rates == pytest.approx([0.05, 0.025, 0.04, 0.02, 0.01, 0.01])
    for number, (trainer, left) in enumerate(fits):
        assert not set(trainer._train) & set(trainer._validation)
        assert all(torch.equal(value, states[6 * number + best][name]) for name, value in left.items())


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_no_clip_is_learned_and_tested_or_chosen_by(world, tmp_path, monkeypatch, kind):
    seen = []

    def spy(recipe, train, validation=None, folds=None):
        seen.append((set(train.names), set() if validation is None else set(validation.names)))
        return fit_examples(recipe, train, validation, folds)

    monkeypatch.setattr(predicting, "fit_examples", spy)
    probe = {"probe_type": kind, "target_layers": ["last_layer"]}
    probe |= {"hidden_dims": [8]} if kind == "mlp" else {}
    experiment = {"run_name": "tiny", "model": str(world[2]), "probe_config": probe}
    job = evaluate(data.config(tmp_path, *world[1:], experiments=[experiment])).jobs[0]
    saved = read_predictions(job.path)
    for name, (train, validation) in zip(["1", "2", "3"], seen, strict=True):
        tested = {clip for clip, fold in zip(saved.ids, saved.rounds, strict=True) if fold == name}
        assert (len(tested), len(train), len(validation)) == ((8, 8, 8) if kind == "mlp" else (8, 16, 0))
        assert len(tested | train | validation) == 24


def test_the_seed_given_is_the_seed_used(world, tmp_path):
    draws = []
    for seed in (1, 2, 1):
        settings = data.config(tmp_path / str(len(draws)), *world[1:], eval_modes=["fewshot"], seed=seed)
        draws.append(evaluate(settings).results[0].details["shots"][0]["values"])
    assert draws[0] == draws[2] != draws[1]
    assert len(set(draws[0])) > 1


@pytest.mark.parametrize(
    ("change", "modes"),
    [
        ({"knn_neighbors": 3}, {"knn"}),
        ({"retrieval_k": [3]}, {"retrieval"}),
        ({"retrieval_max_queries": 5}, {"retrieval"}),
        ({"clustering_scaling": "none"}, {"clustering"}),
        ({"few_shot": {"shots": [1, 2], "seeds": 4}}, {"fewshot"}),
        ({"bootstrap_samples": 50}, {"probe", "finetune", "knn", "retrieval", "clustering"}),
        ({"training_params": {"train_epochs": 2, "lr": 2e-3, "batch_size": 8}}, {"probe", "finetune"}),
        ({"training_params": {"train_epochs": 2, "lr": 1e-3, "batch_size": 8, "log_steps": 7}}, set()),
        ({"seed": 4}, {*ALL, "finetune"}),
        ({"offline_embeddings": {"probe_storage_aggregation": "max"}}, {*ALL}),
        ({"probe": {"extra_config": {"strength": 0.1}}}, {*ALL, "finetune"}),
        ({"num_workers": 1, "disable_tqdm": True, "results_csv_path": "all.csv"}, set()),
    ],
)
def test_a_mode_is_done_anew_where_its_settings_changed_and_only_there(world, tmp_path, change, modes):
    def paths(probe=None, **changes):
        probe = {"target_layers": ["last_layer"], **(probe or {})}
        experiments = [{"run_name": "tiny", "model": str(world[2]), "probe_config": probe}]
        changes |= {"experiments": experiments, "eval_modes": [*ALL, "finetune"]}
        jobs = plan_jobs(data.config(tmp_path, *world[1:], **changes))
        return {job.mode: job.path for job in jobs}

    before, after = paths(), paths(**change)
    assert {mode for mode in before if before[mode] != after[mode]} == modes


def test_other_weights_are_another_result(world, tmp_path):
    other = data.write_model(world[0], seed=5)
    first = evaluate(data.config(tmp_path, *world[1:]))
    second = evaluate(data.config(tmp_path, world[1], other))
    assert first.jobs[0].path != second.jobs[0].path
    assert first.results[0].model["weights"] != second.results[0].model["weights"]
    assert second.ran == 1


def test_a_checkpoint_that_changed_under_its_name_is_another_result(world, tmp_path):
    model = data.write_model(tmp_path, seed=0)
    settings = data.config(tmp_path, world[1], model)
    before = plan_jobs(settings)[0].path
    (tmp_path / "tiny_beats_0.safetensors").write_bytes(
        (world[0] / "tiny_beats_0.safetensors").read_bytes() + b""
    )
    assert plan_jobs(settings)[0].path == before
    data.write_model(tmp_path / "other", seed=9)
    (tmp_path / "tiny_beats_0.safetensors").write_bytes(
        (tmp_path / "other/tiny_beats_9.safetensors").read_bytes()
    )
    assert plan_jobs(settings)[0].path != before


def test_results_go_by_the_content_of_recordings(world, tmp_path):
    folder = shutil.copytree(world[1].parent, tmp_path / "folds")
    first = evaluate(data.config(tmp_path, folder / world[1].name, world[2]))
    moved = folder.rename(tmp_path / "moved") / world[1].name
    settings = data.config(tmp_path, moved, world[2])
    assert evaluate(settings).ran == 0
    changed = min(moved.parent.glob("*.wav"))
    status, sound = changed.stat(), changed.read_bytes()
    changed.write_bytes(sound[:44] + sound[1044:] + sound[44:1044])  # of the same size and, below, time
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = evaluate(settings)
    assert (again.ran, again.computed) == (1, 1)
    assert again.results[0].task_digest != first.results[0].task_digest


def test_a_recording_that_changes_after_it_was_embedded_makes_no_result(world, tmp_path, monkeypatch):
    folder = shutil.copytree(world[1].parent, tmp_path / "folds")
    settings = data.config(tmp_path, folder / world[1].name, world[2])
    original = runner_module.run_mode

    def run_mode(mode, context):
        path = context.task.clips[0].path
        path.write_bytes(path.read_bytes()[:-2000])
        return original(mode, context)

    monkeypatch.setattr(runner_module, "run_mode", run_mode)
    with pytest.raises(AudioError, match="changed meanwhile"):
        evaluate(settings)
    assert not list(tmp_path.rglob("*--probe--*"))


def test_overwrite_says_what_becomes_of_results(world, tmp_path):
    settings = data.config(tmp_path, *world[1:])
    path = evaluate(settings).jobs[0].path
    with pytest.raises(ConfigError, match="1 of 1 results are there"):
        evaluate(settings.model_copy(update={"overwrite": "never"}))
    stamp = path.stat().st_mtime_ns
    assert evaluate(settings.model_copy(update={"overwrite": "always"})).ran == 1
    assert path.stat().st_mtime_ns > stamp


def test_modes_that_make_no_sense_are_left_out_with_a_reason(world, tmp_path):
    manifest = tmp_path / "several.csv"
    rows = world[1].read_text().replace("label,", "labels,").replace("frog_0.wav,frog", "frog_0.wav,frog;owl")
    manifest.write_text("\n".join([rows.splitlines()[0], *(f"folds/{row}" for row in rows.splitlines()[1:])]))
    (tmp_path / "folds").symlink_to(world[1].parent)
    fields = data.settings(tmp_path, manifest, world[2], eval_modes=["clustering", "knn", "probe"])
    wrong = plan_jobs(data.EvaluateConfig(**fields))[0]
    assert wrong.status == "blocked"
    assert "'accuracy' is not one of a multi-label task" in wrong.reason
    fields["dataset_config"]["evaluation_sets"][0]["metrics"] = ["mAP"]
    report = evaluate(data.EvaluateConfig(**fields))
    assert [(job.mode, job.status) for job in report.jobs] == [
        ("clustering", "skip"),
        ("knn", "run"),
        ("probe", "run"),
    ]
    assert "several" in report.jobs[0].reason
    assert report.results[1].main_metric == "map"
    assert "map_present" in report.results[1].scores


def test_missing_data_do_not_hide_the_other_tasks(world, tmp_path):
    settings = data.settings(tmp_path, *world[1:])
    nowhere = {"dataset_name": "manifest", "data_root": str(tmp_path / "nowhere.csv"), "split": "all"}
    settings["dataset_config"]["evaluation_sets"].insert(0, {"name": "gone", "folds": nowhere})
    report = evaluate(data.EvaluateConfig(**settings))
    assert [(job.task, job.status) for job in report.jobs] == [("gone", "blocked"), ("tones", "run")]
    assert "nowhere.csv" in report.blocked[0].reason
    assert len(report.results) == 1


def test_tables_hold_every_result_once(world, tmp_path):
    table = tmp_path / "tables" / "all.csv"
    settings = data.config(
        tmp_path, *world[1:], eval_modes=["probe", "retrieval"], results_csv_path=str(table)
    )
    for _ in range(2):
        report = evaluate(settings, config_file="tiny.yml")
    (row,) = [json.loads(line) for line in (tmp_path / "out/summary.jsonl").read_text().splitlines()]
    found = by_mode(report)
    assert row["test_accuracy"] == found["probe"].main[0]
    assert row["test_accuracy_low"] == found["probe"].main[1]
    assert row["retrieval_roc_auc"] == found["retrieval"].main[0]
    assert (row["dataset_name"], row["evaluation_dataset_name"], row["experiment_name"]) == (
        "ponds",
        "tones",
        "tiny",
    )
    assert row["training_batch_size"] == 8
    (shared,) = [json.loads(line) for line in table.with_suffix(".jsonl").read_text().splitlines()]
    assert shared["config_file"] == "tiny.yml"
    assert shared["save_dir"] == settings.save_dir
    simple = (tmp_path / "tables/all_simple.csv").read_text().splitlines()
    assert simple[0].startswith("model_name,date,dataset,test_accuracy")
    assert len(simple) == 2


def test_a_job_knows_when_the_model_itself_is_needed(world, tmp_path):
    job = plan_jobs(data.config(tmp_path, *world[1:]))[0]
    assert not job.online
    assert replace(job, mode="finetune").online


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"experiments": None}])
def test_a_device_that_is_not_there_is_an_error_and_not_the_cpu(world, tmp_path, changes):
    if "experiments" in changes:
        experiment = {"run_name": "tiny", "model": str(world[2]), "layers": "last_layer"}
        changes = {"experiments": [{**experiment, "model_spec": {"device": "cuda"}}]}
    with pytest.raises(ConfigError, match="Device 'cuda' was asked for, but torch finds none"):
        evaluate(data.config(tmp_path, *world[1:], **changes))


def test_more_than_the_memory_given_is_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr(CacheEntry, "nbytes", lambda self, layer: 5 * 10**9)
    limit = {"offline_embeddings": {"memory_limit_gb": 4}}
    with pytest.raises(ConfigError, match=r"take 5\.0 GB"):
        evaluate(data.config(tmp_path, *world[1:], **limit))


def poisoned(task):
    """The same task with the labels of its test clips moved on by one class."""
    clips = [
        replace(clip, labels=(task.classes[(task.classes.index(clip.labels[0]) + 1) % len(task.classes)],))
        if part == "test"
        else clip
        for clip, part in zip(task.clips, task.parts, strict=True)
    ]
    return replace(task, clips=tuple(clips))


@pytest.mark.parametrize("kind", ["linear", "mlp", "finetune"])
def test_labels_of_test_clips_choose_nothing(world, tmp_path, monkeypatch, kind):
    """Strength, epoch and weights are the same whatever the test labels are: so are the predictions."""
    manifest = data.write_clips(tmp_path / "split", split=True)
    probe = {"probe_type": "mlp" if kind == "mlp" else "linear", "target_layers": ["last_layer"]}
    probe |= {"hidden_dims": [8]} if kind == "mlp" else {}
    experiment = {"run_name": "tiny", "model": str(world[2]), "probe_config": probe}
    mode = "finetune" if kind == "finetune" else "probe"
    found = []
    for folder in ("clean", "poisoned"):
        fields = {"eval_modes": [mode], "experiments": [experiment], "save_dir": str(tmp_path / folder)}
        report = evaluate(data.config(tmp_path, manifest, world[2], **fields))
        details = report.results[0].details
        found.append(
            (read_predictions(report.jobs[0].path), details.get("strengths"), details.get("history"))
        )
        original = Task.of.__func__
        monkeypatch.setattr(
            Task, "of", classmethod(lambda cls, opened, of=original: poisoned(of(cls, opened)))
        )
    clean, dirty = found
    assert (clean[0].targets != dirty[0].targets).all()
    np.testing.assert_array_equal(clean[0].probabilities, dirty[0].probabilities)
    assert clean[1:] == dirty[1:]


def test_what_is_stored_is_pooled_as_said(world, tmp_path):
    offline = {"probe_storage_aggregation": "max"}
    settings = data.config(tmp_path, *world[1:], offline_embeddings=offline)
    report = evaluate(settings)
    assert report.results[0].model["pooling"] == "max"
    job = report.jobs[0]
    encoder = encoder_of(job, "max")
    stored = EmbeddingCache(tmp_path / "out/embeddings").entry(encoder.plan, job.opened)
    expected = encoder.encode(job.opened.clips[:3], ["last_layer"])["last_layer"]
    np.testing.assert_allclose(stored.vectors("last_layer")[:3], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"probe_type": "attention_pooling", "online_training": False}, "reads sequences"),
        ({"probe_type": "linear", "aggregation": "mean"}, "Give one of them only"),
    ],
)
def test_pooling_that_contradicts_the_probe_is_refused(world, tmp_path, probe, message):
    experiment = {
        "run_name": "tiny",
        "model": str(world[2]),
        "probe_config": {"target_layers": ["last_layer"], **probe},
    }
    fields = {"experiments": [experiment], "offline_embeddings": {"probe_storage_aggregation": "max"}}
    with pytest.raises(ConfigError, match=message):
        plan_jobs(data.config(tmp_path, *world[1:], **fields))


def test_mapped_sequences_give_the_same_and_are_not_counted(world, tmp_path):
    probe = {"probe_type": "attention_pooling", "target_layers": ["last_layer"], "online_training": False}
    experiments = [{"run_name": "tiny", "model": str(world[2]), "probe_config": probe}]
    found = []
    for streaming in (False, True):
        fields = {"experiments": experiments, "save_dir": str(tmp_path / str(streaming))}
        fields["offline_embeddings"] = {"use_streaming_embeddings": streaming}
        report = evaluate(data.config(tmp_path, *world[1:], **fields))
        found.append(read_predictions(report.jobs[0].path).probabilities)
    np.testing.assert_array_equal(*found)


def test_a_part_of_the_queries_searches_everything_and_the_result_says_so(world, tmp_path):
    settings = data.config(tmp_path, *world[1:], eval_modes=["retrieval"], retrieval_max_queries=9)
    result = evaluate(settings).results[0]
    assert (result.details["queries"], result.details["max_queries"]) == (9, 9)
    assert result.settings["retrieval_max_queries"] == 9


def test_classes_that_are_not_trained_or_not_tested_are_said(world, tmp_path):
    manifest = data.write_clips(tmp_path / "split", split=True)
    lines = manifest.read_text().splitlines()
    kept = [x for x in lines if not ("newt" in x and "test" in x) and not ("owl" in x and "test" not in x)]
    manifest.write_text("\n".join(kept) + "\n")
    result = evaluate(data.config(tmp_path, manifest, world[2])).results[0]
    assert result.details["classes_not_tested"] == ["newt"]
    assert result.details["classes_not_trained"] == {"test": ["owl"]}
