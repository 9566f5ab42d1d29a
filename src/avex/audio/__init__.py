"""Recordings: headers, decoding in blocks, channels, resampling, windows, recorder metadata.

Uses numpy only; soundfile and soxr load with the first recording that needs them.
"""

from __future__ import annotations

from avex.audio.channels import Channel, channel_numbers, parse_channel, select_channels
from avex.audio.decode import AudioStream, read
from avex.audio.info import AudioInfo, info
from avex.audio.recorder import RecordingMetadata, read_metadata
from avex.audio.resample import Method, Resampler, make_resampler, output_length, resample
from avex.audio.windows import Tail, Window, WindowBatch, Windower, WindowStream

__all__ = [
    "AudioInfo",
    "AudioStream",
    "Channel",
    "Method",
    "RecordingMetadata",
    "Resampler",
    "Tail",
    "Window",
    "WindowBatch",
    "WindowStream",
    "Windower",
    "channel_numbers",
    "info",
    "make_resampler",
    "output_length",
    "parse_channel",
    "read",
    "read_metadata",
    "resample",
    "select_channels",
]
