"""Results of one experiment: other settings get other names; of results that were made anew, the newest counts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from avex.evaluation.results import Result

# What belongs to the task, or makes no difference but to rounding and intervals.
_APART = ("schema", "task", "max_seconds", "mode", "seed", "device", "bootstrap_samples")
_PROBING = ("probe", "finetune")
_PREFIXES = ("probe.", "training_params.", "few_shot.", "model.card.model_spec.", "model.card.", "model.")
_LONGEST = 32
_DIGITS = 8


def distinguish(
    results: Iterable[Result], column: Callable[[Result], Any]
) -> tuple[list[Result], list[Result]]:
    """Name experiments by the settings that differ between their results in a mode, and sort out what is old.

    Args:
        results: Results.
        column: What makes results comparable, such as task, version and metric.

    Returns:
        Results that count, in their order, under names such as `birdnet (knn_neighbors=1)` where an experiment has
        results of several settings; and those that newer ones of the same settings and seed replace.
    """
    everything = list(results)
    newest: dict[tuple[Any, ...], int] = {}
    for number, result in enumerate(everything):
        key = (result.mode, result.experiment, column(result), _text(settings_of(result)), result.seed)
        if key not in newest or everything[newest[key]].finished_utc <= result.finished_utc:
            newest[key] = number
    current = sorted(newest.values())
    counts = set(current)
    names = _names([everything[number] for number in current])
    counting = [replace(everything[n], experiment=name) for n, name in zip(current, names, strict=True)]
    return counting, [result for number, result in enumerate(everything) if number not in counts]


def settings_of(result: Result) -> dict[str, Any]:
    """Settings that tell results of an experiment apart, flat: `{"probe.probe_type": "linear", ...}`."""
    chosen = {name: value for name, value in result.settings.items() if name not in _APART}
    if result.mode not in _PROBING and "probe" in chosen:
        chosen["probe"] = {"target_layers": chosen["probe"].get("target_layers")}
    flat = _flat(chosen)
    flat.pop("model.seed", None)  # of random weights: the mean over seeds is over these, too
    return flat


def _names(results: Sequence[Result]) -> list[str]:
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, result in enumerate(results):
        alike[result.mode, result.experiment].append(number)
    names = [result.experiment for result in results]
    for numbers in alike.values():
        settings = [settings_of(results[number]) for number in numbers]
        known = dict.fromkeys(name for own in settings for name in own)
        differing = [name for name in known if len({_text(own.get(name)) for own in settings}) > 1]
        for number, own in zip(numbers, settings, strict=True) if differing else ():
            said = ", ".join(f"{_short(name)}={_value(name, own.get(name))}" for name in differing)
            names[number] = f"{names[number]} ({said})"
    return names


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            found |= _flat(item, f"{prefix}{name}.")
        else:
            found[prefix + name] = item
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix).removeprefix("extra_config.")


def _value(name: str, value: Any) -> str:
    if name.endswith("sha256") and value is not None:
        return str(value)[:_DIGITS]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
