"""Rules about recordings in a store: all of one or nothing, in the order of their commits, under their names."""

from __future__ import annotations

from collections.abc import Iterator

from avex._core.errors import StoreError
from avex.embedding.stores import decode_name
from avex.testing.report import refuses
from avex.testing.store_subject import StoreSubject, differs, key_of, make_batch, make_row, table

STRANGE_NAMES = [
    "marsh/2024 05/0412.wav",
    "two\nlines\r.wav",
    "quote\"'`,;\t.wav",
    "鳥/🐦.flac",
    "combining e\u0301.wav",
    "nul\0byte",
    "caf\udce9.wav",  # the bytes of a Latin-1 file name, as os.fsdecode gives them
    "back\\slash\udcff\\udcff.wav",
    "avex-escaped:not really.wav",
    "avex-escaped:\\udce9",
    "",
]


def commit_order(subject: StoreSubject) -> Iterator[str]:
    """Rows come back in the order of commits, with their times, channels and values."""
    with subject.make() as store:
        store.append(make_batch("b.wav", 2))
        store.append(make_batch("b.wav", 1, first=2))
        store.commit(key_of("b.wav"))
        store.append(make_batch("a.wav", 1))
        store.commit(key_of("a.wav"))
    expected = [*(make_row("b.wav", index) for index in range(3)), make_row("a.wav", 0)]
    yield from differs("the table", table(store), expected)
    yield from differs("the number of rows", len(store), 4)
    yield from differs("recordings()", store.recordings(), ["b.wav", "a.wav"])
    yield from differs("done()", dict(store.done()), {name: key_of(name) for name in ("b.wav", "a.wav")})


def committed_only(subject: StoreSubject) -> Iterator[str]:
    """An open store shows what is committed and nothing else."""
    with subject.filled(("a.wav", 3)) as store:
        store.append(make_batch("b.wav", 5))
        yield from differs("the number of rows before the second commit", len(store), 3)
        yield from differs("the shape of to_numpy() before it", store.to_numpy().shape, (3, 3))
        yield from differs("done() before it", list(store.done()), ["a.wav"])
        store.commit(key_of("b.wav"))
        yield from differs("the number of rows after it", (len(store), len(table(store))), (8, 8))


def without_rows(subject: StoreSubject) -> Iterator[str]:
    """A recording without rows is remembered as done."""
    with subject.make() as store:
        store.commit(key_of("silent.wav"))
        store.append(make_batch("empty.wav", 0))
        store.commit(key_of("empty.wav"))
    yield from differs("the number of rows", (len(store), table(store)), (0, []))
    yield from differs("the shape of to_numpy()", store.to_numpy().shape, (0, 3))
    yield from differs("recordings()", store.recordings(), ["silent.wav", "empty.wav"])


def rollback(subject: StoreSubject) -> Iterator[str]:
    """Rolling back drops the open recording only, and may be done twice."""
    with subject.filled(("good.wav", 2)) as store:
        for first in range(0, 12, 3):
            store.append(make_batch("broken.wav", 3, first))
        store.rollback()
        store.rollback()
        store.append(make_batch("next.wav", 1))
        store.commit(key_of("next.wav"))
    names = [row[0] for row in table(store)]
    yield from differs("the recordings of the rows", names, ["good.wav", "good.wav", "next.wav"])
    yield from differs("recordings()", store.recordings(), ["good.wav", "next.wav"])


def close_drops(subject: StoreSubject) -> Iterator[str]:
    """Closing drops what was not committed."""
    with subject.make() as store:
        store.append(make_batch("half.wav", 7))
    yield from differs("the number of rows", len(store), 0)
    yield from differs("done()", dict(store.done()), {})


def replaced(subject: StoreSubject) -> Iterator[str]:
    """A recording that is committed again replaces its rows and moves to the end."""
    with subject.filled(("a.wav", 2), ("b.wav", 1)) as store:
        store.append(make_batch("a.wav", 1, first=40))
        store.commit(key_of("a.wav", size=2000))
        yield from differs("the number of rows while open", len(store), 2)
    yield from differs("the table", table(store), [make_row("b.wav", 0), make_row("a.wav", 40)])
    yield from differs("the size in its key", store.done()["a.wav"].bytes, 2000)
    yield from differs("recordings()", store.recordings(), ["b.wav", "a.wav"])


def turns(subject: StoreSubject) -> Iterator[str]:
    """Another recording must wait until the open one is committed."""
    words = ["'b.wav' cannot begin while 'a.wav' is open"]
    with subject.make() as store:
        store.append(make_batch("a.wav", 1))
        rows = make_batch("b.wav", 1)
        yield from refuses(lambda: store.append(rows), StoreError, "rows of another recording", words)
        yield from refuses(lambda: store.commit(key_of("b.wav")), StoreError, "another commit", words)
        store.commit(key_of("a.wav"))
    yield from differs("recordings()", store.recordings(), ["a.wav"])


def names(subject: StoreSubject) -> Iterator[str]:
    """Every name that a file can have comes back."""
    with subject.make() as store:
        for index, name in enumerate(STRANGE_NAMES):
            store.append(make_batch(name, 1, first=index))
            store.commit(key_of(name))
    rows = [row[0] for row in table(store)]
    yield from differs("recordings()", store.recordings(), STRANGE_NAMES)
    yield from differs("the decoded names of the rows", [decode_name(row) for row in rows], STRANGE_NAMES)
    yield from differs("ordinary names in the table", rows[:6], STRANGE_NAMES[:6])


def closed(subject: StoreSubject) -> Iterator[str]:
    """A closed store takes nothing more, can be closed again, and stays readable."""
    store = subject.filled(("a.wav", 1))
    store.close()
    store.close()
    rows = make_batch("b.wav", 1)
    yield from refuses(lambda: store.append(rows), StoreError, "append after close", ["closed"])
    yield from refuses(lambda: store.commit(key_of("b.wav")), StoreError, "commit after close", ["closed"])
    yield from differs("the number of rows", len(store), 1)
