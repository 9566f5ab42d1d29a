"""Prefixes that training programs put before every name of a checkpoint, and that say nothing about its layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")

# DistributedDataParallel and DataParallel; torch.compile.
_LEADING = ("module.", "_orig_mod.")
# Names under which programs keep the network; some published layouts have one of them, so they come off last.
_HOLDERS = ("model.", "state_dict.", "net.", "network.")


def strip_wrappers(keys: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return every key without what DataParallel and torch.compile put in front, and what that was.

    `module.` is removed if all keys begin with it, in any order with `_orig_mod.`, which is also removed from
    within: there it stands where a part of the network was compiled.

    Args:
        keys: Keys of a checkpoint.

    Returns:
        Old to new key; and the prefixes that were removed, outermost first. Nothing is removed if two keys
        would become one.

    Example:
        >>> strip_wrappers(["module._orig_mod.norm.bias", "module._orig_mod.norm.weight"])[1]
        ('module.', '_orig_mod.')
    """
    old = list(keys)
    new, removed = _peel(old, _LEADING)
    if any("._orig_mod." in key for key in new):
        new = [key.replace("._orig_mod.", ".") for key in new]
        removed = (*removed, "_orig_mod.")
    if len(set(new)) != len(old):
        return {key: key for key in old}, ()
    return dict(zip(old, new, strict=True)), tuple(dict.fromkeys(removed))


def unwrappings(state: Mapping[str, V]) -> Iterator[tuple[dict[str, V], tuple[str, ...]]]:
    """Give a state dict under ever barer names, each time with a note on what was removed.

    First without what `strip_wrappers` removes; then also without `model.`, `state_dict.`, `net.` and `network.`,
    one after the other, as long as all names begin so. Some published layouts have one of these, so the first
    that a family recognises is the right one.

    Args:
        state: Tensors, or anything else, by name.

    Example:
        >>> [list(names) for names, _ in unwrappings({"module.model.norm.bias": 0})]
        [['model.norm.bias'], ['norm.bias']]
    """
    names, removed = strip_wrappers(state)
    bare = {names[key]: value for key, value in state.items()}
    yield bare, _note(removed)
    while (prefix := _holder(bare)) is not None:
        bare = {key.removeprefix(prefix): value for key, value in bare.items()}
        removed = (*removed, prefix)
        yield bare, _note(removed)


def _note(removed: tuple[str, ...]) -> tuple[str, ...]:
    if not removed:
        return ()
    return (f"{', '.join(map(repr, removed))} removed from the names in the file",)


def _holder(keys: Iterable[str]) -> str | None:
    names = list(keys)
    fits = (p for p in _HOLDERS if all(key.startswith(p) and key != p for key in names))
    return next(fits, None) if names else None


def _peel(keys: list[str], prefixes: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    for prefix in prefixes:
        if keys and all(key.startswith(prefix) for key in keys):
            # One may stand before the other, so look again after each.
            rest, removed = _peel([key.removeprefix(prefix) for key in keys], prefixes)
            return rest, (prefix, *removed)
    return keys, ()
