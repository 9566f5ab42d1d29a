"""`check_store`: does an embedding store keep the promises of `EmbeddingStore`?"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from avex.testing import store_rows, store_rules
from avex.testing.report import Rule, run_rules
from avex.testing.store_subject import StoreFactory, StoreSubject

STORE_RULES: dict[str, Rule[StoreSubject]] = {
    "commit_order": store_rules.commit_order,
    "committed_only": store_rules.committed_only,
    "without_rows": store_rules.without_rows,
    "rollback": store_rules.rollback,
    "close_drops": store_rules.close_drops,
    "replaced": store_rules.replaced,
    "turns": store_rules.turns,
    "names": store_rules.names,
    "closed": store_rules.closed,
    "finite": store_rows.finite,
    "misfits": store_rows.misfits,
    "reuse": store_rows.reuse,
    "half_precision": store_rows.half_precision,
    "further_columns": store_rows.further_columns,
    "scan": store_rows.scan,
    "data_frame": store_rows.data_frame,
    "npy_mirror": store_rows.npy_mirror,
}
"""All rules by name; the docstring of each says what it demands."""


def check_store(
    factory: StoreFactory, *, rules: Collection[str] | None = None, skip: Collection[str] = ()
) -> None:
    """Check a kind of store against every rule and report all that it breaks.

    Args:
        factory: `factory(header, folder)` makes an empty store; `folder` exists, is empty, and is removed after
            the check.
        rules: Names of rules (`STORE_RULES`) to check; None checks all.
        skip: Names of rules to leave out.

    Raises:
        ConformanceError: Rules are broken; the message lists each in words.
        UnknownNameError: No such rule.

    Example:
        >>> from avex.embedding.stores import MemoryStore
        >>> check_store(lambda header, folder: MemoryStore(header))
    """
    with tempfile.TemporaryDirectory(prefix="avex-check-store-") as folder:
        place = Path(folder)

        def in_own_folder(name: str, rule: Rule[StoreSubject]) -> Rule[Path]:
            def run(root: Path) -> Iterable[str]:
                (root / name).mkdir()
                subject = StoreSubject(factory, root / name)
                try:
                    yield from rule(subject)
                finally:
                    subject.close()

            return run

        wrapped = {name: in_own_folder(name, rule) for name, rule in STORE_RULES.items()}
        run_rules("The store", wrapped, lambda: place, rules, skip)
