"""Write a known store, slowly enough to be killed: `python store_writer.py OUT.parquet [--recordings N] ...`.

The tests of the Parquet store load this file for the recordings it describes, and run it to kill it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avex.embedding.stores import (
    EmbeddingBatch,
    EmbeddingStore,
    ParquetStore,
    RecordingKey,
    SealPolicy,
    StoreHeader,
    matrix,
)

DIM = 16
SEAL = SealPolicy(rows=60, seconds=0.02, stream_rows=16)

Row = tuple[str, float, float, int, tuple[float, ...]]


@dataclass(frozen=True)
class Take:
    """A recording of the known store: its rows, how they are split over appends, and whether it fails."""

    key: RecordingKey
    rows: int
    batch_rows: int
    fails: bool = False


def make_header(**changes: object) -> StoreHeader:
    settings: dict[str, object] = {
        "embedding_dim": DIM,
        "card": "birdnet",
        "weights_sha256": "cd" * 32,
        "sample_rate": 48_000,
        "resampler": "soxr_hq",
        "window_s": 3.0,
        "hop_s": 1.5,
        "tail": "drop",
        "min_tail_s": 0.0,
        "channel": "each",
        "layers": ["last_layer"],
        "pooling": "mean",
        "precision": "float32",
        "runtime": "litert",
    }
    return StoreHeader(**(settings | changes))  # type: ignore[arg-type]


def make_batch(recording: str, rows: int, first: int = 0, dim: int = DIM) -> EmbeddingBatch:
    index = np.arange(first, first + rows)
    seed = sum(map(ord, recording)) % 1000
    return EmbeddingBatch(
        recording=recording,
        start_s=index * 1.5,
        end_s=index * 1.5 + 3.0,
        channel=index % 2,
        embedding=(seed + index[:, None] + np.arange(dim) / 64).astype(np.float32),
    )


def takes(count: int) -> list[Take]:
    """Recordings of all kinds: short, long (streamed), silent, and failing ones."""
    draw = random.Random(20_240_501)
    found = []
    for i in range(count):
        rows = draw.choice([0, 1, 2, 3, 5, 8, 13, 40, 70])
        key = RecordingKey(f"site{i % 3}/{i:04d}.wav", 1000 + i, 1_700_000_000_000_000_000 + i)
        found.append(Take(key, rows, draw.choice([1, 3, 7, 32]), fails=draw.random() < 0.1))
    return found


def write(store: EmbeddingStore, wanted: list[Take], pauses: Iterator[float] | None = None) -> None:
    """Do what the pipeline does: skip what is done, append, commit; roll failing recordings back."""
    for take in wanted:
        if store.done().get(take.key.recording) == take.key:
            continue
        for first in range(0, take.rows, take.batch_rows):
            rows = min(take.batch_rows, take.rows - first)
            store.append(make_batch(take.key.recording, rows, first, store.header.embedding_dim))
            if pauses is not None:
                time.sleep(next(pauses))
        if take.fails:
            store.rollback()
        else:
            store.commit(take.key)


def table(store: EmbeddingStore) -> list[Row]:
    found: list[Row] = []
    for batch in store.scan():
        columns = [batch.column(name).to_pylist() for name in ("recording", "start_s", "end_s", "channel")]
        found += zip(*columns, map(tuple, matrix(batch.column("embedding")).tolist()), strict=True)
    return found


def _pauses(longest: float) -> Iterator[float]:
    draw = random.Random()
    while True:
        yield draw.random() * longest


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="longest pause after an append, in seconds")
    parser.add_argument("--dim", type=int, default=DIM)
    parser.add_argument("--hold", action="store_true", help="open the store and wait to be killed")
    options = parser.parse_args()
    store = ParquetStore(options.store, make_header(embedding_dim=options.dim), seal=SEAL)
    _say("open")
    if options.hold:
        time.sleep(60)
    write(store, takes(options.recordings), _pauses(options.pause) if options.pause else None)
    _say("closing")
    store.close()
    _say("closed")


if __name__ == "__main__":
    main()
