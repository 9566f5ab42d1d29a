"""Where templates are found, and which directories a template may work in."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from deep_audio_embedding._errors import Fault, TemplateFormatError, TemplateNotFoundError

BACKBONES = Path(__file__).parent / "backbones"
PROCESS = threading.RLock()
"""Held by whoever changes, or resolves a path against, the working directory: the process has only one."""
CATEGORIES = ("general_purpose", "speech", "music", "encoding")


def list_templates() -> list[str]:
    """Names of all packaged templates, as `load_model_dict` takes them.

    Example:
        >>> "general_purpose/log_mel_statistics.json" in list_templates()
        True
    """
    return [
        f"{category}/{path.name}"
        for category in CATEGORIES
        for path in sorted((BACKBONES / category).glob("*.json"))
    ]


def find_template(name: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the template `name`.

    An absolute path, or one that starts with `./` or `../`, is that file. Any other is looked for in the working
    directory, in the packaged `backbones/` and in each of its category folders.

    Raises:
        TemplateNotFoundError: Nothing found, or two different files found.
    """
    with PROCESS:
        return _find_template(os.fspath(name))


def _find_template(text: str) -> Path:
    local = Path(text)
    explicit = local.is_absolute() or text.startswith(("./", "../", ".\\", "..\\"))
    places = [local] if explicit else [local, *_packaged(local)]
    found = [place for place in places if os.path.isfile(place)]  # False, too, for names no system can hold
    different = [place for place in found[1:] if not place.samefile(found[0])]
    if different:
        raise TemplateNotFoundError(
            f"the name fits both '{found[0]}' and '{different[0]}'; give './{text}' for the one in the working "
            "directory or a longer path for the packaged one",
            file=text,
        )
    if not found:
        raise TemplateNotFoundError(_not_found(local, explicit), file=text)
    return found[0].resolve()


def _packaged(local: Path) -> Iterator[Path]:
    parts = local.parts
    if ".." in parts:
        return  # a way out of the package is not a name in it
    if parts[:1] == ("backbones",):
        local = Path(*parts[1:])
    yield BACKBONES / local
    for category in CATEGORIES:
        yield BACKBONES / category / local


def _not_found(local: Path, explicit: bool) -> str:
    import difflib

    if os.path.exists(local):
        return "not a file; give the path of a JSON file"
    names = {Path(name).stem: name for name in list_templates()}  # the common ending is no likeness
    close = [names[stem] for stem in difflib.get_close_matches(local.stem, names, n=3, cutoff=0.6)]
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close and not explicit else ""
    where = f"'{Path.cwd()}'" if explicit else f"'{Path.cwd()}' nor among the packaged templates"
    return f"no such file in {where}.{hint} See list_templates()."


def leaves_start(context: str) -> bool:
    """Whether a relative path, by its text alone, leads out of the directory it starts in."""
    path = os.path.normpath(context.replace("\\", "/"))
    return not os.path.isabs(path) and path.split(os.sep)[0] == os.pardir


def context_directory(context: str | None, *, file: str, key: str, must_exist: bool = True) -> Path:
    """Return the directory that a `*_context` key names; the working directory if there is none.

    It must lie inside the working directory once `..` and symbolic links are followed, since that is where
    `install_cmds` puts things. This catches slips and hostile data files; it is no sandbox for the commands.

    Raises:
        TemplateFormatError: The directory is outside, is missing or is no directory.
    """
    with PROCESS:
        base = Path.cwd().resolve()
        try:
            path = (base / (context or ".")).resolve()
        except (
            OSError,
            RuntimeError,
        ) as error:  # symbolic links in a circle; which of the two depends on Python
            expected = f"a directory inside the working directory '{base}'"
            raise TemplateFormatError(file, [Fault(key, expected, f"{context!r} ({error})")]) from error
    if not path.is_relative_to(base):
        expected = f"a directory inside the working directory '{base}'; start from a directory that holds it"
        raise TemplateFormatError(file, [Fault(key, expected, repr(context))])
    if must_exist and not path.is_dir():
        expected = f"a directory that exists in '{base}' (does install_dependencies, run there, create it?)"
        raise TemplateFormatError(file, [Fault(key, expected, repr(context))])
    return path
