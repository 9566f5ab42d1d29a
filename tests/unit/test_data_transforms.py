"""Transformations of clips, against counts by hand and published rules."""

from collections import Counter
from pathlib import Path

import pytest

from avex._core.errors import ConfigError
from avex.configs.transforms import TRANSFORM_CONFIGS, TransformConfig
from avex.data import apply_transforms, register_transform
from avex.data.clips import Clip
from avex.data.concatenation import concatenate
from avex.data.transforms.registry import TRANSFORMS, TransformResult


def clips_of(*species, **columns):
    return [Clip(Path(f"{i}.wav"), extra={"species": name, **columns}) for i, name in enumerate(species)]


def run(clips, **step):
    return apply_transforms(clips, [step])


def names(result):
    return [clip.path.stem for clip in result.clips]


def counts(result, column="species"):
    return Counter(clip.extra[column] for clip in result.clips)


def test_label_from_feature_numbers_labels_and_leaves_empty_ones_out(caplog):
    result = run(clips_of("frog", "", "ant", None, "frog"), type="label_from_feature", feature="species")
    assert [clip.labels for clip in result.clips] == [("frog",), ("ant",), ("frog",)]
    assert result.metadata["label_from_feature"] == {
        "label_feature": "species",
        "label_map": {"ant": 0, "frog": 1},
        "num_classes": 2,
    }
    assert "2 clips have no 'species'" in caplog.text


def test_label_from_feature_keeps_a_given_map_with_numbers_as_labels():
    step = {"type": "label_from_feature", "feature": "species", "label_map": {111: 1, 210: 0}}
    result = apply_transforms(clips_of(111, 210), [step])
    assert result.metadata["label_from_feature"]["label_map"] == {"111": 1, "210": 0}
    with pytest.raises(ConfigError, match="no '215'"):
        apply_transforms(clips_of(111, 215), [step])


def test_labels_are_not_replaced_in_silence():
    clip = Clip(Path("a.wav"), labels=("x",), extra={"species": "frog"})
    with pytest.raises(ConfigError, match="override: true"):
        run([clip], type="label_from_feature", feature="species")
    assert run([clip], type="label_from_feature", feature="species", override=True).clips[0].labels == (
        "frog",
    )
    assert run([clip], type="label_from_feature", feature="label").clips[0].labels == ("x",)


def test_columns_are_not_replaced_in_silence():
    step = {"type": "label_from_feature", "feature": "species", "output_feature": "site"}
    (clip,) = clips_of("frog", site="pond")
    with pytest.raises(ConfigError, match="has a column 'site' already"):
        run([clip], **step)
    assert run([clip], **step, override=True).clips[0].extra["site"] == ["frog"]


def test_clips_without_a_value_are_a_kind_of_their_own():
    clips = clips_of("frog", "frog", "frog", "", None)
    balanced = run(clips, type="balanced_sample", property="species", strategy="min")
    assert sorted(clip.extra["species"] or "" for clip in balanced.clips) == ["", "", "frog", "frog"]
    assert balanced.metadata["balanced_sample"]["histogram_before"] == {"": 2, "frog": 3}
    assert names(run(clips, type="filter", property="species", values=["frog"], mode="exclude")) == ["3", "4"]
    assert run([], type="balanced_sample", property="species").clips == []


def test_labels_from_features_joins_columns_and_lists():
    clips = [
        Clip(Path("a.wav"), extra={"one": ["x", "y"], "two": "y;z"}),
        Clip(Path("b.wav"), extra={"one": [], "two": None}),
    ]
    step = {"type": "labels_from_features", "features": ["one", "two"]}
    result = run(clips, **step)
    assert [clip.labels for clip in result.clips] == [("x", "y", "z"), ()]
    assert result.metadata["labels_from_features"]["num_classes"] == 3
    assert len(run(clips, **step, allow_missing_labels=False).clips) == 1


def test_output_feature_writes_another_column():
    result = run(clips_of("frog"), type="label_from_feature", feature="species", output_feature="target")
    assert result.clips[0].extra["target"] == ["frog"]
    assert result.clips[0].labels == ()


def test_text_labels():
    clips = [Clip(Path("a.wav"), extra={"caption": "a frog", "note": "", "name": "Rana"})]
    step = {"type": "text_label_from_features", "features": ["caption", "note", "name"]}
    assert run(clips, **step).clips[0].extra["text_label"] == ["a frog", "Rana"]
    joined = run(clips, **step, listify=False, join_with=" | ")
    assert joined.clips[0].extra["text_label"] == "a frog | Rana"
    with pytest.raises(ConfigError, match="'text_label' already"):
        run(joined.clips, **step)


def test_fill_labels_from_answer():
    answers = ["wren, robin", "None", "", "crow"]
    clips = [
        Clip(Path(f"{i}.wav"), extra={"answer": text, "labels_as_list": []}) for i, text in enumerate(answers)
    ]
    clips.append(Clip(Path("4.wav"), extra={"answer": "owl", "labels_as_list": ["kept"]}))
    result = run(clips, type="fill_labels_from_answer")
    assert [clip.extra["labels_as_list"] for clip in result.clips] == [
        ["wren", "robin"],
        [],
        [],
        ["crow"],
        ["kept"],
    ]
    assert result.metadata["fill_labels_from_answer"] == {"filled": 2}


def test_filter_takes_values_of_cells_and_lists():
    clips = clips_of("bee", "ant", "bee", "spider")
    assert names(run(clips, type="filter", property="species", values=["bee", "spider"])) == ["0", "2", "3"]
    assert names(run(clips, type="filter", property="species", values=["bee"], mode="exclude")) == ["1", "3"]
    tagged = [Clip(Path("a.wav"), labels=("x", "y")), Clip(Path("b.wav"), labels=())]
    assert names(run(tagged, type="filter", property="labels", values=["y"])) == ["a"]
    assert names(run(tagged, type="filter", property="labels", values=["y"], mode="exclude")) == ["b"]


def test_deduplicate_first_and_last():
    clips = clips_of("bee", "ant", "bee")
    assert names(run(clips, type="deduplicate", subset=["species"])) == ["0", "1"]
    assert names(run(clips, type="deduplicate", subset=["species"], keep_first=False)) == ["1", "2"]
    assert names(run([*clips, clips[0]], type="deduplicate")) == ["0", "1", "2"]


def test_subsample_shares_per_value_with_other():
    clips = clips_of(*["bee"] * 10, *["ant"] * 10, *["fly"] * 10)
    step = {"type": "subsample", "property": "species", "ratios": {"bee": 0.5, "other": 0.1}}
    result = run(clips, **step)
    assert counts(result) == {"bee": 5, "ant": 1, "fly": 1}
    assert names(result) == sorted(names(result), key=int)
    assert names(run(clips, **step)) == names(result)
    assert names(run(clips, **step, seed=1)) != names(result)
    unnamed = run(clips, type="subsample", property="species", ratios={"bee": 0.0})
    assert counts(unnamed) == {"ant": 10, "fly": 10}


def test_rl_subsample():
    clips = clips_of(*["bee"] * 10)
    assert len(run(clips, type="rl_subsample", ratio=0.35).clips) == 3
    assert len(run(clips, type="rl_subsample", max_samples=4).clips) == 4
    assert len(run(clips, type="rl_subsample", ratio=0.9, max_samples=4).clips) == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"strategy": "min"}, {"a": 2, "b": 2, "c": 2}),
        ({"strategy": "max"}, {"a": 9, "b": 9, "c": 9}),
        ({"strategy": "median"}, {"a": 4, "b": 4, "c": 4}),
        ({"strategy": "mean"}, {"a": 5, "b": 5, "c": 5}),
        ({"strategy": "median_with_range", "range_fraction": 0.25}, {"a": 5, "b": 4, "c": 3}),
    ],
)
def test_balanced_sample(options, expected):
    clips = clips_of(*"a" * 9, *"b" * 4, *"c" * 2)
    result = run(clips, type="balanced_sample", property="species", **options)
    assert counts(result) == expected
    assert len({clip.id for clip in result.clips}) == len(result.clips)
    repeats = Counter(clip.path for clip in result.clips if clip.extra["species"] == "c")
    assert max(repeats.values()) - min(repeats.values()) <= 1


def test_sampling_keeps_the_order():
    result = run(clips_of(*"abacab"), type="balanced_sample", property="species", strategy="max")
    positions = [int(clip.path.stem) for clip in result.clips]
    assert positions == sorted(positions)


def test_uniform_and_long_tail():
    clips = clips_of(*"a" * 10, *"b" * 4, *"c")
    uniform = run(clips_of(*"a" * 10, *"b" * 4), type="uniform_sample", property="species", ratio=0.5)
    assert counts(uniform) == {"a": 3, "b": 3}  # 0.5 * 14 clips / 2 values
    assert counts(run(clips, type="uniform_sample", property="species")) == {"a": 1, "b": 1, "c": 1}
    tail = run(clips, type="long_tail_upsample", property="species", sufficient_threshold=6, max_repeats=3)
    assert counts(tail) == {"a": 10, "b": 6, "c": 3}  # the example of alp-data's documentation
    assert tail.metadata["long_tail_upsample"]["histogram_before"] == {"a": 10, "b": 4, "c": 1}


def test_select_columns():
    result = run(clips_of("bee", site="pond", more=1), type="select_columns", columns=["site", "path"])
    assert result.clips[0].extra == {"site": "pond"}


def split_sides(clips, **options):
    sides = [
        names(run(clips, type="train_val_split", subset=side, **options)) for side in ("train", "validation")
    ]
    assert sorted(sides[0] + sides[1]) == sorted(clip.path.stem for clip in clips)
    assert not set(sides[0]) & set(sides[1])
    return sides


def test_train_val_split_sizes_and_singletons():
    train, validation = split_sides(
        clips_of(*"a" * 10, *"b" * 5, "c"), train_size=0.8, stratify_column="species"
    )
    assert (len(train), len(validation)) == (8 + 4 + 1, 2 + 1)
    assert "15" in train  # the only c
    for size in (0.1, 0.7, 0.9):  # 10 * (1 - (1 - size)) in binary falls short of the whole number
        assert len(split_sides(clips_of(*"a" * 10), train_size=size)[0]) == round(10 * size)


def test_train_val_split_keeps_recordings_together():
    clips = [Clip(Path(f"{i // 4}.wav"), i % 4, i % 4 + 1) for i in range(40)]
    train = run(clips, type="train_val_split", subset="train").clips
    validation = run(clips, type="train_val_split", subset="val").clips
    assert {clip.path for clip in train}.isdisjoint({clip.path for clip in validation})
    assert (len(train), len(validation)) == (32, 8)


def test_steps_are_checked_by_name_and_field():
    with pytest.raises(ConfigError, match=r"Transformation 2: unknown transformation 'filtr'.*'filter'"):
        apply_transforms([], [{"type": "deduplicate"}, {"type": "filtr"}])
    with pytest.raises(
        ConfigError, match="Transformation 1: transformation 'filter': values: Field required; value: Extra"
    ):
        apply_transforms([], [{"type": "filter", "property": "x", "value": []}])
    with pytest.raises(ConfigError, match=r"no column 'specie'\. Did you mean 'species'"):
        run(clips_of("bee"), type="filter", property="specie", values=["bee"])
    with pytest.raises(ConfigError, match="several values of 'labels'"):
        run([Clip(Path("a.wav"), labels=("x", "y"))], type="balanced_sample", property="labels")


def test_every_config_has_a_function_and_the_other_way_round():
    own = {name for name, config in TRANSFORM_CONFIGS.items() if config.__module__.startswith("avex.configs")}
    assert own <= set(TRANSFORMS)
    for name in own:
        assert callable(TRANSFORMS[name])


def test_a_transformation_of_ones_own():
    class Every(TransformConfig):
        type: str = "every"
        step: int = 2

    register_transform(Every, lambda clips, config: TransformResult(list(clips[:: config.step])))
    try:
        assert names(run(clips_of(*"abcde"), type="every", step=3)) == ["0", "3"]
    finally:
        TRANSFORMS.unregister("every")
        del TRANSFORM_CONFIGS["every"]


def test_datasets_are_put_together_by_their_columns():
    first = [
        Clip(Path("a.wav"), extra={"site": "x", "n": 1}),
        Clip(Path("b.wav"), extra={"site": "y", "n": 2}),
    ]
    second = [Clip(Path("a.wav"), extra={"site": "z", "lat": 3})]
    parts = {"one": first, "two": second, "none": []}
    soft = concatenate(parts)
    assert [dict(clip.extra) for clip in soft] == [
        {"site": "x", "n": 1, "lat": None},
        {"site": "y", "n": 2, "lat": None},
        {"site": "z", "n": None, "lat": 3},
    ]
    assert [clip.id for clip in soft] == ["one/a.wav", "b.wav", "two/a.wav"]
    assert [dict(clip.extra) for clip in concatenate(parts, "overlap")] == [{"site": s} for s in "xyz"]
    with pytest.raises(ConfigError, match=r"'one', 'two' do not have the same columns: lat, n\."):
        concatenate(parts, "hard")
    assert concatenate({"one": first, "none": []}, "hard") == first
