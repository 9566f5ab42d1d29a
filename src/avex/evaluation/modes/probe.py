"""Probes on stored embeddings; through the model where the probe asks for that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from avex.configs import ProbeConfig
from avex.evaluation.layer_weights import predict_weighted
from avex.evaluation.modes.base import Context, Outcome, round_scores
from avex.evaluation.predicting import Predictions, predict_rounds
from avex.evaluation.projection import scatter
from avex.evaluation.results import Saved
from avex.evaluation.scoring import canonical_metric, score_task
from avex.evaluation.tasks import Task
from avex.metrics import Score, confusion_matrix
from avex.training.probes.fitting import Recipe
from avex.training.probes.targets import Targets

_PLAIN_LAYER = "embeddings"


def run(context: Context) -> Outcome:
    """Train the experiment's probe in every round, and score what it says of the clips that it did not see."""
    if context.embeddings is None:
        from avex.evaluation.modes.online import run as run_online

        return run_online(context)
    details: dict[str, Any] = {}
    vectors = not context.probe.reads_sequences
    if vectors and len(context.layers) > 1:
        details["layers"] = layer_curve(context)
    if vectors and len(context.layers) > 1 and context.probe.aggregation == "none":
        stacked = np.stack([context.stored().vectors(layer) for layer in context.layers], 1)
        predictions, weights = predict_weighted(context.task, stacked, context.seed)
        details["layer_weights"] = dict(zip(context.layers, weights, strict=True))
    else:
        predictions = predict_rounds(context.task, context.features(), make_recipe(context))
    if vectors:
        details["scatter"] = scatter(context.task, context.stored().vectors(context.layers[-1]), context.seed)
    return outcome(context, predictions, details)


def make_recipe(context: Context) -> Recipe:
    """The experiment's probe on features that are put together already.

    `extra_config: {strength: 0.01}` fixes the regularisation C of a linear probe, which is chosen otherwise.
    """
    changes: dict[str, Any] = {
        "target_layers": [_PLAIN_LAYER],
        "freeze_backbone": True,
        "online_training": False,
    }
    if not context.probe.reads_sequences:
        changes["aggregation"] = "mean"
    options, extra = context.fit_options(), dict(context.probe.extra_config or {})
    if context.probe.probe_type == "linear" and "strength" in extra:
        options = replace(options, strength=float(extra.pop("strength")))
        changes["extra_config"] = extra or None
    probe = context.probe.model_copy(update=changes)
    return Recipe(probe, options, None, context.seed, context.device)


def layer_curve(context: Context) -> list[dict[str, Any]]:
    """The main metric of a linear probe on each layer alone."""
    recipe = Recipe(
        ProbeConfig(target_layers=[_PLAIN_LAYER]), context.fit_options(), None, context.seed, context.device
    )
    curve = []
    for layer in context.layers:
        found = predict_rounds(context.task, context.stored().vectors(layer), recipe)
        scores, main = scores_of(context, found)
        score = scores[main]
        curve.append({"layer": layer, "value": score.value, "low": score.low, "high": score.high})
    return curve


def scores_of(context: Context, predictions: Predictions) -> tuple[dict[str, Score], str]:
    """Metrics of predictions, and the name of the one that counts."""
    task = context.task
    targets = task.targets()
    scores = score_task(
        Targets(targets.values[predictions.clips], targets.classes),
        predictions.probabilities,
        task.metrics,
        groups=context.tested_groups(predictions.clips),
        resamples=context.config.bootstrap_samples,
        seed=context.seed,
    )
    wanted = [canonical_metric(name) for name in task.metrics]
    return scores, next((name for name in wanted if name in scores), next(iter(scores)))


def outcome(context: Context, predictions: Predictions, details: dict[str, Any]) -> Outcome:
    """Score predictions, by round and together, and keep them."""
    task = context.task
    scores, main = scores_of(context, predictions)
    targets = task.targets()
    truth = targets.values[predictions.clips]
    ids = [task.clips[int(i)].id for i in predictions.clips]
    saved = Saved(
        tuple(ids),
        tuple(context.tested_groups(predictions.clips)),
        predictions.rounds,
        truth,
        predictions.probabilities,
        task.classes,
    )
    if not task.multi_label:
        guess = predictions.probabilities.argmax(1)
        matrix = confusion_matrix(truth, guess, len(task.classes))
        details["confusion"] = {"classes": list(task.classes), "counts": matrix.tolist()}
    if task.folds:
        details["folds"] = round_scores(
            predictions.rounds,
            lambda rows: (
                score_task(
                    Targets(truth[rows], task.classes), predictions.probabilities[rows], [main], resamples=0
                )[main].value
            ),
        )
    details |= _classes_without(task)
    if predictions.strengths:
        details["strengths"] = list(predictions.strengths)
    return Outcome(scores, main, details, saved)


def _classes_without(task: Task) -> dict[str, Any]:
    """Classes that no clip teaches, by round, and classes that no clip tests: metrics say nothing of these."""
    table, names = task.targets().table(), np.array(task.classes)
    untaught = {r.name: names[~table[r.train].any(0)].tolist() for r in task.rounds()}
    found: dict[str, Any] = {
        "classes_not_trained": {name: those for name, those in untaught.items() if those}
    }
    found["classes_not_tested"] = names[~table[task.tested()].any(0)].tolist()
    return {name: value for name, value in found.items() if value}
