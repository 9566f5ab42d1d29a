"""Every error this package raises on purpose. Each names the file, and the key where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TemplateError(Exception):
    """Base of all errors about a template.

    Attributes:
        file: Path of the template, or `<dict>` for one that was not read from a file.
        key: The key at fault, or `None` if the file as a whole is.
    """

    def __init__(self, problem: str, *, file: str, key: str | None = None) -> None:
        where = f"template '{file}'" + (f", key '{key}'" if key else "")
        super().__init__(printable(f"{where}: {problem}"))
        self.file = file
        self.key = key

    def __str__(self) -> str:
        # OSError and others among the builtin bases would format the arguments their own way.
        return str(self.args[0])


class TemplateNotFoundError(TemplateError, FileNotFoundError):
    """No such template, or a name which fits two different ones."""


class Fault(NamedTuple):
    """One value that is not what the format says."""

    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"key '{self.key}': " if self.key else ""
        return f"{where}expected {self.expected}, found {self.found}"


class TemplateFormatError(TemplateError, ValueError):
    """The file or its values are not what the template format says; nothing was executed.

    Attributes:
        faults: All faults that were found, each with `key`, `expected` and `found`.
    """

    def __init__(self, file: str, faults: Sequence[Fault]) -> None:
        shown = [str(fault) for fault in faults[:10]]
        if len(faults) > len(shown):
            shown.append(f"and {len(faults) - len(shown)} more")
        super().__init__("; ".join(shown), file=file)
        self.key = faults[0].key.partition("[")[0] or None
        self.faults = tuple(faults)


class InputShapeError(TemplateError, ValueError):
    """The input has another number of dimensions than the template's `in_shape`."""


class CommandError(TemplateError, RuntimeError):
    """A command of a template failed; the original error is its `__cause__`.

    Attributes:
        item: Position of the command in the list of its key, from 1.
        line: The line that failed.
    """

    def __init__(self, problem: str, *, file: str, key: str, item: int, line: str) -> None:
        super().__init__(f"item {item}, `{_shortened(line)}` {problem}", file=file, key=key)
        self.item = item
        self.line = line


class ShellCommandError(CommandError):
    """A shell command ended with an exit code other than 0.

    Attributes:
        exit_code: What the shell returned; negative if a signal ended it.
        output: The last part of what the command wrote (stdout and stderr together).
    """

    def __init__(
        self, *, file: str, key: str, item: int, line: str, exit_code: int, output: str, note: str = ""
    ) -> None:
        said = f"; its output ends with:\n{output}" if output else " and wrote nothing"
        problem = f"ended with exit code {exit_code}{note}{said}"
        super().__init__(problem, file=file, key=key, item=item, line=line)
        self.exit_code = exit_code
        self.output = output


class MissingResultError(TemplateError, RuntimeError):
    """All commands of a key ran, but did not define what they must (`model`, `x` or `y`)."""


class EntryError(TemplateError, RuntimeError):
    """The callable of a declarative template cannot be imported, or failed with the error in `__cause__`."""


def printable(text: str) -> str:
    r"""Escape what a terminal would act on or hide, so that a template cannot show other commands than it has.

    Example:
        >>> print(printable("rm -rf ~\x1b[2K\rls"))
        rm -rf ~\x1b[2K\rls
    """
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text
    )


def described(error: BaseException) -> str:
    """Name an exception, with its message if it has one."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
