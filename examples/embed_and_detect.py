"""Embeddings and selection tables of a folder.

    python examples/embed_and_detect.py [RECORDINGS [OUTPUT]]

Does in Python what `avex embed` and `avex predict` do on the command line, then finds similar windows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import avex
from avex.detection import summarise
from avex.embedding.embed import RunReport

RECORDINGS = Path(__file__).parent / "audio"


def main(recordings: Path = RECORDINGS, output: Path = Path("example-output")) -> None:
    output.mkdir(parents=True, exist_ok=True)

    # Run it again and it goes on: what is in the table already is not embedded twice.
    report = RunReport()
    store = avex.embed(recordings, "birdnet", output / "embeddings.parquet", report=report)
    vectors = store.to_numpy()
    print(
        f"{vectors.shape[0]} windows of {len(store.recordings())} recordings, {vectors.shape[1]} numbers each"
    )
    for problem in report.problems:
        print(f"{problem.severity}: {problem.message}")

    # Only species that are expected in central Germany in the first half of May.
    found = avex.predict(
        recordings,
        "birdnet",
        output / "tables",
        formats=["raven", "csv"],
        combined=True,
        lat=51.5,
        lon=11.9,
        week=18,
        merge_consecutive=True,
    )
    for species in summarise(found):
        print(f"{species.common_name}: {species.detections} detections, best {species.max_confidence:.3f}")
    print(f"{len(found.files)} tables in {output / 'tables'}")

    nearest, similarity = most_similar(vectors, query=0)
    where = [(row["recording"], row["start_s"]) for batch in store.scan() for row in batch.to_pylist()]
    recording, start_s = where[nearest]
    print(f"Most like the first window: {Path(recording).name} at {start_s:g} s (cosine {similarity:.2f})")


def most_similar(vectors: np.ndarray, query: int) -> tuple[int, float]:
    """The window that points in the direction most like that of another, itself left out."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit[query]
    cosine[query] = -1
    return int(cosine.argmax()), float(cosine.max())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
