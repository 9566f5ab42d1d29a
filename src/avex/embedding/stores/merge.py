"""Many parts to one table, in constant memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from avex.embedding.stores.folder import PartialFolder, Session
from avex.embedding.stores.footer import Footer
from avex.embedding.stores.parts import Segment, live_entries, scan_segments, write_part
from avex.embedding.stores.rows import rechunk
from avex.io.atomic import publish

GROUP_ROWS = 4096


def merge(
    files: list[Segment], store: Path, folder: PartialFolder, session: Session, schema: pa.Schema
) -> Segment:
    """Write the rows of `files` that count to the finished table.

    The table appears in one step. Until then the files are the store; afterwards the session named in
    the table's footer says that the files are spent.

    Raises:
        OSError: As the system reports it.
        StoreError: A file is damaged.
    """
    entries, _ = live_entries(files)
    if len(files) == 1 and files[0].path == store:
        return files[0]  # nothing was added
    if len(files) == 1 and entries == files[0].entries:
        publish(files[0].path, store)  # a single part that counts in full is the finished table already
        return Segment(store, entries)
    batches = rechunk(scan_segments(files, schema.names, GROUP_ROWS), GROUP_ROWS)
    return write_part(
        folder.temporary("merging"), store, batches, schema, Footer(session.id, session.header, entries)
    )
