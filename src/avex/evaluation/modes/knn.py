"""The nearest neighbours by cosine similarity, which have nothing to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from avex.configs import ProbeConfig
from avex.evaluation.modes.base import Context, Outcome
from avex.evaluation.modes.probe import outcome
from avex.evaluation.predicting import predict_rounds
from avex.training.probes.fitting import Recipe


def run(context: Context) -> Outcome:
    """Let the `knn_neighbors` most similar training clips vote on each test clip; on the last layer chosen."""
    neighbours = context.config.knn_neighbors
    probe = ProbeConfig(probe_type="knn", target_layers=["embeddings"], knn_neighbors=neighbours)
    options = replace(context.fit_options(), standardise=False)
    recipe = Recipe(probe, options, None, context.seed, context.device)
    found = predict_rounds(context.task, context.stored().vectors(context.layers[-1]), recipe)
    details: dict[str, Any] = {"neighbours": neighbours, "layer": context.layers[-1]}
    return outcome(context, found, details)
