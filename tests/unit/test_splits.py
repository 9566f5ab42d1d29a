"""Splits: every example once, groups whole, classes everywhere, and the same for one seed."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.data import Split, check_leakage, make_folds, make_split, split_from_column


@given(
    sizes=st.lists(st.integers(5, 40), min_size=1, max_size=8),
    test=st.sampled_from([0.1, 0.2, 0.5]),
    validation=st.sampled_from([0.0, 0.1, 0.25]),
    seed=st.integers(0, 50),
)
@settings(max_examples=80, deadline=None)
def test_stratified_parts_have_the_share_of_each_class(sizes, test, validation, seed):
    y = np.repeat(np.arange(len(sizes)), sizes)
    split = make_split(y, validation=validation, test=test, seed=seed)
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together) == list(range(len(y)))
    for label, size in enumerate(sizes):
        for part, share in ((split.test, test), (split.validation, validation)):
            assert abs((y[part] == label).sum() - share * size) <= 1 + (share > 0)
            assert (y[part] == label).any() == (share > 0)
        assert (y[split.train] == label).any()
    # Rounding evens out over the classes.
    assert abs(len(split.test) - test * len(y)) <= len(sizes)
    again = make_split(y, validation=validation, test=test, seed=seed)
    assert np.array_equal(split.test, again.test)


@given(
    data=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=12, max_size=60),
    seed=st.integers(0, 50),
    k=st.integers(2, 4),
)
@settings(max_examples=80, deadline=None)
def test_groups_stay_whole_and_folds_are_balanced(data, seed, k):
    y = np.concatenate([np.full(size, label) for label, size in data])
    groups = np.concatenate([np.full(size, i) for i, (_, size) in enumerate(data)])
    counts = [sum(label == c for label, _ in data) for c in range(4)]
    assume(all(count == 0 or count >= k for count in counts))
    folds = make_folds(y, k, groups=groups, seed=seed)
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    for label in set(y):
        # As many groups as folds at least, so no fold lacks the class.
        assert set(folds[y == label]) == set(range(k))
    assert np.array_equal(folds, make_folds(y, k, groups=groups, seed=seed))


def test_many_groups_come_close_to_the_shares():
    rng = np.random.default_rng(0)
    sizes, labels = rng.integers(1, 12, 300), rng.integers(6, size=300)
    y, groups = np.repeat(labels, sizes), np.repeat(np.arange(300), sizes)
    split = make_split(y, validation=0.15, test=0.2, groups=groups)
    check_leakage(split, groups)
    for part, share in ((split.test, 0.2), (split.validation, 0.15)):
        assert len(part) / len(y) == pytest.approx(share, abs=0.01)
        np.testing.assert_allclose(np.bincount(y[part]) / np.bincount(y), share, atol=0.03)


def test_several_labels_are_stratified_too():
    rng = np.random.default_rng(1)
    y = (rng.random((400, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.03]).astype(int)
    folds = make_folds(y, 4)
    assert np.bincount(folds).tolist() == pytest.approx([100] * 4, abs=4)
    for column in y.T:
        per_fold = np.array([column[folds == f].sum() for f in range(4)])
        assert abs(per_fold - column.sum() / 4).max() <= 3


def test_names_of_groups_do_not_matter():
    y, groups = [0, 0, 1, 1] * 5, [f"r{i // 2}" for i in range(20)]
    renamed = [{"r" + str(i): 100 - i for i in range(10)}[group] for group in groups]
    assert np.array_equal(make_folds(y, 2, groups=groups), make_folds(y, 2, groups=renamed))


def test_too_few_examples_name_the_class():
    with pytest.raises(ConfigError, match=r"Some classes have fewer examples than the 2 parts.*'newt' \(1\)"):
        make_split([0, 0, 0, 1], test=0.5, classes=["frog", "newt"])
    with pytest.raises(ConfigError, match=r"fewer groups than the 3 parts.*'frog' \(2\)"):
        make_folds([0, 0, 0, 0], 3, groups=["a", "a", "b", "b"], classes=["frog"])


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.0, 1.0)])
def test_impossible_shares(validation, test):
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        make_split([0, 0], validation=validation, test=test)


def test_wrong_shapes():
    with pytest.raises(ConfigError, match="at least 2 folds"):
        make_folds([0, 1], 1)
    with pytest.raises(ConfigError, match="1 groups for 2"):
        make_folds([0, 1], 2, groups=["a"])
    with pytest.raises(ConfigError, match="shape"):
        make_folds(np.zeros((2, 2, 2)), 2)


def test_a_column_of_words():
    split = split_from_column(["Train", "val", "test", "dev", "training"])
    assert [split.train.tolist(), split.validation.tolist(), split.test.tolist()] == [[0, 4], [1, 3], [2]]
    with pytest.raises(ConfigError, match=r"'1', '2'.*cross-validation"):
        split_from_column(["1", "2"])
    with pytest.raises(ConfigError, match="nothing to train on"):
        split_from_column(["test"])


def test_leakage_names_the_recording():
    split = Split(np.array([0, 1]), test=np.array([2, 3]))
    check_leakage(split, ["a", "b", "c", "d"])
    with pytest.raises(ConfigError, match=r"1 of 3 recordings are in two parts.*'a' \(train and test\)"):
        check_leakage(split, ["a", "b", "c", "a"])
