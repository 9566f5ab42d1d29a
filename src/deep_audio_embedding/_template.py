"""Reading a template: strict JSON in, a checked dict out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deep_audio_embedding._errors import Fault, TemplateFormatError
from deep_audio_embedding._paths import find_template
from deep_audio_embedding._schema import find_faults

MAX_BYTES = 1 << 18
"""Size limit of a template file. Published ones have about 2 kB; weights and data do not belong into one."""


class ModelDict(dict[str, Any]):
    """A template as a plain dict which remembers its file.

    Attributes:
        file: Absolute path of the JSON file, or `<dict>` if there is none.
    """

    def __init__(self, values: Mapping[str, Any], file: str = "<dict>") -> None:
        super().__init__(values)
        self.file = file


def load_model_dict(path: str | os.PathLike[str]) -> ModelDict:
    """Read and check a JSON template; nothing of it is executed.

    Args:
        path: An absolute path, a path that starts with `./` or `../`, or a name that is looked for in the working
            directory and among the packaged templates: `general_purpose/log_mel_statistics.json`,
            `backbones/general_purpose/log_mel_statistics.json` and `log_mel_statistics.json` are the same.

    Returns:
        The template; a dict with the attribute `file`.

    Raises:
        TemplateNotFoundError: There is no such file, or the name fits two different files.
        TemplateFormatError: The file is larger than 256 KiB, no UTF-8, no JSON, nested too deeply, repeats a key,
            or a value is not what `template.schema.json` says. All faults of the values are listed.

    Example:
        >>> load_model_dict("general_purpose/log_mel_statistics.json")["sample_rate"]
        16000
    """
    file = find_template(path)
    return checked(ModelDict(_read(file), str(file)))


def checked(template: Mapping[str, Any]) -> ModelDict:
    """Return `template` as a `ModelDict` if it is valid.

    Raises:
        TemplateFormatError: It is not.
    """
    file = getattr(template, "file", "<dict>")
    if not isinstance(template, dict):
        raise TemplateFormatError(
            file, [Fault("", "a dict, as load_model_dict returns", type(template).__name__)]
        )
    faults = find_faults(template)
    if faults:
        raise TemplateFormatError(file, faults)
    return template if isinstance(template, ModelDict) else ModelDict(template)


def _read(file: Path) -> dict[str, Any]:
    import json

    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _unreadable(file, f"at most {MAX_BYTES} bytes", f"{file.stat().st_size} bytes")
    try:
        # Editors on Windows put a byte order mark first.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(file, "UTF-8 text", f"byte 0x{data[error.start]:02x} at {error.start}") from error
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except RecursionError:
        # Its traceback is a thousand frames of the JSON reader: of no use to anyone.
        raise _unreadable(file, "a flat JSON object", "JSON nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise _unreadable(file, "JSON", where) from error
    except _StrictJSONError as error:
        raise TemplateFormatError(str(file), [error.fault]) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise _unreadable(file, "JSON", str(error)) from error
    if not isinstance(value, dict):
        raise _unreadable(file, "a JSON object", f"a {type(value).__name__}")
    return value


class _StrictJSONError(ValueError):
    """JSON that Python's reader would accept and that has no single meaning."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _StrictJSONError(Fault(key[:80], "each key once", "the key twice"))
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise _StrictJSONError(Fault("", "JSON", f"the constant {name}, which JSON does not have"))


def _unreadable(file: Path, expected: str, found: str) -> TemplateFormatError:
    return TemplateFormatError(str(file), [Fault("", expected, found)])
