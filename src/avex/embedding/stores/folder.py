"""The folder `<store>.partial` of a store that is being written, and what stands on the disk at any moment.

    header.json         the session: its id, the header, and which finished table was there when it began
    part-000001.parquet whole recordings, immutable; the rename that makes a part appear commits its recordings
    lock, holder.json   who is writing
    *.tmp               not committed; removed by the next writer

A session is one writing of the table, over as many processes as it takes. Each part carries its session's id, and
the finished table carries that of the session it was merged from. So a folder that a kill left behind after
the merge is recognised, and its parts are never counted twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avex._core.errors import StoreError, StoreExistsError
from avex.embedding.stores.base import SCHEMA_VERSION, StoreHeader
from avex.embedding.stores.footer import Footer, check_version, read_footer
from avex.embedding.stores.parts import Segment, read_segment
from avex.io.atomic import write_text

SESSION_NAME = "header.json"
_PART_NAME = re.compile(r"part-(\d{6,})\.parquet")


@dataclass(frozen=True)
class Session:
    """One writing of a table.

    Attributes:
        id: Unique name.
        header: Settings of the table.
        base: Session of the finished table that was there at the beginning, or None.
        keep: Whether the rows of that table come first in this one (otherwise this one replaces it).
    """

    id: str
    header: StoreHeader
    base: str | None
    keep: bool


class PartialFolder:
    """Names and contents of the partial folder of one store.

    Args:
        store: Path of the finished table.
    """

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(store.name + ".partial")

    def part(self, number: int) -> Path:
        """Return the path of a part."""
        return self.path / f"part-{number:06d}.parquet"

    def temporary(self, name: str) -> Path:
        """Return the path of a file that is not committed yet."""
        return self.path / f"{name}.tmp"

    def parts(self) -> list[tuple[int, Path]]:
        """Return the committed parts with their numbers, in order."""
        if not self.path.is_dir():
            return []
        found = ((_PART_NAME.fullmatch(path.name), path) for path in self.path.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)

    def read_session(self) -> Session | None:
        """Return the session that is being written, None when there is none.

        Raises:
            StoreError: The folder is damaged, or of a newer version of avex.
        """
        path = self.path / SESSION_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_version(values["schema_version"], path)
            header = StoreHeader.from_dict(values["header"])
            return Session(values["session"], header, values["base"], values["keep"])
        except (FileNotFoundError, NotADirectoryError):
            if self.parts():
                raise StoreError(
                    f"'{self.path}' holds parts of a store but no '{SESSION_NAME}'. Restore that file, or write "
                    "the store anew (overwrite)."
                ) from None
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"'{path}' is damaged ({error}). Restore it, or write the store anew (overwrite)."
            ) from error

    def begin(self, session: Session) -> None:
        """Start a session. From here on, whatever lies in the folder from another one does not count."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "session": session.id,
            "base": session.base,
            "keep": session.keep,
            "header": session.header.as_dict(),
        }
        write_text(self.path / SESSION_NAME, json.dumps(values, indent=1))
        self._remove([*(path for _, path in self.parts()), *self.path.glob("*.tmp")])

    def segments(self, session: str, *, clean: bool = False) -> list[Segment]:
        """Return the parts of a session in commit order.

        Args:
            session: Its id.
            clean: Remove the parts of other sessions, and temporary files. For the writer only.

        Raises:
            StoreError: A part is damaged.
        """
        segments, stale = [], []
        for _, path in self.parts():
            segment, footer = read_segment(path)
            if footer.session == session:
                segments.append(segment)
            else:
                stale.append(path)
        if clean:
            self._remove([*stale, *self.path.glob("*.tmp")])
        return segments

    def clear(self) -> None:
        """Remove everything but the lock."""
        self._remove([path for _, path in self.parts()])
        self._remove([*self.path.glob("*.tmp"), self.path / SESSION_NAME])

    @staticmethod
    def _remove(paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def read_finished(store: Path, *, writing: bool) -> Footer | None:
    """Read the footer of the finished table; None when there is none yet.

    Args:
        store: Path of the table.
        writing: Whether the caller means to write there, for the class of the error.

    Raises:
        StoreExistsError: Something that is no store is there, and the caller means to write.
        StoreError: The same, and the caller means to read; or the footer is damaged.
    """
    try:
        footer = read_footer(store) if store.exists() else None
        if footer is not None or not store.exists():
            return footer
    except FileNotFoundError:
        return None  # replaced or removed in between
    message = (
        f"'{store}' exists and is not an embedding store of avex, or it is damaged. It was left as it is."
    )
    if writing:
        raise StoreExistsError(f"{message} Choose another output, or move it away.")
    raise StoreError(message)
