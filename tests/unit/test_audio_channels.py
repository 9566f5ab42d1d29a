"""Channels are counted from 1."""

from __future__ import annotations

import numpy as np
import pytest

from avex._core.errors import AudioError, ConfigError
from avex.audio import channel_numbers, parse_channel, select_channels

BLOCK = np.array([[1.0, 2.0, 6.0], [0.0, -1.0, 4.0]], np.float32)


@pytest.mark.parametrize(
    ("given", "parsed"), [("mean", "mean"), ("each", "each"), (1, 1), ("3", 3), (np.int64(2), 2)]
)
def test_parse(given: object, parsed: object) -> None:
    assert parse_channel(given) == parsed


@pytest.mark.parametrize("given", [0, "0", -1, "-1", 1.0, True, None, "left", "", "Mean"])
def test_parse_refuses(given: object) -> None:
    with pytest.raises(ConfigError, match="channel number from 1"):
        parse_channel(given)


def test_zero_explains_the_counting() -> None:
    with pytest.raises(ConfigError, match=r"Channels are counted from 1\."):
        parse_channel(0)


@pytest.mark.parametrize(
    ("channel", "expected"),
    [("mean", [[3.0], [1.0]]), (1, [[1.0], [0.0]]), (3, [[6.0], [4.0]]), ("each", BLOCK.tolist())],
)
def test_select(channel: str | int, expected: list[list[float]]) -> None:
    chosen = select_channels(BLOCK, channel)  # type: ignore[arg-type]
    assert chosen.tolist() == expected
    assert chosen.dtype == np.float32
    assert chosen.flags.c_contiguous


def test_numbers_stored_with_results() -> None:
    assert channel_numbers("mean", 3) == [0]
    assert channel_numbers(2, 3) == [2]
    assert channel_numbers("each", 3) == [1, 2, 3]


def test_absent_channel_is_an_error_of_the_recording() -> None:
    with pytest.raises(
        AudioError, match="Channel 2 was asked for, but the recording has 1 channel"
    ) as caught:
        select_channels(BLOCK[:, :1], 2)
    assert caught.value.cause == "unsupported"


def test_mean_does_not_overflow() -> None:
    loud = np.full((1, 2), np.finfo(np.float32).max)
    assert select_channels(loud, "mean")[0, 0] == np.finfo(np.float32).max


def test_mean_of_one_channel_is_that_channel() -> None:
    assert select_channels(BLOCK[:, :1], "mean").tolist() == [[1.0], [0.0]]
