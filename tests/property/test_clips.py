"""What holds for all clips: exact crops, splits without leakage, windows as BEANS counts them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.audio import output_length
from avex.data import (
    Clip,
    ClipDataset,
    check_parts,
    group_numbers,
    hold_out,
    read_manifest,
    write_manifest,
)
from avex.data.windows import LabelledEvent, window_labels, window_starts, windows_from_events

RATE, FRAMES = 1000, 3000


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "ramp.wav"
    soundfile.write(path, np.arange(FRAMES, dtype=np.float32) / FRAMES, RATE, subtype="FLOAT")
    return path


@example(start=1, length=20, target=3, selection="center")  # both ends fall on halves of frames
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, FRAMES - 2),
    length=st.integers(1, FRAMES),
    target=st.one_of(st.none(), st.integers(1, 2 * FRAMES)),
    selection=st.sampled_from(["start", "center", "random"]),
)
def test_every_crop_is_a_stretch_of_the_recording(recording, start, length, target, selection):
    """Frames follow each other, lie inside the clip, and as many are heard as there are."""
    stop = min(FRAMES, start + length)
    clip = Clip(recording, start / RATE, stop / RATE)
    seconds = None if target is None else target / RATE
    item = ClipDataset([clip], RATE, target_seconds=seconds, window_selection=selection)[0]
    heard = item["raw_wav"][~item["padding_mask"]].numpy() * FRAMES
    wanted = stop - start if target is None else min(target, stop - start)
    assert len(heard) == wanted
    assert len(item["raw_wav"]) == (wanted if target is None else target)
    np.testing.assert_allclose(np.diff(heard), 1, atol=1e-3)
    assert round(float(heard[0])) >= start
    assert round(float(heard[-1])) <= stop - 1
    if selection == "start":
        assert round(float(heard[0])) == start


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, 2000), length=st.integers(100, 1000), rate=st.sampled_from([441, 500, 1600, 3200])
)
def test_resampled_crops_have_the_length_that_the_rates_say(recording, start, length, rate):
    item = ClipDataset([Clip(recording, start / RATE, (start + length) / RATE)], rate)[0]
    assert len(item["raw_wav"]) == output_length(length, RATE, rate)


clip_lists = st.lists(
    st.tuples(st.integers(0, 8), st.one_of(st.none(), st.integers(0, 5)), st.sampled_from("ab")),
    min_size=1,
    max_size=40,
).map(
    lambda rows: [
        Clip(
            Path(f"{recording}.wav"),
            i,
            i + 1,
            (label,),
            group=None if group is None else f"g{group}",
        )
        for i, (recording, group, label) in enumerate(rows)
    ]
)


@given(clips=clip_lists, share=st.floats(0.05, 0.95), seed=st.integers(0, 5))
def test_what_is_held_out_shares_no_recording_and_no_group(clips, share, seed):
    kept, aside = hold_out(clips, share, [clip.label for clip in clips], seed)
    assert sorted(kept + aside) == list(range(len(clips)))
    check_parts({"train": [clips[i] for i in kept], "validation": [clips[i] for i in aside]})
    assert hold_out(clips, share, [clip.label for clip in clips], seed) == (kept, aside)
    if len(set(group_numbers(clips).tolist())) == 1:
        assert not aside


@given(clips=clip_lists)
def test_clips_share_a_number_if_and_only_if_they_are_connected(clips):
    """Against the transitive closure of 'same recording or same group'."""
    n = len(clips)
    reach = np.eye(n, dtype=bool)
    for i in range(n):
        for j in range(n):
            same_group = clips[i].group is not None and clips[i].group == clips[j].group
            reach[i, j] |= clips[i].path == clips[j].path or same_group
    for k in range(n):
        reach |= np.outer(reach[:, k], reach[k])
    numbers = group_numbers(clips)
    np.testing.assert_array_equal(numbers[:, None] == numbers[None, :], reach)


@given(clips=clip_lists, cut=st.integers(0, 40))
def test_leakage_is_found_if_and_only_if_there_is_some(clips, cut):
    parts = {"train": clips[:cut], "test": clips[cut:]}
    recordings = [{clip.path for clip in part} for part in parts.values()]
    groups = [{clip.group for clip in part} - {None} for part in parts.values()]
    if recordings[0] & recordings[1] or groups[0] & groups[1]:
        with pytest.raises(ConfigError, match="in two parts"):
            check_parts(parts)
    else:
        check_parts(parts)


times = st.integers(0, 400).map(lambda value: value / 20)


def beans_rule(start, end, event_start, event_end):
    """The rule as its authors' code decides it, case by case."""
    if event_start <= start and end <= event_end:
        return True
    if start <= event_start <= end or start <= event_end <= end:
        shorter = min(end - start, event_end - event_start)
        return shorter > 0 and (min(end, event_end) - max(start, event_start)) / shorter > 0.2
    return False


@given(
    start=st.integers(0, 20),
    width=st.sampled_from([2, 4, 10]),
    event=st.tuples(times, times).filter(lambda e: e[0] < e[1]),
)
def test_windows_have_the_labels_that_beans_gives_them(start, width, event):
    """Bit by bit, also where the overlap is a fifth and binary fractions decide."""
    end = start + width
    found = window_labels([LabelledEvent("a", *event, "x")], start, end)
    assert bool(found) == beans_rule(start, end, *event)


ticks = st.integers(0, 64 * 20)


@settings(max_examples=60)
@given(
    events=st.lists(st.tuples(ticks, ticks).map(sorted), max_size=6),
    duration=st.integers(64 * 20, 64 * 25),
    width=st.integers(1, 64 * 6),
    hop=st.integers(8, 64 * 4),
    share=st.integers(0, 15),
)
def test_windows_have_every_event_that_fills_the_share(events, duration, width, hop, share):
    """By counting ticks of 1/64 s, of which all sums and products are exact."""
    rows = [LabelledEvent("a.wav", start / 64, end / 64, f"{i}") for i, (start, end) in enumerate(events)]
    clips = windows_from_events(
        rows, {"a.wav": duration / 64}, window_s=width / 64, hop_s=hop / 64, min_overlap=share / 16
    )
    expected = []
    for first in range(0, max(duration - width, 0) + 1, hop):
        window = range(first, first + width)
        labels = []
        for i, (start, end) in enumerate(events):
            common = len(range(max(start, window.start), min(end, window.stop)))
            shorter = min(end - start, width)
            if (start in window) if start == end else common * 16 > share * shorter:
                labels.append(f"{i}")
        expected.append((first / 64, tuple(labels)))
    assert [(clip.start_s, clip.labels) for clip in clips] == expected


@given(duration=st.integers(1, 2000), width=st.integers(1, 200), hop=st.integers(1, 200))
def test_windows_are_as_many_as_fit(duration, width, hop):
    """In tenths of seconds, which are no binary fractions."""
    starts = window_starts(duration / 10, width / 10, hop / 10)
    assert len(starts) == max(1, (duration - width) // hop + 1)
    np.testing.assert_allclose(starts, np.arange(len(starts)) * hop / 10)


@given(events=st.lists(st.tuples(times, times).filter(lambda e: e[0] < e[1]), max_size=8))
def test_every_window_of_every_recording_is_there(events):
    rows = [LabelledEvent("a.wav", start, end, f"{i}") for i, (start, end) in enumerate(events)]
    clips = windows_from_events(rows, {"a.wav": 20.0, "quiet.wav": 6.0}, window_s=2.0, min_overlap=0.0)
    assert [clip.start_s for clip in clips if clip.path.name == "a.wav"] == [2.0 * i for i in range(10)]
    assert [clip.labels for clip in clips if clip.path.name == "quiet.wav"] == [(), (), ()]
    for row in rows:
        holding = [c for c in clips if row.label in c.labels]
        assert holding == [
            c for c in clips if c.path.name == "a.wav" and c.start_s < row.end_s and c.end_s > row.start_s
        ]


def test_windows_get_the_split_fold_and_group_of_their_recording():
    extra = {"a.wav": {"fold": 0, "group": "", "site": "pond"}, "b.wav": {"fold": 1.0, "split": "test"}}
    a, b = windows_from_events([], {"a.wav": 2.0, "b.wav": 2.0}, window_s=2.0, extra=extra)
    assert (a.fold, a.group, a.split, dict(a.extra)) == ("0", None, None, {"site": "pond"})
    assert (b.fold, b.group, b.split, dict(b.extra)) == ("1", None, "test", {})


words = st.text(
    st.characters(codec="utf-8", exclude_characters=";|\0\r", exclude_categories=("Cs",)),
    min_size=1,
    max_size=8,
)
words = words.filter(lambda text: text == text.strip())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 1e4), st.lists(words, max_size=3, unique=True), words),
        max_size=6,
    ).filter(len)
)
def test_manifests_give_back_what_was_written(tmp_path, rows):
    clips = [
        Clip(
            tmp_path / f"{name}.wav",
            start,
            start + 1,
            tuple(labels),
            group=note,
            id=f"{i}",
            extra={"label": note},
        )
        for i, (name, start, labels, note) in enumerate(rows)
    ]
    clips = list({(clip.path, clip.start_s): clip for clip in clips}.values())
    again = read_manifest(write_manifest(clips, tmp_path / "sub" / "clips.csv"))
    for one, other in zip(clips, again, strict=True):
        assert other.path.resolve() == one.path.resolve()
        for name in ("start_s", "end_s", "labels", "group", "id"):
            assert getattr(other, name) == getattr(one, name)
        assert other.extra == {"source_label": one.extra["label"]}
