"""Tasks: rounds of folds and of fixed parts, leaks, and what their digests depend on."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avex._core.errors import AudioError, ConfigError
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.evaluation.contents import FileContents
from avex.evaluation.tasks import Task


def make(tmp_path, parts, folds, groups=None):
    clips = []
    for i in range(len(parts)):
        path = tmp_path / f"{i}.wav"
        path.write_bytes(bytes(i + 1))
        clips.append(Clip(path, labels=("ab"[i % 2],), group=None if groups is None else groups[i]))
    return Task("demo", tuple(clips), tuple(parts), LabelEncoder.fit(clips), folds=folds)


def test_every_fold_is_the_test_once_and_the_others_choose(tmp_path):
    task = make(tmp_path, ["1", "2", "10", "1", "2", "10"], folds=True)
    rounds = task.rounds()
    assert [r.name for r in rounds] == ["1", "2", "10"]
    assert sorted(int(i) for r in rounds for i in r.test) == list(range(6))
    for r in rounds:
        assert not set(r.train) & set(r.test)
        assert len(r.train) == 4
        assert len(set(r.inner)) == 2
        for clip, fold in zip(r.train, r.inner, strict=True):
            assert task.part_names()[fold] == task.parts[clip]


def test_fixed_parts_are_one_round(tmp_path):
    task = make(tmp_path, ["train", "train", "test", "test", "validation"], folds=False)
    (only,) = task.rounds()
    assert (only.train.tolist(), only.validation.tolist(), only.test.tolist()) == ([0, 1], [4], [2, 3])
    assert task.tested().tolist() == [2, 3]
    assert task.targets().values.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(("parts", "folds"), [(["train", "test"], False), (["1", "2"], True)])
def test_a_group_in_two_parts_is_refused(tmp_path, parts, folds):
    with pytest.raises(ConfigError, match="learned"):
        make(tmp_path, parts, folds, groups=["pond", "pond"])


def test_parts_that_are_missing_are_said(tmp_path):
    with pytest.raises(ConfigError, match="no clips for test"):
        make(tmp_path, ["train", "train"], folds=False)
    with pytest.raises(ConfigError, match="one fold"):
        make(tmp_path, ["1", "1"], folds=True)


def test_the_digest_is_of_what_is_heard_and_how_it_is_labelled_and_divided(tmp_path):
    task = make(tmp_path, ["1", "2"], folds=True)
    contents = FileContents(tmp_path / "files.jsonl")
    known = task.digest(contents)
    relabelled = replace(task, clips=tuple(replace(c, labels=("a",)) for c in task.clips))
    cut = replace(task, clips=(replace(task.clips[0], end_s=1.0), task.clips[1]))
    others = [relabelled, cut, replace(task, max_seconds=3.0), replace(task, parts=("2", "1"))]
    assert len({known, *(other.digest(contents) for other in others)}) == 5


def test_the_digest_is_of_content_and_not_of_files(tmp_path):
    task = make(tmp_path, ["1", "2"], folds=True)
    contents = FileContents(tmp_path / "files.jsonl")
    known = task.digest(contents)
    moved = tuple(replace(c, path=c.path.rename(c.path.with_suffix(".moved"))) for c in task.clips)
    task = replace(task, clips=moved)
    os.utime(moved[0].path, ns=(1, 1))
    assert task.digest(contents) == known
    size = moved[0].path.stat().st_size
    moved[0].path.write_bytes(b"x" * size)
    os.utime(moved[0].path, ns=(1, 1))  # of the same size and time as before
    assert task.digest(contents) != known


def test_a_missing_recording_is_named(tmp_path):
    clips = (Clip(Path("nowhere.wav"), labels=("a",)), Clip(tmp_path / "b.wav", labels=("b",)))
    task = Task("demo", clips, ("1", "2"), LabelEncoder.fit(clips), folds=True)
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        task.digest(FileContents(tmp_path / "files.jsonl"))


def test_groups_join_what_shares_a_recording_or_a_group():
    clips = (
        Clip(Path("a.wav"), 0, 1, ("x",)),
        Clip(Path("a.wav"), 1, 2, ("y",), group="pond"),
        Clip(Path("b.wav"), labels=("x",), group="pond"),
        Clip(Path("c.wav"), labels=("y",)),
    )
    task = Task("demo", clips, ("1", "1", "1", "2"), LabelEncoder.fit(clips), folds=True)
    assert len(set(task.groups[:3])) == 1
    assert task.groups[3] != task.groups[0]
    assert np.array_equal(task.indices("2"), [3])
