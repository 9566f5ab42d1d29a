"""A small world to evaluate in: tones of four classes in three folds, and a tiny encoder with seeded weights."""

import csv
from pathlib import Path

import numpy as np
import soundfile
import yaml

from avex.configs.evaluation import EvaluateConfig
from avex.testing.tiny import tiny_card

RATE = 16_000
CLASSES = {"frog": 400.0, "newt": 1100.0, "owl": 2300.0, "wren": 5000.0}


def write_clips(folder: Path, each=6, folds=3, noise=0.3, split=False) -> Path:
    """Tones in noise, and their manifest with folds (or with splits)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for name, pitch in CLASSES.items():
        for i in range(each):
            seconds = 1.0 + 0.25 * (i % 2)
            time = np.arange(round(seconds * RATE)) / RATE
            wave = np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * time)
            path = folder / f"{name}_{i}.wav"
            soundfile.write(path, 0.3 * wave + noise * 0.3 * rng.standard_normal(len(time)), RATE)
            part = (
                ("train", "train", "train", "test", "test", "validation")[i % 6] if split else 1 + i % folds
            )
            rows.append({"path": path.name, "label": name, "split" if split else "fold": part})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def write_model(folder: Path, family="beats", seed=0) -> Path:
    """A card of a tiny encoder, as a file."""
    card = tiny_card(family, folder, seed=seed, num_classes=None)
    path = folder / f"tiny_{family}_{seed}.yml"
    path.write_text(yaml.safe_dump(card.model_dump(mode="json", exclude_none=True)))
    return path


def settings(folder: Path, manifest: Path, model: Path, **changes):
    """Fields of an `EvaluateConfig` for them."""
    data = {"dataset_name": "manifest", "data_root": str(manifest)}
    if manifest.parent.name == "split":
        named = {part: {**data, "split": part} for part in ("train", "validation", "test")}
    else:
        named = {"folds": {**data, "split": "all"}}
    fields = {
        "dataset_config": {
            "benchmark_name": "ponds",
            "evaluation_sets": [{"name": "tones", **named, "metrics": ["accuracy", "balanced_accuracy"]}],
        },
        "experiments": [{"run_name": "tiny", "model": str(model), "layers": "last_layer"}],
        "save_dir": str(folder / "out"),
        "bootstrap_samples": 100,
        "few_shot": {"shots": [1, 2], "seeds": 3},
        "training_params": {"train_epochs": 2, "lr": 1e-3, "batch_size": 8},
        "seed": 3,
    }
    return {**fields, **changes}


def config(folder: Path, manifest: Path, model: Path, **changes) -> EvaluateConfig:
    """An evaluation of them."""
    return EvaluateConfig(**settings(folder, manifest, model, **changes))
