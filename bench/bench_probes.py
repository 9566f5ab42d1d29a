"""Probes: time of a linear probe against scikit-learn, and the accuracy of all types on labelled recordings.

    python bench/bench_probes.py                       fit and predict, 10,000 x 1024 and 50 classes, ratios
    python bench/bench_probes.py --audio FOLDER        accuracy over the given folds; writes results as JSON
    python bench/bench_probes.py --figure docs/_static/probe-comparison.png     draws those results

FOLDER holds sets (esc50_animals, animals11, birds10), each with audio/ and manifest.csv. Embeddings are BirdNET's,
of 3-s windows every second. On a shared machine set OMP_NUM_THREADS=1 and read processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import avex
from avex.training.probes import cross_validate_probe

SETS = {
    "esc50_animals": "11 animals, 440 clips",
    "animals11": "11 animals, 55 clips",
    "birds10": "10 birds, 40 clips",
}
TYPES = ("linear", "prototype", "knn", "mlp", "attention_pooling", "lstm", "attention", "transformer")
RESULTS = Path("probe-comparison.json")


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of a call, and what it returned."""
    start = time.process_time()
    value = function()
    return time.process_time() - start, value


def speed(n: int, d: int, c: int) -> None:
    """Fit and predict at one strength, and the loss that each of both arrives at."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    y = rng.integers(c, size=n)
    x = rng.normal(size=(c, d))[y] * 0.3 + rng.normal(size=(n, d))
    x = (x @ (rng.normal(size=(d, d)) * np.linspace(0.1, 3, d) / d**0.5)).astype(np.float32)
    scaled = StandardScaler().fit_transform(x)
    print(f"{n} x {d}, {c} classes, C = 0.01; processor time in s (ratio to scikit-learn's default)")
    avex.fit_probe(x[:200], y[:200] % 2, split=None, strength=0.01)  # imports are not what is measured
    reference = None
    for tol in (1e-4, 1e-6):
        model = LogisticRegression(C=0.01, max_iter=3000, tol=tol)
        took, _ = seconds(lambda model=model: model.fit(scaled, y))
        reference = reference or took
        value = objective(model.coef_, model.intercept_, scaled, y)
        print(f"  scikit-learn, tol {tol:g}: {took:6.2f} ({took / reference:4.1f}), objective {value:.4f}")
    took, fit = seconds(lambda: avex.fit_probe(x, y, split=None, strength=0.01))
    weight = fit.probe.classifier.weight.detach().numpy()
    value = objective(weight, fit.probe.classifier.bias.detach().numpy(), scaled, y)
    print(f"  avex, C given:          {took:6.2f} ({took / reference:4.1f}), objective {value:.4f}")
    took, fit = seconds(lambda: avex.fit_probe(x, y, split=None))
    print(f"  avex, C chosen:         {took:6.2f} ({took / reference:4.1f}), C = {fit.strength.strength:g}")
    theirs, _ = seconds(lambda: model.predict_proba(scaled))
    ours, _ = seconds(lambda: fit.predict_proba(x))
    print(f"  predict: scikit-learn {theirs:.3f}, avex with standardisation {ours:.3f} ({ours / theirs:.1f})")


def objective(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """What both minimise, in double precision."""
    logits = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    top = logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(y)), y]
    return float(0.01 * losses.sum() + 0.5 * np.square(weight, dtype=np.float64).sum())


def compare(audio: Path, types: list[str], stores: Path) -> None:
    """Accuracy of each type on each set, over its folds."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stores.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        store = avex.embed(audio / name / "audio", "birdnet", stores / f"{name}.parquet", overlap=2.0)
        for kind in types:
            took, result = seconds(
                lambda kind=kind, store=store, name=name: cross_validate_probe(
                    store, audio / name / "manifest.csv", kind, folds="fold"
                )
            )
            score, (mean, deviation) = result.metrics["accuracy"], result.over_folds()["accuracy"]
            results.setdefault(name, {})[kind] = {
                "accuracy": score.value, "low": score.low, "high": score.high,
                "fold_mean": mean, "fold_sd": deviation, "seconds": took,
            }  # fmt: skip
            print(
                f"{name:14} {kind:18} {score}  folds {mean:.3f} ± {deviation:.3f}  {took:6.1f} s", flush=True
            )
            RESULTS.write_text(json.dumps(results, indent=1))


def draw(path: Path) -> None:
    """Accuracy with intervals, one panel per set."""
    from matplotlib.figure import Figure

    results = json.loads(RESULTS.read_text())
    figure = Figure(figsize=(9, 3.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True)
    for axes, (name, scores) in zip(panels, results.items(), strict=True):
        kinds = [kind for kind in TYPES if kind in scores]
        rows = np.arange(len(kinds))[::-1]
        values = np.array([[scores[kind][key] for key in ("accuracy", "low", "high")] for kind in kinds])
        errors = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
        axes.errorbar(
            values[:, 0], rows, xerr=errors, fmt="o", color="#1f6f8b", ecolor="#9aa5b1", ms=5, capsize=2
        )
        axes.set_yticks(rows, [kind.replace("_", " ") for kind in kinds])
        axes.set_title(SETS[name], fontsize=10)
        axes.set_xlim(0.58, 1.02)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[len(panels) // 2].set_xlabel("accuracy out of fold (share of clips), with 95 % bootstrap interval")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--stores", type=Path, default=Path("bench-stores"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--size", type=int, nargs=3, default=(10_000, 1024, 50), metavar=("N", "D", "C"))
    arguments = parser.parse_args()
    if arguments.audio:
        compare(arguments.audio, arguments.types, arguments.stores)
    if arguments.figure:
        draw(arguments.figure)
    if not (arguments.audio or arguments.figure):
        speed(*arguments.size)


if __name__ == "__main__":
    main()
