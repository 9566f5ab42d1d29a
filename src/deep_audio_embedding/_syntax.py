"""Questions about pieces of text that may or may not be Python: does it compile, does it go on?"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Sequence
from itertools import accumulate

# What CPython's compiler raises for text that is not Python or is nested beyond its limits.
COMPILE_ERRORS = (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError)

_CONTINUES = re.compile(r"\s+\S|(else|elif|except|finally)\b|[)\]}]")
_BLOCK_ENDINGS = (
    "\n    pass",
    "\n    pass\nfinally:\n    pass",
    "\n    case _:\n        pass",
    "\ndef _():\n    pass",
)


def program(items: Sequence[str]) -> str:
    r"""Join items to one text; `\r` and `\r\n` end lines as they do for the compiler."""
    return "\n".join(items).replace("\r\n", "\n").replace("\r", "\n")


def compile_error(text: str) -> BaseException | None:
    """Return why `text` is not a Python program, or `None` if it is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are shown once, when the block is compiled to run
            compile(text, "<command>", "exec", dont_inherit=True)
    except COMPILE_ERRORS as error:
        return error
    return None


def python_by_chance(item: str) -> bool:
    """Whether Python that compiles is only a name, or names and literals joined by operators."""
    import ast

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(item).body
    except COMPILE_ERRORS:  # deeper than a tree may be, so no name and no sum
        return False
    if len(body) != 1 or not isinstance(body[0], ast.Expr):
        return False
    value = body[0].value
    if not isinstance(value, (ast.Name, ast.BinOp, ast.Compare)):
        return False
    acting = (ast.Call, ast.Await, ast.NamedExpr, ast.Yield, ast.YieldFrom)
    return not any(isinstance(node, acting) for node in ast.walk(value))


def is_open(item: str) -> bool:
    """Whether an item is the start of Python that goes on in the next one."""
    text = item.rstrip()
    last_line = text.rpartition("\n")[2]
    indent = last_line[: len(last_line) - len(last_line.lstrip())]
    endings = [ending.replace("\n", "\n" + indent) for ending in _BLOCK_ENDINGS] + ["\nfinally:\n    pass"]
    if any(compile_error(text + ending) is None for ending in endings):
        return True
    return text.endswith("\\") or _ends_inside_bracket_or_text(text)


def _ends_inside_bracket_or_text(text: str) -> bool:
    import io
    import tokenize

    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except tokenize.TokenError as error:
        said = str(error.args[0])
        return "multi-line" in said or "triple-quoted" in said
    except (SyntaxError, ValueError):  # an indentation, or text no tokenizer takes
        return False
    return False


def ends_of_lines(items: Sequence[str], first: int) -> list[int]:
    """Return the ends (exclusive) of the items after which no bracket, text or backslash is left open."""
    import io
    import tokenize

    closed = set()
    depth = 0
    with contextlib.suppress(
        tokenize.TokenError, SyntaxError, ValueError
    ):  # what follows is no Python: not looked at
        for token in tokenize.generate_tokens(io.StringIO(program(items[first:])).readline):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            elif token.type in (tokenize.NEWLINE, tokenize.NL) and depth <= 0:
                closed.add(token.start[0])
    rows = accumulate(program([item]).count("\n") + 1 for item in items[first:])
    return [end for end, row in enumerate(rows, start=first + 1) if row in closed]


def goes_on(items: Sequence[str], end: int) -> bool:
    """Whether what says something before `end` is a decorator, or what does so after it cannot stand alone."""
    before = next(filter(_says_something, reversed(items[:end])), "")
    after = next(filter(_says_something, items[end:]), "")
    return before.lstrip().startswith("@") or _CONTINUES.match(after) is not None


def _says_something(item: str) -> bool:
    return bool(item.strip()) and not item.lstrip().startswith("#")


def reason(error: BaseException | None) -> str:
    """Say in a few words what `compile_error` returned."""
    if isinstance(error, SyntaxError):
        return str(error.msg)
    return f"{type(error).__name__}: {error}"
