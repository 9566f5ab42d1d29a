"""Does each objective learn? Trains small encoders from their YAML files, and measures them before and after.

python bench/prove_objectives.py [NAME ...] --data FOLDER [--seeds 0 1 2] [--out FOLDER] [-p KEY=VALUE]

FOLDER holds `esc50_animals/` (440 clips of 5 s, 11 classes, official folds). NAME is a file of
`configs/run_configs/tiny`, all of them by default. Training hears folds 1 to 4; nothing of fold 5 reaches a model.

eat mae hubert beats distillation: accuracy of a logistic regression on standardised clip embeddings, its C chosen
    inside its training folds. `held out` is fitted on folds 1 to 4 and measured on fold 5; `5 folds` is the mean of
    all five. Before: the same seed's encoder with random weights.
clip: share of the sounds of fold 5 whose nearest caption is their own, among the captions of all classes.
classifier finetune lora: accuracy on fold 5 after the last epoch. Before: chance.

Losses are those of fold 5, after the first epoch and the last. Minutes are those of the processor.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avex import audio, load_model
from avex.configs import DatasetConfig, RunConfig
from avex.data.loading import load_clips
from avex.training.building import build_training_model
from avex.training.run import train
from avex.training.trackers import METRICS, read_metrics

CONFIGS = Path(__file__).parents[1] / "configs" / "run_configs" / "tiny"
NAMES = ("eat", "mae", "hubert", "beats", "distillation", "clip", "classifier", "finetune", "lora")
# What another run of the same seed gives to a run.
FROM = {
    "distillation": ("beats", "objective.settings.teacher={}/model.yml"),
    "finetune": ("mae", "checkpoint_path={}/model.safetensors"),
    "lora": ("mae", "checkpoint_path={}/model.safetensors"),
}
HELD_OUT = "5"
SECONDS = 5


@dataclass(frozen=True)
class Proof:
    """What one training showed: pairs of before and after."""

    loss: tuple[float, float]
    scores: dict[str, tuple[float, float]]
    steps: int
    minutes: float

    def __str__(self) -> str:
        pairs = {"loss": self.loss, **self.scores}
        shown = "  ".join(f"{name} {old:.3f} -> {new:.3f}" for name, (old, new) in pairs.items())
        return f"{shown}  ({self.steps} steps, {self.minutes:.1f} min)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help="files of configs/run_configs/tiny")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="folder of the runs; a temporary one by default")
    parser.add_argument("-p", "--patch", action="append", default=[])
    arguments = parser.parse_args()
    os.environ["AVEX_DATA"] = str(arguments.data)
    out = arguments.out or Path(tempfile.mkdtemp())
    for name in arguments.names:
        proofs = []
        for seed in arguments.seeds:
            proofs.append(prove(name, configure(name, seed, out, arguments.patch)))
            print(f"{name} {seed}: {proofs[-1]}", flush=True)
        if len(proofs) > 1:
            print(summary(name, proofs), flush=True)


def configure(name: str, seed: int, out: Path, patches: Sequence[str]) -> RunConfig:
    """The run of a file; if it needs another run that is not there yet, that one is trained first."""
    given = [f"seed={seed}", f"output_dir={out}", f"run_name={name}-{seed}"]
    if name in FROM:
        source, patch = FROM[name]
        folder = out / f"{source}-{seed}"
        if not (folder / "model.yml").is_file():
            train(configure(source, seed, out, ()))
        given.append(patch.format(folder))
    return RunConfig.from_sources(CONFIGS / f"{name}.yml", [*given, *patches])


def prove(name: str, config: RunConfig) -> Proof:
    """Train as a configuration says, and measure before and after."""
    started = time.process_time()
    result = train(config)
    minutes = (time.process_time() - started) / 60
    rows = [row for row in read_metrics(result.folder / METRICS) if "val/loss" in row]
    if config.label_type == "supervised":
        scores = {"accuracy": (1 / len(classes()), rows[-1]["val/accuracy"])}
    else:
        measure = matches if name == "clip" else probe
        old, new = (measure(model) for model in (build_training_model(config, 0), load_model(result.model)))
        scores = {key: (old[key], new[key]) for key in old}
    return Proof((rows[0]["val/loss"], rows[-1]["val/loss"]), scores, result.steps, minutes)


def summary(name: str, proofs: Sequence[Proof]) -> str:
    """Mean gain over the seeds, and how much it differs between them."""
    parts = []
    for key in proofs[0].scores:
        gains = [100 * (new - old) for old, new in (proof.scores[key] for proof in proofs)]
        after = np.mean([proof.scores[key][1] for proof in proofs])
        parts.append(
            f"{key} {after:.3f}, gain {np.mean(gains):+.1f} points (seeds {min(gains):+.1f} to {max(gains):+.1f})"
        )
    return f"{name}, {len(proofs)} seeds: {'; '.join(parts)}"


@functools.cache
def clips() -> tuple:
    return load_clips(DatasetConfig(dataset_name="esc50_animals", split="all")).clips


def classes() -> list[str]:
    return sorted({clip.labels[0] for clip in clips()})


@functools.lru_cache(maxsize=1)
def waveforms(sample_rate: int) -> torch.Tensor:
    """(N, S) of all clips."""
    sounds = [audio.read(clip.path, sample_rate=sample_rate)[0] for clip in clips()]
    return torch.stack([torch.from_numpy(sound).float()[: SECONDS * sample_rate] for sound in sounds])


@torch.inference_mode()
def embed(model: torch.nn.Module) -> np.ndarray:
    """(N, D) of all clips."""
    parts = waveforms(model.sample_rate).split(20)
    return torch.cat([model.eval().embed(part) for part in parts]).numpy()


def probe(model: torch.nn.Module) -> dict[str, float]:
    """Accuracy of a linear probe on the held-out fold, and its mean over the five folds."""
    vectors, fold = embed(model), np.array([str(clip.fold) for clip in clips()])
    labels = np.array([clip.labels[0] for clip in clips()])
    scores = {name: score(vectors, labels, fold == name) for name in sorted(set(fold))}
    return {"held out": scores[HELD_OUT], "5 folds": float(np.mean(list(scores.values())))}


def score(vectors: np.ndarray, labels: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on the test clips of a probe that is fitted on the others."""
    settings = {"l1_ratios": (0,), "use_legacy_attributes": False, "scoring": "accuracy"}
    classifier = LogisticRegressionCV(Cs=np.logspace(-3, 1, 5), cv=4, max_iter=2000, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = make_pipeline(StandardScaler(), classifier).fit(vectors[~test], labels[~test])
    return float(fitted.score(vectors[test], labels[test]))


@torch.inference_mode()
def matches(model: torch.nn.Module) -> dict[str, float]:
    """Share of the held-out sounds that are nearest to their own caption."""
    sounds = torch.from_numpy(embed(model))
    texts = model.encode_text(classes())
    best = (sounds @ texts.T).argmax(1).tolist()
    right = [
        classes()[i] == clip.labels[0]
        for i, clip in zip(best, clips(), strict=True)
        if str(clip.fold) == HELD_OUT
    ]
    return {"own caption": float(np.mean(right))}


if __name__ == "__main__":
    main()
