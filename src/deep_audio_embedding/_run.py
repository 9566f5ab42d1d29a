"""Running commands: Python in a scope, shell in a child process, and putting the process back afterwards."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

from deep_audio_embedding._commands import Block, compiled, directory_of_cd, locate
from deep_audio_embedding._errors import CommandError, ShellCommandError, described
from deep_audio_embedding._paths import PROCESS, context_directory
from deep_audio_embedding._syntax import program
from deep_audio_embedding._template import ModelDict

TAIL_BYTES = 4000


@contextmanager
def process_kept(
    template: ModelDict, context_key: str | None = None, search_path: Sequence[str] = ()
) -> Iterator[list[str]]:
    """Run a step in its context with `search_path` first in `sys.path`; put both back, also after errors.

    Yields:
        What `sys.path` was before.

    Raises:
        TemplateFormatError: The context is missing or outside the working directory.
    """
    with PROCESS:
        working_directory = os.getcwd()
        path_object, path_entries = sys.path, list(sys.path)
        try:
            if context_key is not None:
                os.chdir(context_directory(template.get(context_key), file=template.file, key=context_key))
            sys.path[:0] = search_path
            yield path_entries
        finally:
            path_object[:] = path_entries
            sys.path = path_object  # a command may have bound another list to the name
            os.chdir(working_directory)


def new_search_path(before: Sequence[str]) -> tuple[str, ...]:
    """Return, as absolute paths, the directories in `sys.path` that were not there `before`."""
    return tuple(
        os.path.abspath(entry) for entry in sys.path if isinstance(entry, str) and entry not in before
    )


def run_block(block: Block, items: Sequence[str], scope: dict[str, Any], *, file: str, key: str) -> None:
    """Run one block of a list of commands.

    Raises:
        CommandError: It failed.
    """
    if block.kind == "python":
        end = block.first + len(block.items)
        run_python(items[:end], scope, file=file, key=key, first=block.first)
    elif block.kind == "cd":
        _change_directory(block, file, key)
    else:
        _run_shell(block, file, key)


def run_python(items: Sequence[str], scope: dict[str, Any], *, file: str, key: str, first: int = 0) -> None:
    """Compile the items from `first` on as one program and execute it in `scope`.

    Raises:
        CommandError: It does not compile, or raised an exception (its `__cause__`); `sys.exit` counts as one.
        KeyboardInterrupt: The user interrupted it.
    """
    filename = f"<{key} of {file}>"
    code = compiled(items, filename, file=file, key=key, first=first)
    _show_lines_in_tracebacks(filename, items)
    try:
        exec(code, scope)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a command must not end the caller's process
        item, line = locate(items, _failed_line(error.__traceback__, filename))
        problem = f"raised {described(error)}"
        raise CommandError(problem, file=file, key=key, item=item, line=line) from error


def _failed_line(traceback: TracebackType | None, filename: str) -> int:
    """Return the line of `filename` in the innermost frame that belongs to it."""
    number = 1
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == filename:
            number = traceback.tb_lineno
        traceback = traceback.tb_next
    return number


def _show_lines_in_tracebacks(filename: str, items: Sequence[str]) -> None:
    import linecache

    text = program(items)
    # No modification time: linecache then never compares the entry with a file.
    linecache.cache[filename] = (len(text), None, [line + "\n" for line in text.split("\n")], filename)


def _change_directory(block: Block, file: str, key: str) -> None:
    directory = directory_of_cd(block.text) or ""
    try:
        os.chdir(os.path.expanduser(os.path.expandvars(directory)))
    except OSError as error:
        problem = f"failed in '{os.getcwd()}': {error.strerror}"
        raise CommandError(problem, file=file, key=key, item=block.first + 1, line=block.text) from error


def _run_shell(block: Block, file: str, key: str) -> None:
    import logging
    import subprocess
    import tempfile

    logging.getLogger(__name__).info("%s, %s: running %s", file, key, block.text)
    # A file instead of a pipe: bounded memory, and no waiting for what a command leaves in the background.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            block.text,
            shell=True,
            env=_environment(),
            stdin=subprocess.DEVNULL,  # a question would wait for ever
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        tail = _tail(output)
    importlib.invalidate_caches()  # what was installed just now is to be found
    if done.returncode:
        raise ShellCommandError(
            file=file,
            key=key,
            item=block.first + 1,
            line=block.text,
            exit_code=done.returncode,
            output=tail,
            note=f" (it ran in the shell, since as Python: {block.error})" if block.error else "",
        )


def _environment() -> dict[str, str]:
    """Return the environment with this interpreter's `pip` and `python` first, activated or not."""
    environment = dict(os.environ)
    if sys.executable:
        programs = os.path.dirname(sys.executable)
        environment["PATH"] = programs + os.pathsep + environment.get("PATH", os.defpath)
    return environment


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - TAIL_BYTES, 0))
    return output.read().decode("utf-8", errors="replace").strip()
