"""Copying a state dict into a module so that every tensor on either side is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from avex._core.errors import WeightsError
from avex.weights.deferred import DeferredInitialisation
from avex.weights.keymap import shown
from avex.weights.report import LoadReport


def apply_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    head_prefixes: Sequence[str] = ("classifier.",),
    reset_head: bool = False,
    drop_head: bool = False,
    optional: Sequence[str] = (),
    ignored: Iterable[str] = (),
    source: str = "",
    layout: str = "",
    notes: Iterable[str] = (),
    deferred: DeferredInitialisation | None = None,
    take_over: bool = False,
) -> LoadReport:
    """Copy a state dict into a module, or change nothing and say why.

    All checks come before the first copy. Values are converted to the module's element type and device. Names
    that share one parameter (tied weights) are served by any one of them; when the checkpoint has several,
    they must agree. Integer counters (`num_batches_tracked`) may be missing.

    Args:
        module: The module, with memory for its parameters (not on the meta device).
        state: Tensors under the names of the module's own state dict.
        head_prefixes: How the names of the classifier begin.
        reset_head: The module has a new classifier: keep it, leave out the checkpoint's.
        drop_head: The module has no classifier: leave out the checkpoint's.
        optional: Names, or patterns with `*`, that the checkpoint may lack: of those that fit one pattern, all or
            none.
        ignored: Names that were left out before this call, for the report.
        source: Where the checkpoint came from, for messages and the report.
        layout: Name of the checkpoint's layout, for the report.
        notes: What the report shall say besides.
        deferred: What the module was built under, if its parameters have no values yet; those that the
            checkpoint lacks get theirs now.
        take_over: The tensors are the caller's to give away: a parameter that is not filled yet takes the memory
            of its tensor instead of a copy.

    Returns:
        The report, in which every name of both sides occurs.

    Raises:
        WeightsError: Nothing fits, names are missing or unexpected, shapes or kinds of numbers differ, tied
            tensors disagree, or a value is not finite.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> apply_state(layer, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}).num_parameters
        9
    """
    heads = tuple(head_prefixes)
    plan = _Plan(module, source)
    wanted = {
        key: tensor
        for key, tensor in state.items()
        if not (reset_head or drop_head) or not key.startswith(heads)
    }
    reset = tuple(name for name in plan.targets if reset_head and name.startswith(heads))
    left_out = (key for key in state if key not in wanted and key not in reset)
    plan.match(wanted, exempt=frozenset(reset), optional=tuple(optional))
    plan.check_values(heads)
    conversions = plan.copy(deferred, take_over)
    return LoadReport(
        loaded=(*plan.loaded, *plan.shared),
        missing=tuple(plan.missing),
        reset=reset,
        ignored=(*left_out, *ignored),
        source=source,
        layout=layout,
        num_parameters=sum(target.numel() for target in plan.distinct_targets()),
        notes=(*notes, *conversions),
    )


@dataclass
class _Plan:
    """Which tensor goes where; filled by `match`, checked by `check_values`, carried out by `copy`."""

    module: nn.Module
    source: str
    targets: dict[str, Tensor] = field(init=False)
    loaded: dict[str, Tensor] = field(init=False, default_factory=dict)
    shared: list[str] = field(init=False, default_factory=list)
    missing: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        state = self.module.state_dict(keep_vars=True)  # names every tied parameter as often as it occurs
        self.targets = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if meta := [name for name, target in self.targets.items() if target.is_meta]:
            raise WeightsError(
                f"The module has parameters without memory: {shown(meta)}. Call module.to_empty(device='cpu') "
                "before loading weights."
            )

    def match(self, state: Mapping[str, Tensor], exempt: frozenset[str], optional: tuple[str, ...]) -> None:
        """Pair the names of both sides, or raise if any is left over."""
        wanted = [name for name in self.targets if name not in exempt]
        self.loaded = {name: state[name] for name in wanted if name in state}
        served = {id(self.targets[name]) for name in self.loaded}
        absent = [name for name in wanted if name not in state]
        self.shared = [name for name in absent if id(self.targets[name]) in served]
        optional = tuple(p for p in optional if not any(fnmatchcase(name, p) for name in self.loaded))
        self.missing = [name for name in absent if name not in self.shared and self._may_lack(name, optional)]
        lacking = [name for name in absent if name not in self.shared and name not in self.missing]
        unexpected = [key for key in state if key not in self.targets or key in exempt]
        if wanted and not self.loaded:
            raise WeightsError(
                f"{self._checkpoint} does not fit {self._name}: 0 of {len(wanted)} parameters matched. First "
                f"unmatched keys: {shown(unexpected) or 'none'}. The model expects {shown(wanted)}. "
                "Nothing was loaded. Pass the weights of this architecture, or checkpoint_format=... ."
            )
        if lacking or unexpected:
            problems = [f"it lacks {len(lacking)} of them: {shown(lacking)}"] if lacking else []
            problems += [f"it has {len(unexpected)} others: {shown(unexpected)}"] if unexpected else []
            raise WeightsError(
                f"{self._checkpoint} does not fit {self._name}: {len(self.loaded)} of {len(wanted)} parameters "
                f"matched, but {'; and '.join(problems)}. Nothing was loaded. Pass the weights of this "
                "architecture."
            )

    def check_values(self, heads: tuple[str, ...]) -> None:
        """Raise unless shapes, kinds and values are right and tied tensors agree."""
        shapes = [name for name, tensor in self.loaded.items() if tensor.shape != self.targets[name].shape]
        if shapes:
            self._raise_shapes(shapes, heads)
        first: dict[int, str] = {}
        for name, tensor in self.loaded.items():
            target = self.targets[name]
            if _kind(tensor) != _kind(target):
                raise WeightsError(
                    f"{self._checkpoint} has '{name}' as {tensor.dtype}, {self._name} has it as {target.dtype}. "
                    "Nothing was loaded. It is the file of another model, or was converted wrongly."
                )
            if not _is_finite(tensor.to(target.dtype)):
                raise WeightsError(
                    f"{self._checkpoint} has values in '{name}' that are not finite (NaN or infinite, or too "
                    f"large for {target.dtype}). Nothing was loaded. Download the file again, or ask its author."
                )
            other = first.setdefault(id(target), name)
            if other != name and not torch.equal(tensor, self.loaded[other]):
                raise WeightsError(
                    f"{self._checkpoint} has different values for '{other}' and '{name}', which are one shared "
                    f"parameter in {self._name}. Nothing was loaded. It is the file of another architecture."
                )

    def copy(self, deferred: DeferredInitialisation | None, take_over: bool) -> tuple[str, ...]:
        """Write the values into the module; return notes for the report."""
        converted: dict[tuple[torch.dtype, torch.dtype], int] = {}
        done: set[int] = set()
        given: set[int] = set()  # memory that a parameter has taken over
        with torch.no_grad():
            for name, tensor in self.loaded.items():
                target = self.targets[name]
                if tensor.dtype != target.dtype:
                    pair = (tensor.dtype, target.dtype)
                    converted[pair] = converted.get(pair, 0) + 1
                if id(target) in done:
                    continue
                done.add(id(target))
                if (
                    take_over
                    and deferred
                    and deferred.is_unfilled(target)
                    and _replaces(tensor, target, given)
                ):
                    target.data = tensor
                    given.add(tensor.data_ptr())
                else:
                    target.copy_(tensor)
                if deferred:
                    deferred.filled(target)
        if deferred:
            deferred.fill()
        return tuple(
            f"{count} converted from {_short(old)} to {_short(new)}"
            for (old, new), count in converted.items()
        )

    def distinct_targets(self) -> list[Tensor]:
        """Return what was written to, shared tensors once."""
        return list({id(self.targets[name]): self.targets[name] for name in self.loaded}.values())

    def _may_lack(self, name: str, optional: tuple[str, ...]) -> bool:
        target = self.targets[name]
        is_counter = (
            target.dim() == 0 and not target.is_floating_point() and not isinstance(target, nn.Parameter)
        )
        return is_counter or any(fnmatchcase(name, pattern) for pattern in optional)

    def _raise_shapes(self, names: list[str], heads: tuple[str, ...]) -> None:
        pairs = [
            f"'{name}' is {tuple(self.loaded[name].shape)}, expected {tuple(self.targets[name].shape)}"
            for name in names[:8]
        ]
        advice = "It is the file of another size or variant of the model."
        if all(name.startswith(heads) for name in names) and self.targets[names[0]].dim():
            classes = self.targets[names[0]].shape[0]
            advice = (
                f"Only the classifier differs: pass num_classes={classes} for a new head of {classes} classes, or "
                "leave num_classes out to keep the one of the checkpoint."
            )
        more = f"; and {len(names) - 8} more" if len(names) > 8 else ""
        raise WeightsError(
            f"{self._checkpoint} does not fit {self._name}: {'; '.join(pairs)}{more}. Nothing was "
            f"loaded. {advice}"
        )

    @property
    def _checkpoint(self) -> str:
        return f"Checkpoint '{self.source}'" if self.source else "The checkpoint"

    @property
    def _name(self) -> str:
        return f"'{type(self.module).__name__}'"


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "integer"


def _replaces(tensor: Tensor, target: Tensor, given: set[int]) -> bool:
    """Whether a tensor can be a parameter's memory: like it in all but the values, and nobody else's."""
    return (
        tensor.dtype == target.dtype
        and tensor.device == target.device
        and tensor.stride() == target.stride()
        and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        and tensor.data_ptr() not in given
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_finite(tensor: Tensor) -> bool:
    if _kind(tensor) == "integer" or tensor.numel() == 0:
        return True
    # A norm needs no memory and shows any NaN or infinity; it can overflow by itself, hence the second look.
    norm = torch.linalg.vector_norm(tensor.detach())
    return bool(torch.isfinite(norm)) or bool(torch.isfinite(tensor).all())
