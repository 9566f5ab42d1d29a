"""Order of clips and batches: reproducible, complete, the same however many processes share it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.data.sampling import EpochBatches, EpochOrder, balanced_weights, count_repetitions, share_of

sizes = st.integers(1, 40)


@given(sizes, st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_takes_every_clip_once(count, seed, epoch):
    order = EpochOrder(count, seed)(epoch)
    assert sorted(order) == list(range(count))
    assert (order == EpochOrder(count, seed)(epoch)).all()


def test_epochs_and_seeds_differ():
    order = EpochOrder(50, seed=1)
    assert (order(0) != order(1)).any()
    assert (order(0) != EpochOrder(50, seed=2)(0)).any()
    batches = EpochBatches(order, 5)
    batches.set_epoch(1)
    assert list(batches) == list(EpochBatches(order, 5, epoch=1)) != list(EpochBatches(order, 5))


@given(sizes, st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(0, 3))
def test_processes_share_the_batches_of_one(count, batch_size, world, epoch):
    """A batch of 2 processes with b clips each is a batch of one process with 2b clips."""
    order = EpochOrder(count, seed=3)
    whole = list(EpochBatches(order, batch_size * world, epoch=epoch))
    parts = [list(EpochBatches(order, batch_size, rank, world, epoch=epoch)) for rank in range(world)]
    joined = [[key for part in parts for key in part[i]] for i in range(len(whole))]
    assert joined == whole
    assert all(len(batch) == batch_size * world for batch in whole)
    assert {index for batch in whole for _, index, _ in batch} == set(range(count))


@given(sizes, st.integers(1, 5), st.data())
def test_going_on_in_the_middle_gives_the_rest(count, batch_size, data):
    batches = EpochBatches(EpochOrder(count, seed=3), batch_size)
    whole = list(batches)
    batches.start = data.draw(st.integers(0, len(whole)))
    assert list(batches) == whole[batches.start :]
    assert len(batches) == len(whole)


def test_clips_per_epoch_goes_round():
    batches = EpochBatches(EpochOrder(3, shuffle=False, clips_per_epoch=7), 2)
    assert [[index for _, index, _ in batch] for batch in batches] == [[0, 1], [2, 0], [1, 2], [0, 0]]
    assert len(batches) == 4
    assert EpochOrder(3, shuffle=False, clips_per_epoch=7)(0).tolist() == [0, 1, 2, 0, 1, 2, 0]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_repetitions_are_counted(values):
    expected = [values[:i].count(value) for i, value in enumerate(values)]
    assert count_repetitions(np.array(values, np.int64)).tolist() == expected


def test_a_clip_that_comes_again_has_another_key():
    """Else a rare clip that is drawn twenty times in an epoch would be changed in the same way twenty times."""
    weights = balanced_weights([["common"]] * 9 + [["rare"]])
    keys = [key for batch in EpochBatches(EpochOrder(10, 0, weights), 5) for key in batch]
    assert len(set(keys)) == len(keys)
    assert len({index for _, index, _ in keys}) < len(keys)


def test_balanced_sampling_evens_out_classes():
    labels = [["common"]] * 90 + [["rare"]] * 10
    order = EpochOrder(100, 0, balanced_weights(labels), clips_per_epoch=20_000)(0)
    assert np.mean(order >= 90) == pytest.approx(0.5, abs=0.02)


def test_weights_of_several_labels_are_those_of_the_rarest():
    assert balanced_weights([["a"], ["a", "b"], []]).tolist() == [0.5, 1.0, 1.0]


def test_buckets_hold_clips_of_similar_length():
    lengths = np.random.default_rng(0).uniform(1, 60, 400)
    plain = EpochBatches(EpochOrder(400, 0), 8)
    bucketed = EpochBatches(EpochOrder(400, 0), 8, lengths=lengths)
    spread = [
        np.mean([np.ptp(lengths[[i for _, i, _ in batch]]) for batch in batches])
        for batches in (plain, bucketed)
    ]
    assert spread[1] < spread[0] / 10
    assert sorted(i for batch in bucketed for _, i, _ in batch) == list(range(400))
    firsts = [lengths[batch[0][1]] for batch in bucketed]
    assert firsts != sorted(firsts)


@given(sizes, st.integers(1, 6))
def test_shares_are_equal_and_cover_everything(count, world):
    shares = [share_of(count, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert set(np.concatenate(shares)) == set(range(count))


def test_no_clips_is_an_error():
    with pytest.raises(ConfigError, match="no clips"):
        EpochOrder(0)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.0, 0.0, 0.0]])
def test_weights_that_do_not_fit_are_an_error(weights):
    with pytest.raises(ConfigError, match="weights do not fit 3 clips"):
        EpochOrder(3, weights=np.array(weights))
