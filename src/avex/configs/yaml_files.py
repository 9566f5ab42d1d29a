"""Reading YAML, and changing single values of it from the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from avex._core.errors import ConfigError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse YAML text that must hold a mapping.

    Raises:
        ConfigError: Not YAML, not a mapping, or a name that is given twice.
    """
    try:
        data = _load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{source}' is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"'{source}' must hold a mapping of names to values, not {type(data).__name__}.")
    return data


def _load(text: str) -> Any:
    """What YAML text holds; a name twice in one mapping, of which YAML would take the last, is an error."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_names(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_names(root: yaml.Node) -> None:
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # of an anchor, which may be named many times
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            names: set[tuple[str, str]] = set()
            for key, value in node.value:
                waiting.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in names:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key.value}' is there twice", key.start_mark
                    )
                names.add((key.tag, key.value))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: The file is missing, is not UTF-8, not YAML, or not a mapping.

    Example:
        >>> read_yaml("my_model.yml")["model_spec"]["name"]  # doctest: +SKIP
        'efficientnet'
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"Config file '{path}' does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Config file '{path}' cannot be read as UTF-8 text: {error}") from error
    return parse_yaml(text, str(path))


def apply_patches(config: dict[str, Any], patches: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `config` with values replaced by `key.sub[0].name=value` patches.

    Values are parsed as YAML, so `lr=1e-4`, `layers=[1, 2]` and `name=null` mean what they look like.

    Raises:
        ConfigError: A patch has no `=`, or its path leads through something that is not a mapping or list.

    Example:
        >>> apply_patches({"training_params": {"lr": 0.1}}, ["training_params.lr=0.01"])
        {'training_params': {'lr': 0.01}}
    """
    result = copy.deepcopy(config)
    for patch in patches:
        path, equals, text = patch.partition("=")
        keys = _split_path(path)
        if not equals or not keys:
            raise ConfigError(f"Patch '{patch}' must look like key.sub=value.")
        value = _parse_scalar(text, patch)
        target: Any = result
        for depth, key in enumerate(keys[:-1]):
            if isinstance(target, dict) and isinstance(key, str):
                target = target.setdefault(key, {})
            else:
                target = _item(target, key, patch, depth)
        _assign(target, keys[-1], value, patch)
    return result


def _split_path(path: str) -> list[str | int]:
    parts = re.findall(r"\[\d+\]|[^.\[\]]+", path.strip())
    return [int(part[1:-1]) if part.startswith("[") else part for part in parts]


def _parse_scalar(text: str, patch: str) -> Any:
    # YAML 1.1 reads 1e-4 as a string; a user means the number.
    if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text.strip()):
        return float(text)
    try:
        return yaml.load(text, Loader=_Loader) if text.strip() else ""
    except UnicodeEncodeError:  # the name of a file, in bytes that are not UTF-8
        return text
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of patch '{patch}' is not valid YAML: {error}") from error


def _item(target: Any, key: str | int, patch: str, depth: int) -> Any:
    try:
        if isinstance(target, list) and isinstance(key, int):
            return target[key]
    except IndexError as error:
        raise ConfigError(f"Patch '{patch}': index {key} is out of range ({len(target)} items).") from error
    raise ConfigError(f"Patch '{patch}': step {depth + 1} ('{key}') leads into {type(target).__name__}.")


def _assign(target: Any, key: str | int, value: Any, patch: str) -> None:
    in_mapping = isinstance(target, dict) and isinstance(key, str)
    in_list = isinstance(target, list) and isinstance(key, int) and key < len(target)
    if not in_mapping and not in_list:
        raise ConfigError(f"Patch '{patch}' cannot set '{key}' in {type(target).__name__}.")
    target[key] = value
