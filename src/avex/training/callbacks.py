"""What happens beside the steps of a training: facts are written, embeddings are clustered."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from avex._core.errors import ConfigError
from avex.configs.training import ClusteringEvalConfig, RunConfig
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.metrics import clustering_scores
from avex.training.data import TrainingData
from avex.training.environment import save_run_facts
from avex.training.reduction import gather_objects

logger = logging.getLogger(__name__)


class RunFactsCallback(pl.Callback):
    """Writes what a run depends on when it really starts; a refused one leaves the files of an earlier one alone.

    Args:
        folder: Folder of the run.
        config: The run.
        encoder: Its label map, if it has one.
    """

    def __init__(self, folder: Path, config: RunConfig, encoder: LabelEncoder | None) -> None:
        self.folder, self.config, self.encoder = folder, config, encoder

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the files, in the first process."""
        if trainer.is_global_zero:
            save_run_facts(self.folder, self.config, self.encoder)


class ClusteringCallback(pl.Callback):
    """Measures every few epochs how well k-means on embeddings finds the classes.

    Each process embeds its share of the clips; all of them are clustered together.

    Args:
        config: When, which layers, which clips.
    """

    def __init__(self, config: ClusteringEvalConfig) -> None:
        self.config = config

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Measure what the encoder starts from, if wanted."""
        if self.config.run_before_training and trainer.global_step == 0:
            self._measure(trainer, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Measure every few epochs."""
        if (trainer.current_epoch + 1) % self.config.frequency == 0:
            self._measure(trainer, module)

    def _measure(self, trainer: pl.Trainer, module: Any) -> None:
        parts = gather_objects(self._embed(trainer, module))
        index = np.concatenate([part[0] for part in parts])
        index, once = np.unique(index, return_index=True)
        embeddings = np.concatenate([part[1] for part in parts])[once]
        clips = self._clips(trainer)
        names = np.array([clips[i].labels[0] if clips[i].labels else "" for i in index])
        found, counts = np.unique(names, return_counts=True)
        # A class of one clip cannot be found; a clip without a label is in none.
        kept = np.isin(names, found[(counts > 1) & (found != "")])
        _, labels = np.unique(names[kept], return_inverse=True)
        try:
            scores = clustering_scores(embeddings[kept], labels, seed=module.config.seed)
        except ConfigError as error:
            logger.warning("Embeddings were not clustered: %s", error)
            return
        values = {name.removeprefix("clustering_"): value for name, value in scores.values.items()}
        module.record({f"clustering/{name}": value for name, value in values.items()})

    def _clips(self, trainer: pl.Trainer) -> tuple[Clip, ...]:
        data: TrainingData = trainer.datamodule.data  # type: ignore[attr-defined]
        clips = data.validation if self.config.use_validation_set else data.train
        if not clips:
            raise ConfigError(
                "clustering_eval has no clips: give val_datasets, or use_validation_set: false."
            )
        return clips

    def _embed(
        self, trainer: pl.Trainer, module: Any
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        loader = trainer.datamodule.evaluation_loader(self._clips(trainer), self.config.max_samples)  # type: ignore[attr-defined]
        layers = layer_names(self.config)
        index, rows = [], []
        was_training = module.training
        module.eval()
        with torch.no_grad():
            for batch in loader:
                waves, mask = batch["raw_wav"].to(module.device), batch["padding_mask"].to(module.device)
                found = module.objective.model.embed(waves, layers=layers, padding_mask=mask)
                rows.append(found.float().cpu().numpy())
                index += batch["index"]
        module.train(was_training)
        return np.array(index, np.int64), np.concatenate(rows)


def layer_names(config: ClusteringEvalConfig) -> list[str]:
    """The layers whose embeddings are clustered."""
    return [name.strip() for name in config.layers.split(",")]
