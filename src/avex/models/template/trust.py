"""Whether a template may run: a decision of the user about the content of a file, never of a file.

A template with commands is a program, so it runs only after the user said so: `load_model(..., trust=True)`,
`--trust`, or `trust_template`. Trust is given to the content of a file, for the running process: an edited file
must be trusted anew, and nothing that a card or template says can grant it.

A declarative template needs no trust if it can do no more than build a network of an installed package:

- `entry` names a class derived from `torch.nn.Module`, or a function whose return annotation is such a class. Other
  callables (`os.system`, `torch.load`, `torch.hub.load`) are programs.
- Its package is not of the standard library, and was either imported before or lies outside the working directory
  and the template's folder, since what lies there may have come with the template. (Packages in `site-packages`
  count as installed wherever that is.)
- The values of `entry_kwargs` are numbers, true or false, or words without slash, backslash and colon that name no
  existing file; no name of an argument contains `trust`. So neither a path, a URL nor a repository gets in.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import typing
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex.configs import ModelCard
from avex.models.template.cards import TEMPLATE_MODEL, avex_errors, read_template
from deep_audio_embedding import ModelDict, describe_template

_trusted: set[str] = set()
# Where installers put packages; Debian's has a name of its own.
_INSTALLED = {"site-packages", "dist-packages"}


class TemplateTrustError(ConfigError, PermissionError):
    """A template would run code that the user did not allow; the message shows all of it."""


def trust_template(path: str | Path) -> None:
    """Allow a template, with the content that it has now, to run its commands in this process.

    Raises:
        ConfigError: There is no such file, or it is not a template.

    Example:
        >>> trust_template("general_purpose/log_mel_statistics.json")
    """
    _trusted.add(_digest(read_template(path)))


def trust_card(card: ModelCard) -> None:
    """Allow the template of a card, as it is now; other models need no trust.

    Raises:
        ConfigError: There is no such template, or the card names none.
    """
    if card.model_spec.name != TEMPLATE_MODEL:
        return
    path = (card.model_spec.extra_config or {}).get("template")
    if not isinstance(path, str):
        raise ConfigError(
            f"Model card '{card.name}': a card of '{TEMPLATE_MODEL}' must name the JSON file in "
            f"extra_config: {{template: FILE}}, found {path!r}."
        )
    trust_template(path)


def is_trusted(template: ModelDict) -> bool:
    """Whether the user allowed this content to run."""
    return _digest(template) in _trusted


def require_trust(template: ModelDict) -> None:
    """Refuse a template that has not been trusted and needs it.

    Raises:
        TemplateTrustError: It needs trust. The message shows what would be installed, imported and executed.
        ConfigError: A line of it does not compile.
    """
    if is_trusted(template):
        return
    reason = "it runs commands" if "entry" not in template else _why_no_entry(template)
    if reason is None:
        return
    with avex_errors():
        plan = describe_template(template)
    raise TemplateTrustError(
        f"Template '{template.file}' was not run: {reason}. Read what it would do:\n\n{plan}\n\n"
        "If you want that, pass trust=True to load_model, or --trust on the command line. "
        "install_cmds run only with `avex template run --install`."
    )


def check_entry(template: ModelDict, entry: Any) -> None:
    """Refuse an imported callable that makes something else than a network, unless the template is trusted.

    Raises:
        TemplateTrustError: It is no class or annotated factory of `torch.nn.Module`.
    """
    if is_trusted(template) or _makes_a_module(entry):
        return
    raise TemplateTrustError(
        f"Template '{template.file}' was not run: '{template['entry']}' is neither a class derived from "
        "torch.nn.Module nor a function whose return annotation is one, so it may do anything. Pass trust=True to "
        "load_model, or --trust on the command line, if you know what it does."
    )


def _digest(template: ModelDict) -> str:
    import json

    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()


def _why_no_entry(template: ModelDict) -> str | None:
    """What about a declarative template needs trust before anything is imported, or None."""
    package = template["entry"].partition(":")[0].partition(".")[0]
    if package in sys.stdlib_module_names or package in ("builtins", "__main__"):
        return f"'{template['entry']}' belongs to Python's standard library, which has no networks"
    for name, value in template.get("entry_kwargs", {}).items():
        if "trust" in name.lower():
            return f"entry_kwargs has '{name}', which lets a model bring code"
        if isinstance(value, str) and (set(value) & set("/\\:") or os.path.exists(value)):
            return (
                f"the value {value!r} of '{name}' in entry_kwargs may name a file, a repository or an address"
            )
    if package not in sys.modules and (place := _local_place(package, Path(template.file).parent)):
        return f"the package '{package}' lies in '{place}', so it may have come with the template"
    return None


def _local_place(package: str, folder: Path) -> Path | None:
    """Where a package that was not imported yet lies, if that is the working directory or the template's folder."""
    found = importlib.util.find_spec(package)
    if found is None:  # importing it will say so
        return None
    places = [*(found.submodule_search_locations or ()), *([found.origin] if found.origin else ())]
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")]
    for place in (Path(place).resolve() for place in places):
        if any(place.is_relative_to(path) for path in installed) or _INSTALLED & {*place.parts}:
            continue
        if any(place.is_relative_to(local.resolve()) for local in (Path.cwd(), folder)):
            return place
    return None


def _makes_a_module(entry: Any) -> bool:
    from torch import nn

    made = entry
    if not inspect.isclass(entry):
        try:
            made = typing.get_type_hints(entry).get("return")
        except (
            NameError,
            TypeError,
            AttributeError,
            SyntaxError,
            ValueError,
        ):  # an annotation that cannot be looked up says nothing
            return False
    return inspect.isclass(made) and issubclass(made, nn.Module)
