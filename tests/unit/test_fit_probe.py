"""Fitting probes: the same optimum as scikit-learn, splits without leaks, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import avex
from avex._core.errors import ConfigError, TrainingDivergedError, WeightsError
from avex._core.optional import available
from avex.data import LabelTable, Split
from avex.embedding.engines import EngineInfo, EngineOutput
from avex.embedding.stores import EmbeddingBatch, MemoryStore, RecordingKey, StoreHeader
from avex.models.probes import load_probe
from avex.training.probes import FitOptions, cross_validate_probe
from avex.training.probes.engine import ProbeEngine, trained_windows
from avex.training.probes.evaluate import evaluate_probe
from avex.training.probes.examples import Examples
from avex.training.probes.linear import fit_path
from avex.training.probes.loop import collate
from avex.training.probes.options import make_config
from avex.training.probes.result import Evaluation
from avex.training.probes.store_examples import from_store
from avex.training.probes.strength import best_scale, standardiser
from avex.training.probes.targets import class_weights, encode_labels

needs_sklearn = pytest.mark.skipif(not available("sklearn"), reason="needs the extra 'eval'")
SEQUENCE_TYPES = ("lstm", "attention", "transformer", "attention_pooling")


def blobs(n=120, d=16, c=4, spread=1.5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    centres = rng.normal(size=(c, d)) * 2
    scale = np.linspace(0.2, 3, d)
    return ((centres[y] + spread * rng.normal(size=(n, d))) * scale + 1).astype(np.float32), y


# -- the linear path -------------------------------------------------------------------------------------


@needs_sklearn
@pytest.mark.parametrize(("n", "d", "c"), [(150, 20, 4), (40, 90, 3), (120, 10, 2)])
@pytest.mark.parametrize("strength", [0.001, 0.1, 10.0])
def test_the_optimum_is_that_of_scikit_learn(n, d, c, strength):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = blobs(n, d, c)
    fit = avex.fit_probe(x, y, split=None, strength=strength)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    reference = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(scaled, y)
    np.testing.assert_allclose(fit.predict_proba(x), reference.predict_proba(scaled), atol=1e-3)
    weight = fit.probe.classifier.weight.detach().numpy()
    if c > 2:
        np.testing.assert_allclose(weight, reference.coef_, atol=1e-3)
    else:
        np.testing.assert_allclose(weight[1] - weight[0], reference.coef_[0], atol=1e-3)


@needs_sklearn
def test_balanced_weights_and_several_labels_are_those_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = blobs(160, 12, 3)
    keep = np.flatnonzero((y > 0) | (np.arange(160) % 4 == 0))
    x, y = x[keep], y[keep]
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    ours = avex.fit_probe(x, y, split=None, strength=0.05, class_weights="balanced").predict_proba(x)
    balanced = LogisticRegression(C=0.05, tol=1e-8, max_iter=10_000, class_weight="balanced").fit(scaled, y)
    np.testing.assert_allclose(ours, balanced.predict_proba(scaled), atol=1e-3)
    table = np.c_[y == 0, y >= 1, scaled[:, 0] > 0].astype(int)
    several = avex.fit_probe(x, table, split=None, strength=0.05)
    assert several.task == "multi-label"
    for i, column in enumerate(table.T):
        alone = LogisticRegression(C=0.05, tol=1e-8, max_iter=10_000).fit(scaled, column)
        np.testing.assert_allclose(
            several.predict_proba(x)[:, i], alone.predict_proba(scaled)[:, 1], atol=1e-3
        )


@given(seed=st.integers(0, 100), d=st.integers(1, 30), log_c=st.floats(-4, 1))
@settings(max_examples=25, deadline=None)
def test_the_gradient_vanishes_at_the_solution(seed, d, log_c):
    x, y = blobs(50, d, 3, seed=seed)
    x, y, strength = torch.from_numpy(x).double(), torch.from_numpy(y), 10**log_c
    mean, std = standardiser(x)
    x = (x - mean) / std
    solution = next(fit_path(x, y, [strength]))
    assert solution.converged
    weight, bias = solution.weight.clone().requires_grad_(), solution.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight.t() + bias, y, reduction="sum")
    (strength * loss + weight.square().sum() / 2).backward()
    assert weight.grad.abs().max() / (strength * 50) < 1e-3
    assert bias.grad.abs().max() / (strength * 50) < 1e-3


def test_features_that_do_not_vary_do_no_harm():
    x, y = blobs()
    x[:, 3] = 1e6 + 0.1
    fit = avex.fit_probe(x, y)
    assert fit.metrics["accuracy"].value > 0.8
    assert np.isfinite(fit.probe.classifier.weight.detach().numpy()).all()


def test_the_strength_is_chosen_inside_the_training_part():
    x, y = blobs(200, 60, 4, spread=6)
    fit = avex.fit_probe(x, y)
    assert fit.strength.strength in FitOptions().strengths
    losses = fit.strength.losses
    assert losses[fit.strength.strength] == min(losses.values())
    assert fit.strength.strength < 1  # noisy: strong regularisation
    # What the test part holds plays no part in it.
    split = np.random.default_rng(0).permutation(200)
    parts = Split(np.sort(split[:160]), test=np.sort(split[160:]))
    changed = x.copy()
    changed[parts.test] = 1e3
    a, b = (avex.fit_probe(data, y, split=parts) for data in (x, changed))
    assert a.strength == b.strength
    assert torch.equal(a.probe.classifier.weight, b.probe.classifier.weight)
    assert torch.equal(a.probe.input_mean, b.probe.input_mean)


def test_the_strength_is_judged_by_other_recordings_and_not_by_other_windows():
    """Windows of a recording are alike and labels mean nothing: only learning by heart looks good."""
    rng = np.random.default_rng(0)
    recordings, y = np.repeat(np.arange(40), 4), np.repeat(np.arange(40) % 2, 4)
    x = (rng.normal(size=(40, 60))[recordings] + 0.05 * rng.normal(size=(160, 60))).astype(np.float32)
    apart = avex.fit_probe(x, y, groups=recordings.tolist(), split=None).strength.strength
    assert apart <= 1e-3 < avex.fit_probe(x, y, split=None).strength.strength


def test_probes_are_as_sure_as_they_are_right():
    """Strong regularisation alone would say 0.51 where it is right nine times in ten."""
    x, y = blobs(1600, 40, 4, spread=5)
    said = avex.fit_probe(x[:200], y[:200], split=None).predict_proba(x[200:])
    assert said.max(1).mean() == pytest.approx((said.argmax(1) == y[200:]).mean(), abs=0.04)


def test_a_validation_part_says_how_sure_to_be():
    x, y = blobs(200, 8, spread=1)
    parts = Split(np.arange(80), np.arange(80, 160), np.arange(160, 200))
    guessed = y.copy()
    guessed[parts.validation] = np.random.default_rng(0).permutation(y[parts.validation])
    sure, unsure = (avex.fit_probe(x, labels, split=parts).predict_proba(x[160:]) for labels in (y, guessed))
    assert sure.max(1).mean() > 0.9
    assert unsure.max(1).mean() < 0.4


def test_the_scale_undoes_a_scale():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(20_000, 3)) * 2)
    truth = torch.distributions.Categorical(logits=logits).sample()
    scale, loss = best_scale(logits / 5, truth)
    assert scale == pytest.approx(5, rel=0.05)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, truth)), abs=1e-2)
    right = torch.eye(3)[[0, 1, 2]]
    assert np.isfinite(best_scale(right, torch.tensor([0, 1, 2]))[0])


# -- other heads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "prototype", "knn"])
def test_vector_heads_learn(kind):
    x, y = blobs(160)
    fit = avex.fit_probe(x, y, kind, epochs=30)
    assert fit.metrics["accuracy"].value >= 0.9
    assert bool(fit.history) == (kind == "mlp")


@pytest.mark.parametrize("kind", SEQUENCE_TYPES)
def test_sequence_heads_learn_and_ignore_padding(kind):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    marks = np.eye(8)[:3] * 4
    x = []
    for label in y:
        steps = rng.normal(size=(rng.integers(2, 7), 8)).astype(np.float32) * 0.5
        steps[rng.integers(len(steps))] += marks[label]
        x.append(steps)
    fit = avex.fit_probe(x, y, kind, epochs=60, learning_rate=1e-2)
    assert fit.metrics["accuracy"].value >= 0.8
    # One by one nothing is padded.
    together = fit.predict_proba(x[:6])
    alone = np.concatenate([fit.predict_proba([one]) for one in x[:6]])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_same_seed_gives_the_same_probe_and_leaves_the_generator_alone():
    x, y = blobs()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    a, b, c = (avex.fit_probe(x, y, "mlp", epochs=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in a.probe.state_dict().items():
        assert torch.equal(value, b.probe.state_dict()[name]), name
    assert not torch.equal(a.probe.mlp[0].weight, c.probe.mlp[0].weight)
    assert a.history == b.history


def test_training_stops_early_and_goes_back_to_the_best_state():
    x, y = blobs(80, spread=4)
    fit = avex.fit_probe(x, y, "mlp", epochs=60, patience=4, learning_rate=0.01, val_fraction=0.25, seed=3)
    best = max(
        range(len(fit.history)),
        key=lambda i: (fit.history[i].validation_score, -fit.history[i].validation_loss),
    )
    assert len(fit.history) == best + 1 + 4 < 60
    assert fit.history[-1].learning_rate < fit.history[0].learning_rate


def test_validation_without_any_positive_stops_by_the_loss():
    """Average precision is not a number there: the state that is kept must not be the one before training."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 8)).astype(np.float32)
    x[60:70] = -abs(x[60:70])
    parts = Split(np.arange(60), np.arange(60, 70), np.arange(70, 90))
    head = {"probe_type": "mlp", "hidden_dims": [16], "dropout_rate": 0.0}
    table = (x[:, :2] > 0).astype(int)
    fit = avex.fit_probe(x, table, head, split=parts, learning_rate=0.02, epochs=20, resamples=0)
    assert all(np.isnan(epoch.validation_score) for epoch in fit.history)
    assert fit.metrics["mean_average_precision"].value > 0.9


def test_a_loss_that_is_not_a_number_stops_training():
    x, y = blobs()
    with pytest.raises(TrainingDivergedError, match=r"epoch 1\. Lower learning_rate"):
        avex.fit_probe(x, y, "mlp", learning_rate=1e30)


@pytest.mark.parametrize(
    "option",
    [
        {"weight_decay": 1.0},
        {"max_grad_norm": 1e-3},
        {"batch_size": 5},
        {"learning_rate": 0.01},
        {"standardise": False},
        {"class_weights": {"2": 9.0}},
        {"class_weights": "balanced", "multilabel": True},
        {"val_fraction": 0.4},
    ],
)
def test_every_option_of_a_head_has_an_effect(option):
    x, y = blobs(60, 6, 3)
    same = {name: option[name] for name in ("multilabel",) if name in option}
    plain, changed = (
        avex.fit_probe(x, y, "mlp", epochs=3, split=None, **{**same, **options}).probe
        for options in ({}, option)
    )
    assert not torch.equal(plain.mlp[0].weight, changed.mlp[0].weight)


def test_dropout_drops_while_a_head_learns_and_not_while_it_is_judged():
    x, y = blobs(160, spread=1)
    head = {"probe_type": "mlp", "hidden_dims": [32], "dropout_rate": 0.8}
    last = avex.fit_probe(x, y, head, epochs=8, learning_rate=0.01).history[-1]
    assert last.train_loss > 1.5 * last.validation_loss


def test_labels_of_the_test_choose_nothing_where_a_validation_part_is_made():
    x, y = blobs(90, 8, 3, spread=4)
    parts = Split(np.arange(60), test=np.arange(60, 90))
    moved = np.r_[y[:60], (y[60:] + 1) % 3]
    a, b = (avex.fit_probe(x, z, "mlp", split=parts, epochs=12, learning_rate=0.02).probe for z in (y, moved))
    assert torch.equal(a.mlp[0].weight, b.mlp[0].weight)


def test_padding_of_batches():
    x, mask = collate([np.ones((2, 3), np.float32), np.ones((1, 3), np.float32)], [0, 1], torch.device("cpu"))
    assert mask.tolist() == [[False, False], [False, True]]
    assert x[1, 1].tolist() == [0, 0, 0]
    assert collate([np.ones((2, 3), np.float32)] * 2, [0, 1], torch.device("cpu"))[1] is None


# -- labels ----------------------------------------------------------------------------------------------


def test_labels_in_all_forms():
    assert encode_labels(["b", "a"]).classes == ("a", "b")
    assert encode_labels(torch.tensor([2, 0])).values.tolist() == [2, 0]
    assert encode_labels([[], ["a"]]).values.tolist() == [[0], [1]]
    assert encode_labels([0, 1], ["x", "y"], multilabel=True).values.tolist() == [[1, 0], [0, 1]]
    assert encode_labels([[1, 0], [0, 1]], multilabel=False).values.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "c"], ["a", "b"]), "'c' is not one of the 2 classes"),
        (([["a", "b"]], None, False), "Example 0 has 2 labels"),
        (([0.5, 1],), "whole numbers"),
        (([0, 3], ["a", "b"]), "beyond the 2 classes"),
        (([[0, 2]],), "must be 0 or 1"),
        (([[0, 1]], ["a"]), "2 columns, but there are 1 classes"),
        (([],), "no labels"),
        ((["a"], ["a", "a"]), "named twice"),
    ],
)
def test_labels_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigError, match=message):
        encode_labels(*arguments)


def test_weights_of_classes():
    targets = encode_labels(["a"] * 3 + ["b"])
    assert class_weights("balanced", targets).tolist() == [4 / 6, 2.0]
    assert class_weights({"b": 5}, targets).tolist() == [1.0, 5.0]
    assert class_weights("balanced", encode_labels([["a"], ["a"], ["a", "b"], []])).tolist() == [1 / 3, 3.0]
    with pytest.raises(ConfigError, match="no class 'c'"):
        class_weights({"c": 1}, targets)
    with pytest.raises(ConfigError, match="positive"):
        class_weights({"a": 0}, targets)


# -- stores and tables -----------------------------------------------------------------------------------

HEADER = StoreHeader(
    embedding_dim=8, card="tiny", weights_sha256="ab" * 32, sample_rate=16_000, resampler="soxr_hq",
    window_s=3.0, hop_s=3.0, tail="pad", min_tail_s=0.0, channel="mean", layers=("last_layer",),
    pooling="mean", precision="float32", runtime="cpu",
)  # fmt: skip
KINDS = ("frog", "newt")


def make_store(recordings, windows=3, header=HEADER, seed=0):
    """Windows of 3 s; those of `recordings[name]` (a class each, or one for all) are easy to tell apart."""
    rng = np.random.default_rng(seed)
    store = MemoryStore(header)
    for name, kinds in recordings.items():
        kinds = [kinds] * windows if isinstance(kinds, str) else kinds
        x = rng.normal(size=(len(kinds), 8)).astype(np.float32) * 0.3
        for row, kind in zip(x, kinds, strict=True):
            if kind:
                row[KINDS.index(kind)] += 4
        start = 3.0 * np.arange(len(kinds))
        store.append(EmbeddingBatch(name, start, start + 3, np.zeros(len(kinds), np.int64), x))
        store.commit(RecordingKey(name, 1, 1))
    return store


@pytest.fixture
def pond():
    return make_store({f"pond/{kind}_{i}.wav": kind for kind in KINDS for i in range(10)})


def table_of(store, **columns):
    names = store.recordings()
    return {"path": names, "label": ["frog" if "frog" in n else "newt" for n in names], **columns}


def test_recordings_are_the_mean_of_their_windows(pond):
    fit = avex.fit_probe(pond, table_of(pond), strength=1.0)
    assert fit.unit == "recording"
    assert fit.sizes == {"train": 16, "test": 4}
    assert fit.metrics["accuracy"].value == 1.0
    assert sum(c.support for c in fit.per_class) == 4
    assert fit.confusion.tolist() == [[2, 0], [0, 2]]


def test_windows_of_a_recording_stay_together(pond):
    fit = avex.fit_probe(pond, table_of(pond), unit="window")
    assert fit.sizes == {"train": 48, "test": 12}
    assert len({name.partition(" ")[0] for name in fit.evaluation.names}) == 4
    with pytest.raises(ConfigError, match="in two parts of the split"):
        avex.fit_probe(pond, table_of(pond), unit="window", split="stratified")


def test_windows_of_a_recording_stay_together_with_a_label_for_each(pond):
    labels = np.repeat([name.partition("_")[0] for name in table_of(pond)["path"]], 3).tolist()
    fit = avex.fit_probe(pond, labels, strength=1.0)
    tested = [int(name) // 3 for name in fit.evaluation.names]
    assert len(tested) == 12
    assert all(tested.count(recording) == 3 for recording in tested)


def test_intervals_are_of_recordings_and_not_of_their_windows():
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.7
    targets = encode_labels(np.repeat(np.arange(60) % 2, 4))
    said = np.where(np.repeat(right, 4), targets.values, 1 - targets.values)
    names = tuple(map(str, range(240)))
    width = []
    for groups in (names, tuple(f"{i // 4}.wav" for i in range(240))):
        examples = Examples(np.zeros((240, 1), np.float32), targets, names, groups)
        score = Evaluation.of(examples, np.eye(2, dtype=np.float32)[said], resamples=400, seed=0).metrics[
            "accuracy"
        ]
        width.append(score.high - score.low)
    assert width[1] == pytest.approx(2 * width[0], rel=0.25)  # sqrt(4)


def test_sequence_probes_read_the_windows_of_a_recording(pond):
    fit = avex.fit_probe(pond, table_of(pond), "attention_pooling", learning_rate=0.05)
    assert fit.is_sequence
    assert fit.metrics["accuracy"].value == 1.0


def test_labels_of_parts_become_labels_of_windows():
    store = make_store({f"{i}.wav": ["frog", None, "newt"] for i in range(8)})
    rows = [(f"{i}.wav", *part) for i in range(8) for part in ((0, 3, "frog"), (6.2, 6.4, "newt"))]
    table = dict(zip(("file", "start_s", "end_s", "label"), zip(*rows, strict=True), strict=True))
    fit = avex.fit_probe(store, table)
    assert (fit.unit, fit.task) == ("window", "multi-label")
    assert fit.evaluation.targets.values.sum(0).tolist() == [len(fit.evaluation.names) / 3] * 2
    assert fit.metrics["mean_average_precision"].value == 1.0
    single = avex.fit_probe(store, table, multilabel=False)
    assert single.sizes["train"] + single.sizes["test"] == 16
    assert "8 windows have no label and were left out." in single.notes


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.5, 1.0]),
)
@example([(1, 3)], 1.0)
def test_a_window_has_the_labels_of_the_parts_that_overlap_it(parts, min_overlap):
    """Whatever the order of the rows and however they overlap; silent windows hold one list of rows together."""
    store = make_store({"a.wav": [None] * 25})
    spans = [(start, start + length) for start, length in parts]
    labels = [f"class {i}" for i in range(len(spans))]
    start_s, end_s = (list(column) for column in zip(*spans, strict=True))
    table = LabelTable.read({"path": ["a.wav"] * len(spans), "start": start_s, "end": end_s, "label": labels})
    wanted = []
    for number in range(25):
        window = (3 * number, 3 * number + 3)
        shared = [min(window[1], end) - max(window[0], start) for start, end in spans]
        wanted.append(
            {
                label
                for label, length, (start, end) in zip(labels, shared, spans, strict=True)
                if length > 0 and length >= min_overlap * min(3, end - start)
            }
        )
    if not any(wanted):
        with pytest.raises(
            ConfigError, match=rf"No window .* has a label .*{len(spans)} rows .* \(min_overlap\)"
        ):
            from_store(store, table, multilabel=True, unit="window", min_overlap=min_overlap)
        return
    found = from_store(store, table, multilabel=True, unit="window", min_overlap=min_overlap)
    names = np.array(found.targets.classes)
    assert [set(names[row == 1]) for row in found.targets.values] == wanted
    unused = len(spans) - len(set().union(*wanted))
    assert any(note.startswith(f"{unused} rows") for note in found.notes) == bool(unused)
    silent = [rows for rows, row in zip(found.rows, found.targets.values, strict=True) if not row.any()]
    assert len({id(rows) for rows in silent}) <= 1


def test_one_row_for_a_whole_recording_is_a_label_of_it(pond):
    table = table_of(pond, start_s=[0] * 20, end_s=[9] * 20)
    assert avex.fit_probe(pond, table, strength=1.0).unit == "recording"


def test_recordings_that_are_in_one_of_both_only_are_counted(pond):
    table = table_of(pond)
    table = {"path": [*table["path"][2:], "gone.wav"], "label": [*table["label"][2:], "frog"]}
    fit = avex.fit_probe(pond, table, strength=1.0)
    assert fit.notes == (
        "2 recordings of the store are not in the label table and were left out.",
        "1 rows of the label table speak of recordings that are not in the store.",
    )


def test_names_match_by_their_ends_and_ambiguous_ones_do_not():
    store = make_store(
        {f"/data/{day}/{kind}_{i}.wav": kind for day in "ab" for kind in KINDS for i in range(4)}
    )
    names = [name.removeprefix("/data/") for name in store.recordings()]
    table = {"path": names, "label": ["frog" if "frog" in n else "newt" for n in names]}
    assert sum(avex.fit_probe(store, table, strength=1.0).sizes.values()) == 16
    with pytest.raises(ConfigError, match=r"'frog_0\.wav' .* fits 2 recordings .*/data/a/frog_0\.wav"):
        avex.fit_probe(store, {"path": ["frog_0.wav"], "label": ["frog"]})
    with pytest.raises(ConfigError, match=r"both fit the recording"):
        avex.fit_probe(store, {"path": ["a/frog_0.wav", "/data/a/frog_0.wav"], "label": ["frog"] * 2})
    with pytest.raises(ConfigError, match=r"The table says 'x\.wav'; the store says '/data/a/frog_0\.wav'"):
        avex.fit_probe(store, {"path": ["x.wav"], "label": ["frog"]})


def test_paths_of_a_table_begin_at_its_folder(tmp_path):
    """There, `frog.wav` is the one beside the table, however many others have its name."""
    names = [str(tmp_path / day / f"{kind}.wav") for day in "ab" for kind in KINDS]
    store = make_store({name: ["frog"] for name in names})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "labels.csv").write_text("path,label\nfrog.wav,frog\nnewt.wav,newt\n")
    assert from_store(store, LabelTable.read(tmp_path / "b" / "labels.csv")).names == tuple(names[2:])


def test_splits_and_groups_from_columns(pond):
    words = ["train"] * 8 + ["test"] * 2
    fit = avex.fit_probe(pond, table_of(pond, part=words * 2), split="part", strength=1.0)
    assert fit.sizes == {"train": 16, "test": 4}
    sites = [f"site{i // 2}" for i in range(20)]
    fit = avex.fit_probe(pond, table_of(pond, site=sites), groups="site", strength=1.0)
    tested = {sites[pond.recordings().index(name)] for name in fit.evaluation.names}
    assert len(fit.evaluation.names) == 2 * len(tested)
    with pytest.raises(ConfigError, match=r"'pond/frog_0\.wav' is in two groups, '0' and '1'"):
        avex.fit_probe(pond, table_of(pond), unit="window", groups=np.arange(60), strength=1.0)
    with pytest.raises(ConfigError, match=r"Unknown split 'prat'\. Did you mean 'part'"):
        avex.fit_probe(pond, table_of(pond, part=words * 2), split="prat")


def test_cross_validation_over_a_column(pond):
    folds = [str(i % 5 + 1) for i in range(20)]
    result = cross_validate_probe(pond, table_of(pond, fold=folds), folds="fold")
    assert result.metrics["accuracy"].value == 1.0
    assert len(result.fold_metrics) == len(result.strengths) == 5
    assert result.over_folds()["accuracy"] == (1.0, 0.0)
    assert list(result.fold_of) == folds
    fit = avex.fit_probe(pond, table_of(pond, fold=folds), folds="fold")
    assert fit.sizes == {"train": 20, "out of fold": 20}
    with pytest.raises(ConfigError, match="either a split or folds"):
        avex.fit_probe(pond, table_of(pond), folds=3, split="grouped")


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_labels_of_a_fold_play_no_part_in_what_is_said_of_it(kind):
    """Neither the strength nor the moment to stop is chosen by the fold that is the test."""
    x, y = blobs(72, 8, 3, spread=4)
    folds = np.arange(72) // 3 % 4
    tested = folds == 2
    found = []
    for moved in (0, 1):
        labels = np.where(tested, (y + moved) % 3, y)
        result = cross_validate_probe(
            x, labels, kind, folds=folds, epochs=12, learning_rate=0.02, resamples=0
        )
        found.append(result.evaluation.probabilities)
    np.testing.assert_array_equal(found[0][tested], found[1][tested])
    assert not np.array_equal(found[0][~tested], found[1][~tested])


def test_cross_validation_keeps_groups_together(pond):
    sites = [f"site{i // 2}" for i in range(20)]
    for groups in (sites, "site"):
        result = cross_validate_probe(pond, table_of(pond, site=sites), folds=5, groups=groups, strength=1.0)
        assert result.fold_of[::2] == result.fold_of[1::2]
        assert sorted(result.fold_of) == sorted("01234" * 4)
    scattered = cross_validate_probe(pond, table_of(pond), folds=5, strength=1.0).fold_of
    assert scattered[::2] != scattered[1::2]


def test_a_recording_in_two_folds_is_a_leak(pond):
    with pytest.raises(ConfigError, match="in two parts"):
        cross_validate_probe(pond, table_of(pond), folds=np.arange(60) % 3, unit="window")


def test_a_probe_that_reads_something_else_is_refused(pond):
    table = table_of(pond)
    with pytest.raises(ConfigError, match="reads the layers layer_6, but the store holds last_layer"):
        avex.fit_probe(pond, table, {"probe_type": "linear", "target_layers": ["layer_6"]})
    with pytest.raises(ConfigError, match="aggregation='max', but the store was pooled by 'mean'"):
        avex.fit_probe(pond, table, {"probe_type": "linear", "aggregation": "max"})
    with pytest.raises(ConfigError, match="Unknown probe_type 'lineer'"):
        make_config("lineer", ["last_layer"], "mean")


def test_the_pooling_of_a_store_is_that_of_its_probe():
    recordings = {f"pond/{kind}_{i}.wav": kind for kind in KINDS for i in range(10)}
    loudest = make_store(recordings, header=replace(HEADER, pooling="max"))
    fit = avex.fit_probe(loudest, table_of(loudest), strength=1.0)
    assert (fit.config.aggregation, fit.metadata()["pooling"]) == ("max", "max")
    for aggregation in ("mean", "none"):
        with pytest.raises(
            ConfigError, match=f"aggregation='{aggregation}', but .* 'max'.*--aggregation mean"
        ):
            avex.fit_probe(loudest, table_of(loudest), {"aggregation": aggregation})
    assert make_config("mlp", ["last_layer"], "max").aggregation == "max"
    assert make_config("lstm", ["last_layer"], "max").aggregation == "none"
    assert make_config("weighted_linear", ["a", "b"], "max").aggregation == "none"
    assert make_config({"aggregation": "mean"}, ["last_layer"], "max").aggregation == "mean"


def test_several_labels_are_noted_and_refused_by_name(pond):
    table = table_of(pond)
    name = pond.recordings()[0]
    table = {**table, "path": [*table["path"], name], "label": [*table["label"], "newt"]}
    table["label"][0] = "frog"
    fit = avex.fit_probe(pond, table, strength=1.0)
    assert fit.task == "multi-label"
    assert "1 of 20 recordings have several labels" in fit.notes[-1]
    with pytest.raises(ConfigError, match=rf"'{name}' has 2 labels .*: frog, newt\. One label each"):
        avex.fit_probe(pond, table, multilabel=False)


def test_what_does_not_fit_is_refused():
    x, y = blobs()
    with pytest.raises(ConfigError, match="3 labels for 120 embeddings"):
        avex.fit_probe(x, y[:3])
    with pytest.raises(ConfigError, match="NaN"):
        avex.fit_probe(np.where(x > 2, np.nan, x), y)
    with pytest.raises(ConfigError, match="needs the names of recordings"):
        avex.fit_probe(x, {"path": ["a"], "label": ["b"]})
    with pytest.raises(ConfigError, match="No training example is of class 'e'"):
        avex.fit_probe(x, np.array(list("abcd"))[y].tolist(), classes=list("abcde"), split=None, strength=1.0)
    with pytest.raises(ConfigError, match="only one training example"):
        avex.fit_probe(x[:5], [0, 0, 0, 0, 1], split=None)
    with pytest.raises(TypeError, match="no option 'epoch'"):
        avex.fit_probe(x, y, epoch=3)
    with pytest.raises(ConfigError, match="strengths"):
        avex.fit_probe(x, y, strength=-1.0)


# -- saving and using ------------------------------------------------------------------------------------


def test_a_saved_probe_says_the_same(pond, tmp_path):
    fit = avex.fit_probe(pond, table_of(pond))
    fit.save(tmp_path / "pond.safetensors")
    probe = load_probe(tmp_path / "pond.safetensors")
    assert probe.labels == KINDS
    assert (probe.info.card, probe.info.weights) == ("tiny", "ab" * 32)
    assert probe.info.metadata["window_s"] == 3.0
    assert probe.info.metadata["metrics"]["accuracy"][0] == 1.0
    x = pond.to_numpy()
    with torch.inference_mode():
        again = probe(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(again, fit.predict_proba(x), atol=1e-6)
    evaluation, examples = evaluate_probe(tmp_path / "pond.safetensors", pond, table_of(pond))
    assert (len(examples), evaluation.metrics["accuracy"].value) == (20, 1.0)
    other = make_store({"a.wav": "frog", "b.wav": "newt"}, header=replace(HEADER, weights_sha256="cd" * 32))
    with pytest.raises(WeightsError, match=r"trained on weights abab.* made with cdcd"):
        evaluate_probe(probe, other, {"path": ["a.wav"], "label": ["frog"]})
    assert evaluate_probe(probe, other, {"path": ["a.wav"], "label": ["frog"]}, allow_other_weights=True)


def test_a_saved_probe_is_evaluated_on_what_it_was_trained_on(pond, tmp_path):
    table = table_of(pond)
    fit = avex.fit_probe(pond, table, unit="window", multilabel=True, strength=1.0)
    fit.save(tmp_path / "pond.safetensors")
    evaluation, examples = evaluate_probe(tmp_path / "pond.safetensors", pond, table, resamples=0)
    assert (examples.unit, len(examples), examples.targets.task) == ("window", 60, "multi-label")
    assert evaluation.metrics["mean_average_precision"].value == 1.0
    assert len(evaluate_probe(fit.probe, pond, table, unit="recording", resamples=0)[1]) == 20
    assert fit.metadata()["activation"] == "sigmoid"


class TinyEngine:
    """The mean of each eighth of a window is its embedding."""

    labels, sessions, batch_size = None, 1, 4

    def __init__(self, weights="ab" * 32, layers=("last_layer",)):
        self.info = EngineInfo(
            card="tiny", sample_rate=16_000, window_seconds=None, fixed_window=False, embedding_dim=8,
            weights_sha256=weights, resampler="soxr_hq", runtime="cpu", layers=layers,
        )  # fmt: skip

    def session(self):
        return self

    def run(self, windows, valid):
        return EngineOutput(windows.reshape(len(windows), 8, -1).mean(2))


def test_an_engine_with_a_probe_detects(pond, wav):
    fit = avex.fit_probe(pond, table_of(pond), strength=1.0)
    fit.probe.info = replace(fit.probe.info, labels=KINDS, weights="ab" * 32, metadata=fit.metadata())
    engine = ProbeEngine(TinyEngine(), fit.probe, "pond")
    data = np.zeros((9 * 16_000, 1))
    data[3 * 16_000 : 3 * 16_000 + 6_000] = 0.9  # the first eighth of the second window: a frog
    path = wav("a.wav", sample_rate=16_000, data=data)
    fit.probe.set_standardisation(torch.zeros(8), torch.full((8,), 0.1))
    found = avex.predict(path, engine, windows=trained_windows(engine), min_conf=0.9).detections()
    assert [(d.start_s, d.end_s, d.label) for d in found] == [(3.0, 6.0, "frog")]
    with pytest.raises(WeightsError, match="trained on weights abab"):
        ProbeEngine(TinyEngine("cd" * 32), fit.probe, "pond")
    with pytest.raises(ConfigError, match="the engine of 'tiny' gives layer_3"):
        ProbeEngine(TinyEngine(layers=("layer_3",)), fit.probe, "pond")
    sequences = avex.fit_probe(pond, table_of(pond), "attention_pooling", epochs=1)
    sequences.probe.info = fit.probe.info
    with pytest.raises(ConfigError, match="reads sequences of windows"):
        ProbeEngine(TinyEngine(), sequences.probe, "pond")


@pytest.mark.skipif(not available("matplotlib"), reason="needs the extra 'eval'")
def test_the_report_is_one_file_without_requests(pond, tmp_path):
    fit = avex.fit_probe(pond, table_of(pond), "mlp", epochs=3, resamples=20)
    files = {path.name: path for path in fit.report(tmp_path / "report")}
    assert set(files) == {"report.html", "confusion.png", "metrics.csv", "classes.csv", "predictions.csv"}
    html = files["report.html"].read_text(encoding="utf-8")
    assert not any(word in html for word in ('src="http', "href=", "<script"))
    assert html.count("data:image/png;base64,") == 3
    assert files["confusion.png"].read_bytes().startswith(b"\x89PNG")
    lines = files["predictions.csv"].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "name,true,predicted,frog,newt"
    assert len(lines) == 1 + fit.sizes["test"]
    json.dumps(fit.metadata(), allow_nan=False)


def test_labels_are_escaped_in_the_report(tmp_path):
    pytest.importorskip("matplotlib")
    x, y = blobs(40, c=2)
    names = np.array(["<script>alert(1)</script>", "b & c"], object)[y].tolist()
    fit = avex.fit_probe(x, names, strength=1.0, resamples=10)
    html = fit.report(tmp_path)[-1].read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_several_labels_predict_sets_of_names():
    x, y = blobs(120, c=3)
    rows = [("a",) if label == 0 else ("b",) if label == 1 else ("a", "b") for label in y]
    fit = avex.fit_probe(x, rows)
    assert fit.confusion is None
    assert fit.metrics["micro_f1"].value > 0.9
    agreement = np.mean([tuple(guess) == row for guess, row in zip(fit.predict(x), rows, strict=True)])
    assert agreement > 0.9
