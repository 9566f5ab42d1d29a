"""Names that recordings have: what is taken for one when a folder is searched. What a file is, its content says."""

from __future__ import annotations

_FORMATS = "wav|wave|flac|ogg|oga|opus|mp3|aif|aiff|aifc|w64|rf64|caf|au|snd|m4a|mp4|aac|wma"
AUDIO_SUFFIXES = frozenset("." + name for name in _FORMATS.split("|"))
"""Endings of file names, in lower case, with the point."""
