"""Masks of pre-training, tokens that move with them, and the moving average of a teacher."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avex._core.errors import ConfigError
from avex.nn.ema import EmaTeacher, annealed_decay
from avex.nn.masking import (
    gather_tokens,
    inverse_block_mask,
    random_mask,
    scatter_tokens,
    span_mask,
    visible_places,
)

SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**31)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 5), st.integers(2, 300), SHARES, SEEDS)
def test_random_masks_hide_just_their_share(batch, length, ratio, seed):
    mask = random_mask(batch, length, ratio, generator=_generator(seed))
    hidden = mask.sum(1)
    assert mask.shape == (batch, length)
    assert mask.dtype == torch.bool
    assert (hidden == hidden[0]).all()
    assert 1 <= hidden[0] <= length - 1
    assert abs(int(hidden[0]) - ratio * length) <= 1
    assert torch.equal(mask, random_mask(batch, length, ratio, generator=_generator(seed)))


@given(
    st.integers(1, 4),
    st.tuples(st.integers(1, 40), st.integers(2, 12)),
    SHARES,
    st.integers(1, 7),
    SEEDS,
)
def test_inverse_blocks_keep_the_same_number_in_every_clip(batch, grid, keep, block, seed):
    mask = inverse_block_mask(batch, grid, keep, block, generator=_generator(seed))
    length = grid[0] * grid[1]
    visible = (~mask).sum(1)
    assert mask.shape == (batch, length)
    assert (visible == min(max(int(length * keep), 1), length - 1)).all()
    assert torch.equal(mask, inverse_block_mask(batch, grid, keep, block, generator=_generator(seed)))


def test_inverse_blocks_are_blocks():
    # Of tokens drawn one by one a fifth has a visible right neighbour; in blocks most have.
    mask = inverse_block_mask(64, (64, 8), generator=_generator(0)).view(64, 64, 8)
    visible = ~mask
    both = (visible[:, :, :-1] & visible[:, :, 1:]).sum() / visible[:, :, :-1].sum()
    assert both > 0.6
    assert (~inverse_block_mask(1, (64, 8))).sum() == 102  # a fifth of 512, as published


def test_single_tokens_are_blocks_of_side_one():
    spread = inverse_block_mask(64, (64, 8), block=1, generator=_generator(0)).view(64, 64, 8)
    visible = ~spread
    both = (visible[:, :, :-1] & visible[:, :, 1:]).sum() / visible[:, :, :-1].sum()
    assert both < 0.3


@given(st.integers(1, 4), st.integers(2, 200), SHARES, st.integers(1, 20), st.integers(1, 3), SEEDS)
def test_spans_never_hide_nothing_nor_everything(batch, length, probability, span, min_spans, seed):
    mask = span_mask(batch, length, probability, span, min_spans, generator=_generator(seed))
    assert mask.shape == (batch, length)
    assert mask.any(1).all()
    assert not mask.all(1).any()
    assert torch.equal(
        mask, span_mask(batch, length, probability, span, min_spans, generator=_generator(seed))
    )


def test_spans_have_their_length_and_share():
    mask = span_mask(200, 500, generator=_generator(1))
    # 40 starts of 500 drawn without repetition: a frame is visible if none of the ten before it is one.
    assert mask.float().mean() == pytest.approx(1 - 0.92**10, abs=0.02)
    runs = [len(run) for row in mask for run in "".join("x" if m else " " for m in row).split()]
    inner = [len(run) for row in mask[:, :-10] for run in "".join("x" if m else " " for m in row).split()]
    assert min(inner) == 10 or min(runs) < 10  # only the end of a clip cuts a span off
    assert sum(run < 10 for run in runs) <= 200


@pytest.mark.parametrize(
    "draw",
    [
        lambda: random_mask(1, 8, 0.0),
        lambda: random_mask(1, 1, 0.5),
        lambda: inverse_block_mask(1, (8, 8), keep=1.0),
        lambda: inverse_block_mask(1, (8, 8), block=0),
        lambda: span_mask(1, 8, 1.5),
        lambda: span_mask(1, 8, span=0),
    ],
)
def test_senseless_masks_are_refused(draw):
    with pytest.raises(ConfigError):
        draw()


def test_tokens_go_to_the_encoder_and_back():
    mask = random_mask(3, 12, 0.5, generator=_generator(2))
    tokens = torch.randn(3, 12, 4)
    places = visible_places(mask)
    visible = gather_tokens(tokens, places)
    assert torch.equal(visible, tokens[~mask].view(3, 6, 4))
    back = scatter_tokens(visible, places, torch.zeros(3, 12, 4))
    assert torch.equal(back, tokens * (~mask).unsqueeze(-1))


def test_clips_that_keep_different_numbers_are_refused():
    with pytest.raises(ValueError, match="same number"):
        visible_places(torch.tensor([[True, False], [False, False]]))


def test_a_teacher_follows_and_nothing_else_moves_it():
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    teacher = EmaTeacher(student)
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
        student[1].running_mean.fill_(7.0)
    teacher.update(student, decay=0.9)
    for old, new in zip(before, teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-6)
    assert (teacher.network[1].running_mean == 7.0).all()
    owner = nn.ModuleList([teacher]).train()
    assert owner.training
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher(torch.randn(2, 3, requires_grad=True)).requires_grad


def test_a_teacher_stays_in_float32():
    teacher = EmaTeacher(nn.Linear(2, 2)).half()
    assert all(p.dtype == torch.float32 for p in teacher.parameters())
    student = nn.Linear(2, 2).half()
    teacher.update(student, decay=0.0)
    assert torch.equal(teacher.network.weight, student.weight.float())


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_out_of_range_is_refused(decay):
    network = nn.Linear(1, 1)
    with pytest.raises(ConfigError):
        EmaTeacher(network).update(network, decay)


def test_the_decay_of_eat_rises_to_its_end():
    values = [annealed_decay(step, 0.9998, 0.99999, 100_000) for step in (0, 50_000, 100_000, 400_000)]
    assert values == pytest.approx([0.9998, 0.999895, 0.99999, 0.99999], abs=1e-12)
