"""Settings of networks as cards, YAML files and callers give them: their names, types and ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from avex._core.errors import ConfigError, did_you_mean

Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def check_settings(kind: type, family: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the types that the fields of a dataclass have.

    Args:
        kind: The dataclass.
        family: What the model is called, for messages.
        given: Names and values; whole numbers may be written as `2.0` or `"2"`.

    Raises:
        ConfigError: No mapping, an unknown name, or a value of another type or out of range.

    Example:
        >>> @dataclasses.dataclass
        ... class Sizes:
        ...     depth: Size = 12
        >>> check_settings(Sizes, "Tiny", {"depth": "3"})
        {'depth': 3}
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{family}: settings are names with values, not {given!r}.")
    types = get_type_hints(kind, include_extras=True)
    known = [field.name for field in dataclasses.fields(kind)]
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"{family} has no setting '{name}'.{did_you_mean(str(name), known)} "
                f"Known: {', '.join(sorted(known))}."
            )
        try:
            adapter = TypeAdapter(types[name], config=ConfigDict(allow_inf_nan=False))
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise ConfigError(f"{family}: '{name}' cannot be {value!r}: {problem}.") from None
    return checked
