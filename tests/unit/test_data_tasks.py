"""Tasks: cards, folds and splits without leakage, one label map, checks of local copies, own benchmarks."""

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avex._core.errors import ConfigError, UnknownNameError
from avex.configs import EvaluateConfig, EvaluationSet
from avex.data import (
    benchmark_card,
    benchmark_names,
    clips_from_hf,
    find_benchmark,
    open_task,
    task_card,
    task_names,
    write_manifest,
)
from avex.data.building import Shares, build_benchmark, divide, group_by_name
from avex.data.cards import named_tasks
from avex.data.checking import check_task
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.data.importers import IMPORTERS
from avex.data.manifest import read_manifest
from avex.data.presence import is_present

REPO = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("AVEX_TEST_DATA", REPO.parent / "shared" / "audio"))
needs_shared = pytest.mark.skipif(
    not (SHARED / "animals11" / "manifest.csv").is_file(), reason="needs the recordings of AVEX_TEST_DATA"
)


def make_clips(folder, per_class=10, classes=("frog", "newt")):
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for label in classes:
        for i in range(per_class):
            path = folder / f"{label}_{i}.wav"
            soundfile.write(path, np.zeros(80, np.float32), 8000)
            clips.append(Clip(path, labels=(label,)))
    return clips


def write_rows(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(clips, **columns):
    return [
        {"path": clip.path.name, "label": clip.labels[0], **{k: v(i) for k, v in columns.items()}}
        for i, clip in enumerate(clips)
    ]


def manifest_set(path, **fields):
    part = {"dataset_name": "manifest", "data_root": str(path)}
    if "folds" in fields:
        return EvaluationSet(name="ponds", folds={**part, "split": "all"})
    return EvaluationSet(name="ponds", train=part, test={**part, "split": "test"}, **fields)


@pytest.mark.parametrize("name", task_names())
def test_every_card_says_all_that_a_user_needs(name):
    card = task_card(name)
    assert card.name == name
    assert card.layout.importer in IMPORTERS
    assert card.citation
    assert card.source
    assert f"avex datasets check {name}" in card.obtain
    assert card.evaluation_set().metrics[0] == card.main_metric
    parts = card.parts()
    splits = [(part.dataset_name, part.split) for part in parts.values()]
    assert len(set(splits)) == len(splits), "two parts are the same clips"
    if card.task == "detection":
        assert all(part.is_multi_label for part in parts.values())


def test_benchmarks_name_cards_and_all_cards_of_the_appendix_are_there():
    assert set(task_names()) >= {task for name in benchmark_names() for task in benchmark_card(name).tasks}
    assert len(benchmark_card("full").tasks) == 28
    assert len(benchmark_card("beans").tasks) == 11
    sizes = {
        "dog_classification": 10,
        "bird_classification": 264,
        "rfcx_detection": 24,
        "zebra_finch_bird_id": 50,
    }
    sizes |= {"birdset_ssw_detection": 81, "littleowl_id_across_year": 16, "vfpa_srkw_call_types": 27}
    assert {name: task_card(name).num_classes for name in sizes} == sizes
    with pytest.raises(UnknownNameError, match=r"Did you mean 'dog_classification'"):
        task_card("dogs_classification")
    with pytest.raises(UnknownNameError, match="Unknown benchmark 'bean'"):
        benchmark_card("bean")


def test_a_card_that_is_changed_stays_as_it_was():
    task_card("animals11").metrics.append("oops")
    assert "oops" not in task_card("animals11").metrics


def test_fixed_parts_share_one_label_map_and_hold_validation_out(tmp_path):
    clips = make_clips(tmp_path)
    rows = rows_of(clips, split=lambda i: "test" if i % 10 > 6 else "train")
    rows[-1]["label"] = "axolotl"  # in the test only
    task = open_task(manifest_set(write_rows(tmp_path / "clips.csv", rows)))
    assert task.encoder.classes == ("axolotl", "frog", "newt")
    assert not task.multi_label
    (only,) = task.rounds()
    assert only.name == "test"
    assert (len(only.train), len(only.validation), len(only.test)) == (10, 4, 6)
    assert Counter(clip.label for clip in only.train) == {"frog": 5, "newt": 5}
    assert {clip.id for clip in only.train + only.validation} == {clip.id for clip in task.train}
    (nothing,) = task.rounds(validation_share=0)
    assert (nothing.train, nothing.validation) == (task.train, ())


@pytest.mark.parametrize(
    ("train", "test", "default", "expected"),
    [
        (5.0, 5.0, None, (5.0, None, None)),
        (None, None, 4.0, (4.0, None, None)),
        (5.0, None, None, (None, 5.0, None)),
        (5.0, 2.0, 4.0, (None, 5.0, 2.0)),
        (None, 2.0, 4.0, (None, 4.0, 2.0)),
    ],
)
def test_every_part_is_heard_as_long_as_it_says(tmp_path, train, test, default, expected):
    rows = rows_of(make_clips(tmp_path), split=lambda i: "test" if i % 2 else "train")
    fields = manifest_set(write_rows(tmp_path / "clips.csv", rows)).model_dump(exclude_none=True)
    fields["train"]["audio_max_length_seconds"] = train
    fields["test"]["audio_max_length_seconds"] = test
    task = open_task(EvaluationSet(**fields, max_seconds=default))
    assert (task.max_seconds, task.train[0].end_s, task.test[0].end_s) == expected


def test_folds_each_are_the_test_once(tmp_path):
    clips = make_clips(tmp_path)
    path = write_rows(tmp_path / "clips.csv", rows_of(clips, fold=lambda i: i % 10 + 1))
    rounds = list(open_task(manifest_set(path, folds=True)).rounds())
    assert [item.name for item in rounds] == [f"fold {i}" for i in range(1, 11)]  # by number, not by letter
    assert sorted(clip.id for item in rounds for clip in item.test) == sorted(
        clip.path.name for clip in clips
    )
    for item in rounds:
        everything = [*item.train, *item.validation, *item.test]
        assert len(everything) == len({clip.id for clip in everything}) == 20


def test_folds_are_made_where_there_are_none(tmp_path):
    rows = rows_of(make_clips(tmp_path), group=lambda i: f"site {i // 2}")
    path = write_rows(tmp_path / "clips.csv", rows)
    task = open_task(manifest_set(path, folds=True), folds=5)
    assert Counter(clip.fold for clip in task.folds) == {str(i): 4 for i in range(1, 6)}
    by_group = {}
    for clip in task.folds:
        by_group.setdefault(clip.group, set()).add(clip.fold)
    assert all(len(folds) == 1 for folds in by_group.values())
    assert open_task(manifest_set(path, folds=True)).folds == task.folds
    rows[0]["fold"] = "1"
    for row in rows[1:]:
        row["fold"] = ""
    with pytest.raises(ConfigError, match="has no fold, but others have"):
        open_task(manifest_set(write_rows(path, rows), folds=True))


def test_leakage_is_an_error(tmp_path):
    clips = make_clips(tmp_path)
    rows = [
        {**row, "start_s": start, "end_s": start + 0.005, "split": split}
        for row, split, start in zip(
            rows_of(clips[:2]) * 2, ["train", "train", "test", "test"], [0, 0, 0.005, 0.005], strict=True
        )
    ]
    with pytest.raises(
        ConfigError, match=r"2 of 2 recordings are in two parts.*frog_0\.wav' \(train and test\)"
    ):
        open_task(manifest_set(write_rows(tmp_path / "clips.csv", rows)))
    rows = rows_of(clips, group=lambda i: f"bird {i % 5}", split=lambda i: "test" if i % 10 > 6 else "train")
    with pytest.raises(ConfigError, match=r"groups are in two parts.*'bird 2'"):
        open_task(manifest_set(write_rows(tmp_path / "clips.csv", rows)))
    rows = rows_of(clips, group=lambda i: f"bird {i % 10}", fold=lambda i: i % 3)
    with pytest.raises(ConfigError, match=r"'bird 0' \(fold 0 and fold 1\)"):
        open_task(manifest_set(write_rows(tmp_path / "clips.csv", rows), folds=True))


@pytest.mark.parametrize("test", ["test/clips.csv", "../here/train/clips.csv"])
def test_a_recording_under_two_paths_is_a_leak(tmp_path, monkeypatch, test):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = rows_of(make_clips(tmp_path / "here" / "wav", 2))
    for folder in ("train", "test"):
        Path(folder).mkdir()
        write_rows(Path(folder, "clips.csv"), [{**row, "path": f"../wav/{row['path']}"} for row in rows])
    part = {"dataset_name": "manifest", "split": "all"}
    train = {**part, "data_root": str(Path.cwd() / "train/clips.csv")}
    with pytest.raises(ConfigError, match=r"4 of 4 recordings are in two parts"):
        open_task(EvaluationSet(name="ponds", train=train, test={**part, "data_root": test}))


def test_missing_recordings_and_data_are_said_with_what_to_do(tmp_path):
    clips = make_clips(tmp_path)
    path = write_rows(tmp_path / "clips.csv", rows_of(clips, split=lambda i: "test" if i % 2 else "train"))
    clips[0].path.unlink()
    with pytest.raises(
        ConfigError, match=r"1 recordings of 'ponds' \(train\) are missing, the first is .*frog_0"
    ):
        open_task(manifest_set(path))
    assert len(open_task(manifest_set(path), check_files=False).clips) == 20
    with pytest.raises(ConfigError, match=r"(?s)Task 'esc50': .*To obtain the data: Download https://github"):
        open_task("esc50", tmp_path)
    with pytest.raises(UnknownNameError, match="Unknown task 'nothing'"):
        open_task(EvaluationSet(name="nothing"))


def test_parts_with_different_label_maps_are_an_error(tmp_path):
    clips = make_clips(tmp_path)
    path = write_rows(tmp_path / "clips.csv", rows_of(clips, split=lambda i: "test" if i % 2 else "train"))
    maps = [{"frog": 0, "newt": 1}, {"frog": 1, "newt": 0}]
    parts = [
        {
            "dataset_name": "manifest",
            "data_root": str(path),
            "split": split,
            "transformations": [{"type": "label_from_feature", "feature": "label", "label_map": label_map}],
        }
        for split, label_map in zip(("train", "test"), maps, strict=True)
    ]
    with pytest.raises(ConfigError, match="different label maps"):
        open_task(EvaluationSet(name="ponds", train=parts[0], test=parts[1]))
    parts[1]["transformations"] = parts[0]["transformations"]
    assert open_task(EvaluationSet(name="ponds", train=parts[0], test=parts[1])).encoder.classes == (
        "frog",
        "newt",
    )


def test_a_new_benchmark_is_a_task(tmp_path):
    make_clips(tmp_path / "frog", 6, ("frog",))
    make_clips(tmp_path / "newt", 9, ("newt",))
    built = build_benchmark(
        read_manifest(tmp_path), tmp_path / "out", "ponds", shares=Shares(folds=3), license="CC0"
    )
    assert built.classes == {"frog": 6, "newt": 9}
    assert built.counts == {"fold 1": 5, "fold 2": 5, "fold 3": 5}
    numbers = [str(i) for i in range(1, 12)]
    clips = [replace(c, fold=fold) for c, fold in zip(read_manifest(tmp_path), numbers, strict=False)]
    many = build_benchmark(clips, tmp_path / "many", "many")
    assert list(many.counts) == [f"fold {fold}" for fold in numbers]
    task = open_task(str(built.card))
    assert len(task.folds) == 15
    assert task.folds[0].path.resolve() == (tmp_path / "frog" / "frog_0.wav").resolve()
    assert find_benchmark(str(built.card)).benchmark_name == "ponds"
    assert check_task(task_card(built.card)).passed
    with pytest.raises(ConfigError, match="there already"):
        build_benchmark(read_manifest(tmp_path), tmp_path / "out", "ponds")
    again = build_benchmark(
        read_manifest(tmp_path), tmp_path / "out", "ponds", shares=Shares(folds=3), overwrite=True
    )
    assert again.manifest.read_text() == built.manifest.read_text()


def test_a_new_benchmark_with_fixed_parts_groups_and_several_labels(tmp_path):
    clips = make_clips(tmp_path, 20)
    grouped = group_by_name(clips, r"_(\d)")
    shares = Shares(folds=None, test=0.3, validation=0.2)
    built = build_benchmark(grouped, tmp_path, "ponds", shares=shares)
    task = open_task(str(built.card))
    sides = [{clip.group for clip in part} for part in (task.train, task.validation, task.test)]
    assert all(sides)
    assert len(set.union(*sides)) == sum(map(len, sides))
    several = [Clip(clip.path, labels=(*clip.labels, "pond"), extra={"note": ["a", "b"]}) for clip in clips]
    built = build_benchmark(several, tmp_path / "two", "several")
    assert built.task.task == "detection"
    assert open_task(str(built.card)).multi_label
    assert read_manifest(built.manifest)[0].extra == {"note": "a;b"}
    with pytest.raises(ConfigError, match="does not match"):
        group_by_name(clips, "^x")
    with pytest.raises(ConfigError, match="no regular expression"):
        group_by_name(clips, "(")


def test_given_splits_are_kept_and_checked():
    def clip(i, **columns):
        return Clip(Path(f"{i}.wav"), labels=("frog",), **columns)

    encoder = LabelEncoder(("frog",))
    given = [clip(0, split="train"), clip(1, split="test")]
    assert divide(given, encoder, Shares()) == given
    with pytest.raises(ConfigError, match="1 clips have no split, the first is '1.wav'"):
        divide([clip(0, split="train"), clip(1)], encoder, Shares())
    with pytest.raises(ConfigError, match="expected train and test"):
        divide([clip(0, split="train"), clip(1, split="train")], encoder, Shares())
    with pytest.raises(ConfigError, match="in two parts"):
        divide([clip(0, fold="1", group="a"), clip(1, fold="2", group="a")], encoder, Shares())
    with pytest.raises(ConfigError, match="fewer groups than the 5 parts"):
        divide([clip(0), clip(1)], encoder, Shares())


def test_columns_that_a_manifest_would_read_are_renamed(tmp_path):
    clips = [
        replace(clip, extra={"label": "call", "recording": "x", "start": 3, "site": "pond"})
        for clip in make_clips(tmp_path, 2)
    ]
    built = build_benchmark(clips, tmp_path / "out", "ponds", shares=Shares(folds=2))
    again = read_manifest(built.manifest)
    assert [clip.labels for clip in again] == [clip.labels for clip in clips]
    assert [clip.path.resolve() for clip in again] == [clip.path.resolve() for clip in clips]
    assert again[0].extra == {
        "source_label": "call", "source_recording": "x", "source_start": "3", "site": "pond"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("a;b", "c"), "'a;b' cannot be written to a manifest"),
        ((" a", "c"), "' a' cannot be written"),
        (("a", "a"), "All clips have the label 'a', so there is nothing to tell apart"),
    ],
)
def test_labels_that_a_benchmark_cannot_have(tmp_path, labels, message):
    clips = [replace(clip, labels=(labels[i % 2],)) for i, clip in enumerate(make_clips(tmp_path, 3))]
    with pytest.raises(ConfigError, match=message):
        build_benchmark(clips, tmp_path / "out", "ponds", shares=Shares(folds=2))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "small", "esc50"])
def test_names_that_a_task_cannot_have(name, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot name a task|already"):
        build_benchmark(make_clips(tmp_path), tmp_path, name)


def test_checks_find_what_differs_from_the_card(tmp_path):
    folder = tmp_path / "animals11"
    clips = make_clips(folder, 5, ("cat", "cow"))
    card = task_card("animals11")
    assert not is_present(card, tmp_path)
    assert "is missing in" in check_task(card, tmp_path).problems[0]
    write_rows(folder / "manifest.csv", rows_of(clips, fold=lambda i: i % 5 + 1))
    assert is_present(card, tmp_path)
    assert check_task(card, tmp_path).problems == (
        "There are 10 clips for folds, but the card says 55.",
        "The clips have 2 classes, but the card says 11.",
    )


def test_classes_that_are_asked_for_and_never_taught_are_said(tmp_path):
    folder = tmp_path / "pipit_id"
    clips = make_clips(folder, 2)
    for split, label in (("train_within_year", "frog"), ("test_within_year", "newt")):
        chosen = [clip for clip in clips if clip.labels == (label,)]
        rows = [{"path": clip.path.name, "individual_id": label} for clip in chosen]
        write_rows(folder / f"{split}.csv", rows)
    notes = check_task(task_card("pipit_id_within_year"), tmp_path).notes
    assert notes == ("1 classes of the test are not in the training clips: newt.",)
    rows = rows_of(make_clips(tmp_path / "f", 2), fold=lambda i: [1, 2, 2, 2][i])
    folds = manifest_set(write_rows(tmp_path / "f" / "clips.csv", rows), folds=True)
    assert check_task(folds).notes == ("1 classes are in one fold only, so no other clips teach them: newt.",)


def test_a_card_in_a_file_keeps_what_it_says(tmp_path):
    """Its classes, limit and version count, whichever way the file is named; other data of that name do not."""
    rows = rows_of(make_clips(tmp_path, 4), fold=lambda i: i % 2)
    write_rows(tmp_path / "manifest.csv", rows)
    (tmp_path / "ponds.yml").write_text(
        "{name: ponds, task: classification, version: '3', max_seconds: 2.5, classes: [newt, frog, toad],\n"
        " folds: {dataset_name: manifest, split: all, data_root: manifest.csv},\n"
        " layout: {folder: ponds, files: [manifest.csv]}, license: CC0, obtain: Ask.}\n"
    )
    (tmp_path / "suite.yml").write_text("{name: suite, tasks: [ponds.yml]}\n")
    (tmp_path / "sets.yml").write_text("{benchmark_name: sets, evaluation_sets: [ponds.yml, animals11]}\n")
    files = [str(tmp_path / f"{name}.yml") for name in ("ponds", "suite", "sets")]
    sets = [find_benchmark(file).evaluation_sets[0] for file in files]
    evaluation = tmp_path / "evaluate.yml"
    evaluation.write_text(
        "{experiments: [{run_name: a, model: birdnet, layers: x}], dataset_config: suite.yml, save_dir: out}\n"
    )
    sets += find_benchmark(EvaluateConfig.from_sources(evaluation).dataset_config).evaluation_sets
    for task in [open_task(files[0]), *map(open_task, sets)]:
        assert (task.name, task.version, task.max_seconds) == ("ponds", "3", 2.5)
        assert task.encoder.classes == ("newt", "frog", "toad")
    assert [type(task).__name__ for task in named_tasks(files[2])] == ["TaskCard", "TaskCard"]
    own = EvaluationSet(
        name="esc50",
        folds={"dataset_name": "manifest", "data_root": str(tmp_path / "manifest.csv"), "split": "all"},
    )
    opened = open_task(own)
    assert (opened.encoder.classes, opened.max_seconds) == (("frog", "newt"), None)
    changed = open_task(EvaluationSet(name=files[0], max_seconds=1.0, version="4"))
    assert (changed.max_seconds, changed.version) == (1.0, "4")


def test_checks_read_recordings(tmp_path):
    clips = make_clips(tmp_path, 3)
    whole = clips[0].path.read_bytes()
    clips[0].path.write_bytes(whole[:100])
    clips[1].path.write_bytes(b"")
    rows = [{"start_s": 0, **row} for row in rows_of(clips, fold=lambda i: i % 2)]
    rows[5]["start_s"] = 7
    folds = manifest_set(write_rows(tmp_path / "clips.csv", rows), folds=True)
    broken, late = check_task(folds).problems
    assert broken.startswith("2 recordings cannot be read: ")
    assert "frog_0.wav" in broken
    assert "was cut off" in broken
    assert "frog_1.wav' is empty" in broken
    assert late.startswith(
        "1 recordings are shorter than their clips say: 'newt_2.wav#7-' begins at 7 s, but"
    )
    with pytest.raises(ConfigError, match="2 recordings cannot be read"):
        build_benchmark(clips, tmp_path / "out", "ponds")
    assert not (tmp_path / "out").exists()


def test_the_way_to_beans_zero_leads_there(tmp_path):
    """The lines of Python in the card, with the table of the package `datasets` in place of the download."""
    rows = [
        {"audio": [0.1 * i] * 800, "output": label, "dataset_name": "call-type", "instruction_text": "Which?"}
        for i in range(6)
        for label in ("call", "song")
    ]
    clips = clips_from_hf(
        rows, label_column="output", audio_folder=tmp_path / "beans_zero/call-type", sample_rate=16000
    )
    write_manifest(clips, tmp_path / "beans_zero/call-type.csv")
    card = task_card("beans_zero_call_type")
    assert 'clips_from_hf(rows, label_column="output"' in card.obtain
    result = check_task(card, tmp_path)
    assert (result.problems, result.parts, result.num_classes) == ((), {"folds": 12}, 2)
    task = open_task(card, tmp_path)
    assert (task.encoder.classes, task.max_seconds) == (("call", "song"), 10)


@needs_shared
@pytest.mark.parametrize(
    ("name", "clips", "classes", "folds"),
    [("animals11", 55, 11, 5), ("birds10", 40, 10, 4), ("esc50_animals", 440, 11, 5)],
)
def test_the_small_suite_is_what_its_cards_say(name, clips, classes, folds):
    assert check_task(task_card(name), SHARED).problems == ()
    task = open_task(name, SHARED)
    assert (len(task.folds), task.encoder.num_classes, len(list(task.rounds()))) == (clips, classes, folds)
