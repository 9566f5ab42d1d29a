"""Tables that rename the tensors of one checkpoint layout to another, made to be read by eye.

A rule is a pair of templates, such as

    "blocks.{i}.attn.{rest}"  ->  "backbone.model.blocks.{i}.attn.{rest}"

The name of a field says what it stands for: one small letter is a number (`{i}`), `{rest}` is anything, dots
included, and any other name is one part between dots (`{name}`). Choices are spelled out:
`{kind:weight|bias}`. A name that comes twice stands for the same text. Because both sides are templates, a
table can be turned around.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from avex._core.errors import ConfigError, WeightsError

V = TypeVar("V")

_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)(?::([^{}]+))?\}")


@dataclass(frozen=True)
class Rule:
    """One line of a key map.

    Attributes:
        pattern: Template that a whole key must fit.
        replacement: Template of the new key, using fields of the pattern; None drops the tensor on purpose.
        reason: Why it is dropped, for reports.

    Raises:
        ConfigError: A template is malformed, or the replacement has a field that the pattern has not.

    Example:
        >>> Rule("layers.{i}.{rest}", "encoder.{i}.{rest}").apply("layers.3.fc1.bias")
        'encoder.3.fc1.bias'
    """

    pattern: str
    replacement: str | None
    reason: str = ""
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_expression", _compile(self.pattern))
        if self.replacement is None:
            return
        if unknown := _fields(self.replacement).keys() - _fields(self.pattern).keys():
            raise ConfigError(
                f"The replacement '{self.replacement}' uses the field '{min(unknown)}', which the pattern "
                f"'{self.pattern}' does not have."
            )

    def matches(self, key: str) -> bool:
        """Tell whether the whole key fits the pattern."""
        return self._expression.fullmatch(key) is not None

    def apply(self, key: str) -> str | None:
        """Return the new key, or None when the rule drops it.

        Raises:
            WeightsError: The key does not fit the pattern.
        """
        match = self._expression.fullmatch(key)
        if match is None:
            raise WeightsError(f"The key '{key}' does not fit the pattern '{self.pattern}'.")
        if self.replacement is None:
            return None
        return _FIELD.sub(lambda found: match[found[1]], self.replacement)

    def invert(self) -> Rule:
        """Return the rule that undoes this one.

        Raises:
            ConfigError: The rule drops its keys, or loses a field.
        """
        if self.replacement is None:
            raise ConfigError(f"The rule '{self.pattern}' drops its keys; that cannot be undone.")
        choices = _fields(self.pattern)
        if lost := choices.keys() - _fields(self.replacement).keys():
            raise ConfigError(
                f"The rule '{self.pattern}' -> '{self.replacement}' loses the field '{min(lost)}', so it cannot "
                "be turned around. Keep every field on both sides."
            )

        def with_choices(found: re.Match[str]) -> str:
            spelled = choices[found[1]]
            return f"{{{found[1]}:{spelled}}}" if spelled else f"{{{found[1]}}}"

        plain = _FIELD.sub(lambda found: f"{{{found[1]}}}", self.pattern)
        return Rule(_FIELD.sub(with_choices, self.replacement), plain, self.reason)


class KeyMap:
    """An ordered table of rules; the first one that fits a key decides.

    Args:
        rules: Rules, or `(pattern, replacement)` and `(pattern, None, reason)` tuples.

    Example:
        >>> table = KeyMap([("norm.{rest}", "final_norm.{rest}"), ("{rest}", "body.{rest}")])
        >>> table.apply(["norm.bias", "conv.bias"])
        {'norm.bias': 'final_norm.bias', 'conv.bias': 'body.conv.bias'}
    """

    def __init__(self, rules: Iterable[Rule | tuple[str, str | None] | tuple[str, str | None, str]]) -> None:
        self.rules: tuple[Rule, ...] = tuple(
            rule if isinstance(rule, Rule) else Rule(*rule) for rule in rules
        )

    def rule_for(self, key: str) -> Rule | None:
        """Return the first rule that fits a key, or None."""
        return next((rule for rule in self.rules if rule.matches(key)), None)

    def covers(self, keys: Iterable[str]) -> bool:
        """Tell whether every key fits some rule."""
        return all(self.rule_for(key) is not None for key in keys)

    def apply(self, keys: Iterable[str], *, strict: bool = True) -> dict[str, str | None]:
        """Return the new key of every key, None for those that are dropped on purpose.

        Args:
            keys: Keys of a checkpoint.
            strict: Whether a key that fits no rule is an error; otherwise it keeps its name.

        Raises:
            WeightsError: A key fits no rule, or two keys would get the same name.
        """
        renamed: dict[str, str | None] = {}
        origin: dict[str, str] = {}
        unknown: list[str] = []
        for key in keys:
            rule = self.rule_for(key)
            if rule is None and strict:
                unknown.append(key)
                continue
            new = key if rule is None else rule.apply(key)
            if new is not None and origin.setdefault(new, key) != key:
                raise WeightsError(
                    f"The keys '{origin[new]}' and '{key}' would both become '{new}'. The key map does not fit "
                    "this checkpoint."
                )
            renamed[key] = new
        if unknown:
            raise WeightsError(
                f"{len(unknown)} of the {len(unknown) + len(renamed)} keys fit no rule of the key map: "
                f"{shown(unknown)}."
            )
        return renamed

    def rename(self, state: Mapping[str, V], *, strict: bool = True) -> dict[str, V]:
        """Return `state` under its new keys, without what is dropped. Values are not copied.

        Raises:
            WeightsError: As for `apply`.
        """
        return {new: state[old] for old, new in self.apply(state, strict=strict).items() if new is not None}

    def dropped(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the keys that are dropped on purpose, each with its rule's reason."""
        found = ((key, self.rule_for(key)) for key in keys)
        return {key: rule.reason for key, rule in found if rule is not None and rule.replacement is None}

    def invert(self) -> KeyMap:
        """Return the table that leads back.

        Rules that drop keys have nothing to lead back to and are left out. The order stays, so a new key that
        fits an earlier rule's replacement as well is led back by that one; keep replacements apart.

        Raises:
            ConfigError: A rule loses a field.
        """
        return KeyMap(rule.invert() for rule in self.rules if rule.replacement is not None)

    def __len__(self) -> int:
        return len(self.rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __repr__(self) -> str:
        lines = (
            f"  {rule.pattern} -> {rule.replacement or f'dropped ({rule.reason})'}" for rule in self.rules
        )
        return "\n".join(["KeyMap:", *lines])


def shown(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names, quoted, for a message."""
    return ", ".join(f"'{name}'" for name in names[:limit]) + ", ..." * (len(names) > limit)


def _fields(template: str) -> dict[str, str | None]:
    """Return the fields of a template with their spelled-out choices, if any."""
    found: dict[str, str | None] = {}
    for match in _FIELD.finditer(template):
        found[match[1]] = match[2] or found.get(match[1])
    rest = _FIELD.sub("", template)
    if "{" in rest or "}" in rest or not template:
        raise ConfigError(
            f"The template '{template}' is malformed. Fields look like '{{i}}', '{{rest}}', '{{name}}' or "
            "'{kind:weight|bias}'."
        )
    if "}{" in template:
        raise ConfigError(
            f"The template '{template}' has two fields side by side, so it is not clear where one ends. Put a "
            "dot or another letter between them."
        )
    return found


def _compile(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    seen: set[str] = set()
    choices = _fields(template)
    position = 0
    for match in _FIELD.finditer(template):
        parts.append(re.escape(template[position : match.start()]))
        name = match[1]
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{_kind(name, choices[name])})")
        seen.add(name)
        position = match.end()
    parts.append(re.escape(template[position:]))
    return re.compile("".join(parts))


def _kind(name: str, choices: str | None) -> str:
    if choices:
        return "|".join(re.escape(choice) for choice in choices.split("|"))
    if name == "rest":
        return ".+"
    return "[0-9]+" if len(name) == 1 else r"[^.]+"
