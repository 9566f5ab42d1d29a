"""A validator for the part of JSON Schema that `template.schema.json` uses.

The schema file is the one place which says what a template looks like; this module only interprets it: `type`,
`enum`, `minimum`, `maximum`, `minLength`, `maxLength`, `pattern`, `minItems`, `maxItems`, `maxProperties`, `items`,
`properties`, `required`, `oneOf` (of `required`), `additionalProperties` and `$ref` to `$defs`. Three points are
stricter than the standard: `16000.0` is not an integer, numbers must be finite, and texts must be storable as UTF-8
and hold no NUL character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from deep_audio_embedding._errors import Fault
from deep_audio_embedding._paths import leaves_start

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
# Keys of the two kinds of template; what neither names belongs to both.
_COMMAND_KEYS = (
    "install_cmds", "import_context", "import_cmds", "model_init_context", "model_init", "pre_proc_context",
    "pre_proc", "embed_fwd",
)  # fmt: skip
_DECLARATIVE_KEYS = ("entry", "entry_kwargs", "pre_processing", "output", "requires")


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
        faults += _mixed_kinds(template)
        for key, value in template.items():
            if str(key).endswith("_context") and isinstance(value, str) and leaves_start(value):
                faults.append(Fault(str(key), "a directory inside the working directory", _found(value)))
    return faults


def _mixed_kinds(template: dict[Any, Any]) -> Iterator[Fault]:
    if "entry" in template:
        for key in _COMMAND_KEYS:
            if key in template:
                yield Fault(
                    key, "no commands beside 'entry' (a template is declarative or has commands)", "the key"
                )
    else:
        for key in _DECLARATIVE_KEYS:
            if key in template:
                yield Fault(key, "this key only beside 'entry'", "the key in a template with commands")


def _check(value: object, rule: Mapping[str, Any], where: str) -> Iterator[Fault]:
    rule = _dereferenced(rule)
    if not _has_type(value, rule["type"]):
        yield Fault(where, _expected(rule), _found(value))
    elif isinstance(value, dict):
        yield from _check_object(value, rule, where)
    elif isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            yield Fault(where, _expected(rule), _found(value))
            return
        for number, item in enumerate(value, start=1):
            yield from _check(item, rule["items"], f"{where}[{number}]")
    elif not (_allowed_text(value, rule) if isinstance(value, str) else _allowed_number(value, rule)):
        yield Fault(where, _expected(rule), _found(value))


def _has_type(value: object, names: str | list[str]) -> bool:
    wanted = [names] if isinstance(names, str) else names
    if isinstance(value, bool):  # which is an int to Python, and no number to JSON
        return "boolean" in wanted
    return any(isinstance(value, _TYPES[name]) for name in wanted)


def _check_object(value: dict[Any, Any], rule: Mapping[str, Any], where: str) -> Iterator[Fault]:
    properties = rule.get("properties", {})
    if len(value) > rule.get("maxProperties", len(value)):
        yield Fault(where, f"at most {rule['maxProperties']} keys", _found(value))
        return
    for name in (*rule.get("required", ()), *_required_of_kind(value, rule)):
        if name not in value:
            yield Fault(name, _expected(_dereferenced(properties[name])), "no such key")
    others = rule["additionalProperties"]
    for name, item in value.items():
        if name in properties:
            yield from _check(item, properties[name], name)
        elif not others:
            shown = name[:80] if isinstance(name, str) else _found(name)
            yield Fault(shown, f"one of the known keys{_suggestion(name, properties)}", "an unknown key")
        elif isinstance(name, str) and name.isidentifier() and not name.startswith("_"):
            yield from _check(item, others, where)
        else:
            yield Fault(where, "names of arguments as keys", _found(name))


def _required_of_kind(value: dict[Any, Any], rule: Mapping[str, Any]) -> list[str]:
    """What `oneOf` requires: of the kind whose keys are there, else of the first."""
    kinds: list[list[str]] = [kind["required"] for kind in rule.get("oneOf", ())]
    present = [names for names in kinds if any(name in value for name in names)]
    return min(present or kinds[:1], key=lambda names: sum(name not in value for name in names), default=[])


def _dereferenced(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = rule.get("$ref")
    return rule if reference is None else schema()["$defs"][reference.rsplit("/", 1)[-1]]


def _allowed_number(value: object, rule: Mapping[str, Any]) -> bool:
    if "enum" in rule:
        return value in rule["enum"]
    if isinstance(value, float) and value - value != 0:  # infinite, or not a number
        return False
    return bool(rule.get("minimum", value) <= value <= rule.get("maximum", value))


def _allowed_text(text: str, rule: Mapping[str, Any]) -> bool:
    if not rule.get("minLength", 0) <= len(text) <= rule.get("maxLength", len(text)) or not _storable(text):
        return False
    if "enum" in rule:
        return text in rule["enum"]
    # Patterns of the schema are anchored; `$` of Python would let a last line end pass.
    return "pattern" not in rule or (re.search(rule["pattern"], text) is not None and "\n" not in text)


def _storable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return "\0" not in text


def _expected(rule: Mapping[str, Any]) -> str:
    kind = rule["type"]
    if "enum" in rule:
        article = "the integer " if kind == "integer" else ""
        return article + " or ".join(map(str if kind == "integer" else repr, rule["enum"]))
    if kind == "object":
        return (
            "an object with the keys of a template" if "properties" in rule else "an object of named values"
        )
    if kind == "array":
        return f"a list of {rule.get('minItems', 0)} to {rule['maxItems']} texts"
    if kind == "string":
        like = f" like {rule['pattern']}" if "pattern" in rule else " without NUL"
        return f"a text of {rule.get('minLength', 0)} to {rule['maxLength']} characters{like}"
    if isinstance(kind, list):
        return f"a text of up to {rule['maxLength']} characters, a number, true or false"
    return f"a{'n' * (kind == 'integer')} {kind} from {rule['minimum']} to {rule['maximum']}"


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
    return f" (did you mean '{close[0]}'?)" if close else " (see template.schema.json)"
