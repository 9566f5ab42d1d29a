"""What became of every tensor when weights were loaded."""

from __future__ import annotations

from dataclasses import dataclass

_EXCEPTIONS = ("missing", "unexpected", "reset", "ignored")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a checkpoint and of a module.

    Attributes:
        loaded: Names that were copied, or share their memory with one that was.
        missing: Names that the module has and the checkpoint lacks, and may lack; they keep their values.
        unexpected: Names that the checkpoint has and the module lacks; always empty when loading succeeded.
        reset: Names of the module's classifier, which keeps its fresh values on purpose.
        ignored: Names of the checkpoint that were left out on purpose.
        source: Where the checkpoint came from.
        num_parameters: How many numbers were copied; tensors that share memory count once.
        notes: What else is worth knowing, such as conversions of the element type.
        layout: Name of the published layout that the file's names have; empty where there is no choice.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    source: str = ""
    num_parameters: int = 0
    notes: tuple[str, ...] = ()
    layout: str = ""

    def summary(self) -> str:
        """Return one line.

        Example:
            >>> LoadReport(loaded=("a.weight",), ignored=("b",), source="x.pt", num_parameters=6).summary()
            "Loaded 1 tensor (6 numbers) from 'x.pt'; 1 ignored."
        """
        plural = "s" * (len(self.loaded) != 1)
        origin = f" from '{self.source}'" if self.source else ""
        parts = [f"Loaded {len(self.loaded)} tensor{plural} ({self.num_parameters:,} numbers){origin}"]
        parts += [f"{len(getattr(self, name))} {name}" for name in _EXCEPTIONS if getattr(self, name)]
        return "; ".join([*parts, *self.notes]) + "."

    def table(self) -> str:
        """Return the summary and, below it, the names of everything that was not simply loaded."""
        lines = [self.summary(), *([f"{'layout':<12}{self.layout}"] if self.layout else [])]
        for name in _EXCEPTIONS:
            lines.extend(f"{name:<12}{entry}" for entry in getattr(self, name))
        return "\n".join(lines)
