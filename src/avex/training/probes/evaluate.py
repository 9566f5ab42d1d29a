"""How good a saved probe is on other recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, WeightsError
from avex.embedding.stores import StoreHeader
from avex.models.probes import Probe, load_probe
from avex.training.probes.examples import Examples, Unit
from avex.training.probes.gather import LabelOptions, check_store, gather
from avex.training.probes.loop import predict_logits
from avex.training.probes.result import Evaluation, probabilities


def evaluate_probe(
    probe: Probe | str | Path,
    embeddings: Any,
    labels: Any,
    *,
    groups: Sequence[Any] | str | None = None,
    unit: Unit | None = None,
    label_column: str | None = None,
    allow_other_weights: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Evaluation, Examples]:
    """Predict examples with a probe, and score the predictions.

    Args:
        probe: A probe with labels, or the file of one.
        embeddings: See `fit_probe`.
        labels: See `fit_probe`; every label must be a class of the probe.
        groups: What the bootstrap resamples as one; None takes recordings.
        unit: What an example is; None takes what the probe was trained on.
        label_column: Column of the label table to take labels from.
        allow_other_weights: Take embeddings of other weights.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        The evaluation, and the examples that it is of.

    Raises:
        ConfigError: The probe has no labels, or does not read what the store holds; or a label that it does
            not know.
        WeightsError: The store was made with other weights.
    """
    loaded = probe if isinstance(probe, Probe) else load_probe(probe)
    if loaded.labels is None or loaded.config is None:
        raise ConfigError("The probe has no labels. Save it again with save_probe(..., labels=[...]).")
    stated = loaded.info.metadata
    options = LabelOptions(
        classes=loaded.labels,
        multilabel=None if "task" not in stated else stated["task"] == "multi-label",
        unit=unit or stated.get("unit"),
        label_column=label_column,
        groups=groups,
    )
    examples, _ = gather(embeddings, labels, loaded.config, options)
    if examples.header is not None:
        check_store(loaded.config, examples.header)
        if not allow_other_weights:
            _check_weights(loaded, examples.header)
    scores = probabilities(predict_logits(loaded, examples.features), examples.targets.task)
    return Evaluation.of(examples, scores, resamples=resamples, seed=seed), examples


def _check_weights(probe: Probe, header: StoreHeader) -> None:
    if probe.info.weights != header.weights_sha256:
        raise WeightsError(
            f"The probe was trained on weights {probe.info.weights} ('{probe.info.card}'), but the store "
            f"was made with {header.weights_sha256} ('{header.card}'): its scores would mean nothing. Embed "
            "again with the model of "
            "the probe, or allow other weights if you know that they are the same."
        )
