"""A validator for the part of JSON Schema that `template.schema.json` uses.

The schema file is the one place which says what a template looks like; this module only interprets it:
`type`, `enum`, `minimum`, `maximum`, `minLength`, `maxLength`, `minItems`, `maxItems`, `items`, `properties`,
`required`, `additionalProperties: false` and `$ref` to `$defs`. Two points are stricter than the standard:
`16000.0` is not an integer, and texts must be storable as UTF-8 and hold no NUL character.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from deep_audio_embedding._errors import Fault
from deep_audio_embedding._paths import leaves_start

_TYPES: Mapping[str, type] = {"object": dict, "array": list, "string": str, "integer": int}


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """Return the schema of templates, read once."""
    import json

    text = Path(__file__).with_name("template.schema.json").read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)
    return value


def find_faults(template: object) -> list[Fault]:
    """Return everything about `template` that is not what the format says; empty if it is valid."""
    faults = list(_check(template, schema(), ""))
    if isinstance(template, dict):
        for key, value in template.items():
            if str(key).endswith("_context") and isinstance(value, str) and leaves_start(value):
                faults.append(Fault(str(key), "a directory inside the working directory", _found(value)))
    return faults


def _check(value: object, rule: Mapping[str, Any], where: str) -> Iterator[Fault]:
    rule = _dereferenced(rule)
    if isinstance(value, bool) or not isinstance(value, _TYPES[rule["type"]]):
        yield Fault(where, _expected(rule), _found(value))
    elif isinstance(value, dict):
        yield from _check_object(value, rule, where)
    elif isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            yield Fault(where, _expected(rule), _found(value))
            return
        for number, item in enumerate(value, start=1):
            yield from _check(item, rule["items"], f"{where}[{number}]")
    elif isinstance(value, str):
        if not rule.get("minLength", 0) <= len(value) <= rule["maxLength"] or not _storable(value):
            yield Fault(where, _expected(rule), _found(value))
    elif not _allowed_number(value, rule):
        yield Fault(where, _expected(rule), _found(value))


def _check_object(value: dict[Any, Any], rule: Mapping[str, Any], where: str) -> Iterator[Fault]:
    properties = rule["properties"]
    for name in rule["required"]:
        if name not in value:
            yield Fault(name, _expected(_dereferenced(properties[name])), "no such key")
    for name, item in value.items():
        if name in properties:
            yield from _check(item, properties[name], name)
        else:
            shown = name[:80] if isinstance(name, str) else _found(name)
            yield Fault(shown, f"one of the known keys{_suggestion(name, properties)}", "an unknown key")


def _dereferenced(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = rule.get("$ref")
    return rule if reference is None else schema()["$defs"][reference.rsplit("/", 1)[-1]]


def _allowed_number(value: object, rule: Mapping[str, Any]) -> bool:
    if "enum" in rule:
        return value in rule["enum"]
    return bool(rule["minimum"] <= value <= rule["maximum"])


def _storable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return "\0" not in text


def _expected(rule: Mapping[str, Any]) -> str:
    kind = rule["type"]
    if kind == "object":
        return "an object with the keys of a template"
    if kind == "array":
        return f"a list of {rule.get('minItems', 0)} to {rule['maxItems']} texts"
    if kind == "string":
        return f"a text of {rule.get('minLength', 0)} to {rule['maxLength']} characters without NUL"
    if "enum" in rule:
        return "the integer " + " or ".join(str(choice) for choice in rule["enum"])
    return f"an integer from {rule['minimum']} to {rule['maximum']}"


def _found(value: object) -> str:
    """Describe a value in a few words, whatever its size or depth."""
    name = type(value).__name__
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"a text of {len(value)} characters, {value[:40]!r}..."
    if value is None or isinstance(value, (bool, float)):
        return f"{value!r} ({name})"
    if isinstance(value, int):
        return (
            f"{value!r} ({name})" if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"
        )
    if isinstance(value, (list, tuple, dict)):
        return f"a {name} of {len(value)} items"
    return f"a {name}"


def _suggestion(name: object, properties: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(str(name)[:80], properties, n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else f" ({', '.join(properties)})"
