"""What every embedding store promises, whatever is behind it: the rules of `avex.testing.check_store`."""

from __future__ import annotations

import numpy as np
import pytest

from avex._core.errors import UnknownNameError
from avex.embedding.stores import MemoryStore, ParquetStore, SealPolicy
from avex.testing import STORE_RULES, ConformanceError, check_store

EACH_COMMIT = SealPolicy(rows=1, seconds=0.0, stream_rows=2)
STORES = {
    "memory": lambda header, folder: MemoryStore(header),
    "parquet": lambda header, folder: ParquetStore(folder / "out.parquet", header, seal=SealPolicy()),
    "parquet-sealing-each-commit": lambda header, folder: ParquetStore(
        folder / "out.parquet", header, seal=EACH_COMMIT
    ),
}


@pytest.mark.parametrize("rule", STORE_RULES)
@pytest.mark.parametrize("store", STORES)
def test_store_keeps_the_rule(store, rule):
    if rule == "data_frame":
        pytest.importorskip("pandas")
    check_store(STORES[store], rules=[rule])


def test_all_rules_at_once_and_unknown_ones():
    check_store(STORES["memory"])
    with pytest.raises(UnknownNameError, match=r"no rule 'turn'. Did you mean 'turns'"):
        check_store(STORES["memory"], rules=["turn"])


# -- stores that break a rule ------------------------------------------------------------------------------


class Sorted(MemoryStore):
    def recordings(self):
        return sorted(super().recordings())


class ShowsOpenRows(MemoryStore):
    def __len__(self):
        return super().__len__() + sum(batch.num_rows for batch in (self._open or ("", []))[1])


class ForgetsEmpty(MemoryStore):
    def commit(self, key):
        if self._open and any(batch.num_rows for batch in self._open[1]):
            super().commit(key)
        else:
            self._open = None


class RollsBackEverything(MemoryStore):
    def rollback(self):
        super().rollback()
        self._keys.clear()
        self._rows.clear()


class CommitsOnClose(MemoryStore):
    def close(self):
        if self._open:
            self._rows[self._open[0]] = self._open[1]
        super().close()


class KeepsItsPlace(MemoryStore):
    def commit(self, key):
        order = list(self._keys)
        super().commit(key)
        if key.recording in order:
            self._keys = {name: self._keys[name] for name in order}
            self._rows = {name: self._rows[name] for name in order}


class TakesTurns(MemoryStore):
    def append(self, batch):
        if self._open and self._open[0] != batch.recording:
            self._open = None
        super().append(batch)


class PlainNames(MemoryStore):
    def done(self):
        return {name.replace("\n", " "): key for name, key in super().done().items()}

    def recordings(self):
        return list(self.done())


class NeverCloses(MemoryStore):
    def close(self):
        self._open = None


class ZeroForNan(MemoryStore):
    def append(self, batch):
        batch.embedding = np.nan_to_num(batch.embedding)
        super().append(batch)


class Float64(MemoryStore):
    def to_numpy(self):
        return super().to_numpy().astype(np.float64)


class WholeTable(MemoryStore):
    def scan(self, columns=None, batch_rows=4096):
        return super().scan(columns, max(batch_rows, 4096))


@pytest.mark.parametrize(
    ("cls", "rule", "words"),
    [
        (Sorted, "commit_order", r"recordings\(\) must be \['b.wav', 'a.wav'\], not \['a.wav', 'b.wav'\]"),
        (ShowsOpenRows, "committed_only", "rows before the second commit must be 3, not 8"),
        (ForgetsEmpty, "without_rows", r"must be \['silent.wav', 'empty.wav'\], not \[\]"),
        (RollsBackEverything, "rollback", r"must be \['good.wav', 'next.wav'\], not \['next.wav'\]"),
        (CommitsOnClose, "close_drops", "the number of rows must be 0, not 7"),
        (KeepsItsPlace, "replaced", r"recordings\(\) must be \['b.wav', 'a.wav'\]"),
        (TakesTurns, "turns", "rows of another recording must raise StoreError, but is accepted"),
        (PlainNames, "names", "recordings"),
        (NeverCloses, "closed", "append after close must raise StoreError"),
        (ZeroForNan, "finite", "an embedding with nan must raise StoreError"),
        (Float64, "half_precision", "number format of to_numpy.. must be 'float16', not 'float64'"),
        (WholeTable, "scan", r"the sizes of batches of 1 must be \[1, 1"),
    ],
)
def test_broken_store_is_found_out(cls, rule, words):
    with pytest.raises(ConformanceError, match=words) as caught:
        check_store(lambda header, folder: cls(header))
    assert rule in {name for name, _ in caught.value.violations}
