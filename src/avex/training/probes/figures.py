"""Figures of a report, as PNG: confusion matrix, recall per class, course of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avex._core.optional import require
from avex.metrics import ClassScores
from avex.training.probes.loop import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
# Above so many classes, counts are no longer written into the cells.
_MAX_WRITTEN = 30
_LABEL_CHARS = 40
_INK, _GREY, _BLUE = "#1f2933", "#9aa5b1", "#1f6f8b"


def confusion_figure(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix: true classes in rows, colour by share of the row, counts in the cells.

    Args:
        confusion: (C, C) counts.
        classes: C names.

    Returns:
        A PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    count = len(classes)
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    names = [shorten(name) for name in classes]
    longest = max(map(len, names))
    cell = 0.42 if count <= _MAX_WRITTEN else 0.24
    size = max(2.5, count * cell)
    margin = 0.6 + 0.085 * longest
    figure = new_figure(size + margin + 1.0, size + margin + 0.4)
    axes = figure.add_axes(
        (
            margin / figure.get_figwidth(),
            margin / figure.get_figheight(),
            size / figure.get_figwidth(),
            size / figure.get_figheight(),
        )
    )
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    font = 9 if count <= _MAX_WRITTEN else 7
    axes.set_xticks(range(count), names, rotation=90, fontsize=font)
    axes.set_yticks(range(count), names, fontsize=font)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(-0.5, count), minor=True)
    axes.set_yticks(np.arange(-0.5, count), minor=True)
    axes.grid(which="minor", color="#eef1f4", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    if count <= _MAX_WRITTEN:
        _write_counts(axes, confusion, share)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.set_label("share of the true class")
    return png_bytes(figure)


def classes_figure(per_class: Sequence[ClassScores]) -> bytes:
    """Draw the F1 of each class, best first, with precision and recall as marks.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    ordered = sorted(per_class, key=lambda c: (-np.nan_to_num(c.f1, nan=-1), c.name))[::-1]
    names = [f"{shorten(c.name)} ({c.support})" for c in ordered]
    height = 0.24 * len(names) + 1.0
    figure = new_figure(7.0, height)
    axes = figure.add_subplot()
    rows = np.arange(len(names))
    axes.barh(rows, [np.nan_to_num(c.f1) for c in ordered], color="#bcd7e3", label="F1", height=0.7)
    axes.plot([c.precision for c in ordered], rows, "o", color=_BLUE, ms=4, label="precision")
    axes.plot([c.recall for c in ordered], rows, "|", color=_INK, ms=9, mew=1.6, label="recall")
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel("value (number of examples in brackets)")
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1 + 0.5 / height), ncols=3, frameon=False, fontsize=8
    )
    figure.set_layout_engine("constrained")
    return png_bytes(figure)


def history_figure(history: Sequence[Epoch]) -> bytes:
    """Draw losses and the validation metric over epochs.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(7.0, 2.8)
    left, right = figure.subplots(1, 2)
    epochs = [e.epoch for e in history]
    left.plot(epochs, [e.train_loss for e in history], color=_GREY, label="training")
    left.plot(epochs, [e.validation_loss for e in history], color=_BLUE, label="validation")
    left.set_ylabel("mean loss")
    left.legend(frameon=False, fontsize=8)
    right.plot(epochs, [e.validation_score for e in history], color=_BLUE)
    right.set_ylabel("validation metric")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eef1f4", linewidth=0.6)
    figure.set_layout_engine("constrained")
    return png_bytes(figure)


def shorten(name: str, most: int = _LABEL_CHARS) -> str:
    """A label short enough for an axis.

    Example:
        >>> shorten("Turdus merula_Eurasian Blackbird", 16)
        'Turdus merula_E…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def _write_counts(axes: Any, confusion: npt.NDArray[np.int64], share: npt.NDArray[np.floating]) -> None:
    for (row, column), number in np.ndenumerate(confusion):
        if number:
            colour = "white" if share[row, column] > 0.55 else _INK
            axes.text(column, row, str(number), ha="center", va="center", fontsize=8, color=colour)


def new_figure(
    width: float, height: float, purpose: str = "A report with figures", dpi: int = _DPI
) -> Figure:
    """A figure without pyplot: no global state, no window system.

    Args:
        width: Inches.
        height: Inches.
        purpose: What matplotlib is needed for, if it is missing.
        dpi: Dots per inch.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    module: Any = require("matplotlib.figure", "eval", purpose)
    return module.Figure(figsize=(width, height), dpi=dpi)


def png_bytes(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", bbox_inches="tight", facecolor="white", metadata={"Software": "avex"}
    )
    return buffer.getvalue()
