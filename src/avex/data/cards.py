"""Task and benchmark cards by name: the packaged ones, and files of the user's."""

from __future__ import annotations

import functools
import importlib.resources
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.configs.base import is_yaml_path, load_tree, validated
from avex.configs.cards import BenchmarkCard, TaskCard, benchmark_of
from avex.configs.data import BenchmarkEvaluationConfig, EvaluationSet
from avex.configs.yaml_files import parse_yaml

_PACKAGE = "avex.api.configs"
CardT = TypeVar("CardT", bound=BaseModel)


@functools.cache
def _tasks() -> dict[str, TaskCard]:
    return _packaged("datasets", TaskCard)


@functools.cache
def _benchmarks() -> dict[str, BenchmarkCard]:
    return _packaged("benchmarks", BenchmarkCard)


def _packaged(folder: str, cls: type[CardT]) -> dict[str, CardT]:
    cards = {}
    files = importlib.resources.files(_PACKAGE) / folder
    for entry in sorted(files.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yml"):
            card = validated(cls, parse_yaml(entry.read_text(encoding="utf-8"), entry.name), entry.name)
            cards[card.name] = card
    return cards


def task_names() -> list[str]:
    """Names of all packaged task cards, sorted."""
    return sorted(_tasks())


def benchmark_names() -> list[str]:
    """Names of all packaged benchmark cards, sorted."""
    return sorted(_benchmarks())


def task_card(name: str | os.PathLike[str]) -> TaskCard:
    """A task card by its name or file.

    Raises:
        UnknownNameError: There is no such card.
        ConfigError: The file is no task card.

    Example:
        >>> task_card("dog_classification").num_classes
        10
    """
    if is_yaml_path(os.fspath(name)):
        return _read(name, TaskCard)
    return _find(str(name), _tasks(), "task").model_copy(deep=True)


def benchmark_card(name: str | os.PathLike[str]) -> BenchmarkCard:
    """A benchmark card by its name or file.

    Raises:
        UnknownNameError: There is no such card.
        ConfigError: The file is no benchmark card.

    Example:
        >>> benchmark_card("small").tasks
        ['animals11', 'birds10', 'esc50_animals']
    """
    if is_yaml_path(os.fspath(name)):
        return _read(name, BenchmarkCard)
    return _find(str(name), _benchmarks(), "benchmark").model_copy(deep=True)


def find_benchmark(name: BenchmarkEvaluationConfig | str | os.PathLike[str]) -> BenchmarkEvaluationConfig:
    """The evaluation sets that a name stands for, each with its data.

    Args:
        name: A benchmark or task of `avex datasets list`, a YAML file (task card, benchmark card, or a
            `BenchmarkEvaluationConfig`), or a config.

    Raises:
        UnknownNameError: There is no such benchmark or task.
        ConfigError: The file is none of these.

    Example:
        >>> [task.name for task in find_benchmark("small").evaluation_sets]
        ['animals11', 'birds10', 'esc50_animals']
    """
    if not isinstance(name, BenchmarkEvaluationConfig):
        name = _benchmark_file(name) if is_yaml_path(os.fspath(name)) else _benchmark_named(str(name))
    sets = [resolve_set(item) for item in name.evaluation_sets]
    return BenchmarkEvaluationConfig(benchmark_name=name.benchmark_name, evaluation_sets=sets)


def named_tasks(name: str | os.PathLike[str]) -> list[TaskCard | EvaluationSet]:
    """The tasks that a name or file stands for: cards, and the evaluation sets that a file states itself.

    Raises:
        UnknownNameError: There is no such benchmark or task.
        ConfigError: The file is no card and no benchmark.

    Example:
        >>> [task.name for task in named_tasks("small")]
        ['animals11', 'birds10', 'esc50_animals']
    """
    if not is_yaml_path(os.fspath(name)):
        return [task_card(item.name) for item in _benchmark_named(str(name)).evaluation_sets]
    if "layout" in load_tree(Path(name)):
        return [task_card(name)]
    sets = _benchmark_file(name).evaluation_sets
    return [task_card(item.name) if item.is_reference else item for item in sets]


def resolve_set(item: EvaluationSet) -> EvaluationSet:
    """An evaluation set with its data: those of its card, if it has a name only.

    Raises:
        UnknownNameError: There is no card of this name.
    """
    if not item.is_reference:
        return item
    full = task_card(item.name).evaluation_set()
    changes = {key: getattr(item, key) for key in item.model_fields_set - {"name"}}
    return full.model_copy(update=changes)


def _benchmark_named(name: str) -> BenchmarkEvaluationConfig:
    if name in _benchmarks():
        return benchmark_card(name).evaluation_config()
    if name in _tasks():
        return BenchmarkEvaluationConfig(benchmark_name=name, evaluation_sets=[EvaluationSet(name=name)])
    known = [*_benchmarks(), *_tasks()]
    raise UnknownNameError(
        f"Unknown benchmark or task '{name}'.{did_you_mean(name, known)} List all with `avex datasets list`, or "
        "give the path of a .yml file."
    )


def _benchmark_file(path: str | os.PathLike[str]) -> BenchmarkEvaluationConfig:
    data = load_tree(Path(path))
    try:
        return benchmark_of(data)
    except ValueError as error:
        raise ConfigError(f"'{path}' is no benchmark: {error}.") from error


def _read(path: str | os.PathLike[str], cls: type[CardT]) -> CardT:
    card: CardT = validated(cls, load_tree(Path(path)), str(path))
    return card


def _find(name: str, cards: dict[str, Any], what: str) -> Any:
    if name not in cards:
        raise UnknownNameError(
            f"Unknown {what} '{name}'.{did_you_mean(name, cards)} List all with `avex datasets list`, or give the "
            "path of a card (.yml)."
        )
    return cards[name]
