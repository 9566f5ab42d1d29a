"""What a store is when it is opened: a snapshot for readers, a session for the writer."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from avex._core.errors import StoreError, StoreExistsError
from avex.embedding.stores.base import StoreHeader
from avex.embedding.stores.folder import PartialFolder, Session, read_finished
from avex.embedding.stores.footer import Footer
from avex.embedding.stores.parts import Segment

_ATTEMPTS = 5


def resolve_target(path: str | os.PathLike[str]) -> Path:
    """Return the path of the finished table, symbolic links followed, so that a rename does not replace a link.

    Raises:
        StoreError: The path cannot be handed to Arrow.
    """
    target = Path(os.path.realpath(path))
    try:
        str(target).encode("utf-8")
    except UnicodeEncodeError:
        raise StoreError(
            f"A store cannot have the path {os.fspath(path)!r}: it is not UTF-8. Choose another."
        ) from None
    return target


def read_snapshot(store: Path) -> tuple[StoreHeader, list[Segment]]:
    """Return the header and the files that hold the committed rows, for reading only.

    A finished table that an unfinished overwriting is going to replace still counts.

    Raises:
        StoreError: There is no store, or it is damaged.
    """
    folder = PartialFolder(store)
    for _ in range(_ATTEMPTS):
        try:
            # Parts before the table: a writer that finishes in between leaves the table newer than what we saw.
            session = folder.read_session()
            parts = folder.segments(session.id) if session else []
        except FileNotFoundError:
            continue  # merged and removed while we looked
        finished = read_finished(store, writing=False)
        if finished and (session is None or session.id == finished.session or not session.keep):
            return finished.header, [Segment(store, finished.entries)]
        if session:
            return session.header, [*_base(store, session, finished), *parts]
        break
    raise StoreError(f"There is no embedding store at '{store}'.")


def resume(store: Path, folder: PartialFolder, header: StoreHeader) -> tuple[Session, list[Segment]]:
    """Continue the session on the disk, or begin one; the caller holds the lock.

    A session that never sealed a part counts as never begun, so a first attempt with a wrong setting that was
    stopped at once stands in nobody's way.

    Returns:
        The session and the files that hold its rows so far.

    Raises:
        StoreExistsError: The store was made with other settings, or it is none.
        StoreError: It is damaged, or its finished table is not the one that it was begun with.
    """
    finished = read_finished(store, writing=True)
    session = folder.read_session()
    merged = session and finished and session.id == finished.session
    if session is not None and folder.parts() and not merged:
        _check_settings(store, session.header, header)
        base = _base(store, session, finished)
        return session, [*base, *folder.segments(session.id, clean=True)]
    if finished is None:
        return begin(folder, header, None), []
    _check_settings(store, finished.header, header)
    return begin(folder, finished.header, finished, keep=True), [Segment(store, finished.entries)]


def begin(
    folder: PartialFolder, header: StoreHeader, finished: Footer | None, *, keep: bool = False
) -> Session:
    """Begin a session; whatever an older one left in the folder is removed."""
    session = Session(secrets.token_hex(16), header, finished.session if finished else None, keep)
    folder.begin(session)
    return session


def _base(store: Path, session: Session, finished: Footer | None) -> list[Segment]:
    """Return the finished table as the first file of a session, if its rows belong to it."""
    found = finished.session if finished else None
    if found != session.base and not (found is None and not session.keep):
        state = "has been removed" if finished is None else "is not the one"
        raise StoreError(
            f"The writing of '{store}' was not finished, and the table there {state} since it began. Put the table "
            f"back as it was, remove '{PartialFolder(store).path}' to drop the unfinished part, or overwrite."
        )
    return [Segment(store, finished.entries)] if finished and session.keep else []


def _check_settings(store: Path, old: StoreHeader, new: StoreHeader) -> None:
    names = old.compatible_with(new)
    if names:
        before, now = old.as_dict(), new.as_dict()
        changes = "; ".join(f"{name}: {before[name]!r} in the store, {now[name]!r} now" for name in names)
        raise StoreExistsError(
            f"'{store}' was made with other settings ({changes}). Use --overwrite (mode='overwrite') to replace "
            "it, or choose another output."
        )
