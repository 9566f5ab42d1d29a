"""Telling Python from shell in a list of commands, and compiling what is Python.

One item of a list is one shell command, or Python. Python that spans several items (a `for` and its body, an open
bracket) is joined to one block. Everything is sorted and compiled before the first command runs, so that a syntax
error in the last item leaves nothing half done.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

from deep_audio_embedding._errors import CommandError
from deep_audio_embedding._syntax import (
    COMPILE_ERRORS,
    compile_error,
    ends_of_lines,
    goes_on,
    is_open,
    program,
    python_by_chance,
    reason,
)

# Words no shell command starts with (`import` of ImageMagick excepted, which nobody means), and assignments with
# spaces around the sign, which no shell has. A mistake in such a line is a mistake in Python.
_SURELY_PYTHON = re.compile(
    r"(import|from|def|class|with|try|except|finally|elif|raise|assert|del|else:|try:|finally:)(\s|$)"
    r"|[A-Za-z_][\w.]*(\[[^\]]*\])?(\s*,\s*\w+)*\s+[-+*/@|&^%]?=\s"
)
_PLAIN_CD = re.compile(r"""\s*cd\s+("[^"`\\]+"|'[^']+'|[^\s"'`\\;&|<>()]+)\s*""")


class Block(NamedTuple):
    """Consecutive items that run as one.

    Attributes:
        kind: `python`, `shell`, or `cd` for a change of directory that holds for the blocks after it.
        first: Position of the first item in its list, from 0.
        items: The items; exactly one unless `kind` is `python`.
        error: Why a shell command is not Python; empty for the other kinds.
    """

    kind: str
    first: int
    items: tuple[str, ...]
    error: str = ""

    @property
    def text(self) -> str:
        """The items as one program, with the line ends that Python counts."""
        return program(self.items)


def locate(items: Sequence[str], line_number: int) -> tuple[int, str]:
    r"""Return (item from 1, line) for a line number of the joined program.

    Example:
        >>> locate(["a = 1", "if a:\n    b = 2", "c = 3"], 3)
        (2, '    b = 2')
    """
    start = 1
    for number, item in enumerate(items, start=1):
        lines = program([item]).split("\n")
        if line_number < start + len(lines):
            return number, lines[max(line_number - start, 0)]
        start += len(lines)
    return len(items), items[-1]


def directory_of_cd(command: str) -> str | None:
    """Return the directory of a plain `cd DIR`, or `None` for any other command."""
    match = _PLAIN_CD.fullmatch(command)
    return match[1].strip("\"'") if match else None


def shell_blocks(items: Sequence[str]) -> list[Block]:
    """Sort a list that holds shell commands only."""
    return [
        Block("shell" if directory_of_cd(item) is None else "cd", number, (item,))
        for number, item in enumerate(items)
        if item.strip()
    ]


def mixed_blocks(items: Sequence[str], *, file: str, key: str) -> list[Block]:
    """Sort a list of Python and shell commands.

    An item is Python if it compiles, alone or together with the items after it; the rest is shell. So is what
    compiles by chance: `ls -la` and `patch -p1 < a.diff` are differences, of no effect in Python. An item that can
    only be meant as Python and does not compile is an error.

    Raises:
        CommandError: Python with a syntax error, or a block or bracket that is never closed.

    Example:
        >>> [block.kind for block in mixed_blocks(["pip install x", "cd a", "import os"], file="f", key="k")]
        ['shell', 'cd', 'python']
    """
    blocks = []
    first = 0
    while first < len(items):
        if directory_of_cd(items[first]) is not None:
            blocks.append(Block("cd", first, (items[first],)))
            first += 1
            continue
        end = _end_of_python(items, first, file, key)
        if end > first:
            blocks.append(Block("python", first, tuple(items[first:end])))
        else:
            end = first + 1
            blocks.append(_shell_block(items[first], first, file, key))
        first = end
    return blocks


def compiled(items: Sequence[str], filename: str, *, file: str, key: str, first: int = 0) -> CodeType:
    """Compile the items from `first` on, with line numbers as in the whole program of their key.

    Raises:
        CommandError: They do not compile.
    """
    lines_before = program(items[:first]).count("\n") + 1 if first else 0
    try:
        return _compiled("\n" * lines_before + program(items[first:]), filename)
    except COMPILE_ERRORS as error:
        number = getattr(error, "lineno", None) or lines_before + 1
        raise _not_python(error, items, number, file, key) from error


@lru_cache(maxsize=128)
def _compiled(text: str, filename: str) -> CodeType:
    # dont_inherit: the __future__ imports of this module are not the template's.
    return compile(text, filename, "exec", dont_inherit=True)


def _end_of_python(items: Sequence[str], first: int, file: str, key: str) -> int:
    """Return the end (exclusive) of the Python block that starts at `first`; `first` if there is none."""
    error = compile_error(items[first])
    if python_by_chance(items[first]) if error is None else not is_open(items[first]):
        return first
    # Where all brackets are closed and the next item stands alone, more items cannot make it whole.
    ends = (end for end in ends_of_lines(items, first) if not goes_on(items, end))
    end = next(ends, len(items))
    error = compile_error(program(items[first:end]))
    if error is None:
        return end
    lines_before = program(items[:first]).count("\n") + 1 if first else 0
    raise _not_python(
        error, items, lines_before + (getattr(error, "lineno", None) or 1), file, key
    ) from error


def _shell_block(item: str, first: int, file: str, key: str) -> Block:
    error = compile_error(item)
    if error is not None and _SURELY_PYTHON.match(item.lstrip()):
        number = getattr(error, "lineno", None) or 1
        problem = f"is not valid Python: {reason(error)}"
        line = locate([item], number)[1]
        raise CommandError(problem, file=file, key=key, item=first + 1, line=line) from error
    return Block("shell", first, (item,), reason(error) if error else "a bare expression without effect")


def _not_python(
    error: BaseException | None, items: Sequence[str], line_number: int, file: str, key: str
) -> CommandError:
    item, line = locate(items, line_number)
    return CommandError(f"is not valid Python: {reason(error)}", file=file, key=key, item=item, line=line)
