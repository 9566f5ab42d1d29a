"""Figures of a leaderboard, as PNG: scores by layer, by number of shots, embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from avex.training.probes.figures import new_figure, png_bytes, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130
_GRID = "#eef1f4"
# Okabe and Ito (2008): told apart by people who see fewer colours.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#a0a000")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MOST_NAMED = 24
# Intervals of more curves than this hide each other.
_MOST_SHADED = 4


def layers_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> bytes:
    """Draw the metric of a linear probe on each layer, a line per experiment.

    Args:
        curves: Experiment to its layers in order, each with `layer`, `value`, `low`, `high`.
        metric: Name of the metric.

    Returns:
        A PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(7.0, 3.6)
    axes = figure.add_subplot()
    for i, (name, curve) in enumerate(curves.items()):
        _line(axes, range(len(curve)), curve, name, i, shaded=len(curves) <= _MOST_SHADED)
    longest, *others = sorted(
        {tuple(str(point["layer"]) for point in curve) for curve in curves.values()}, key=len, reverse=True
    )
    if others:  # names of one model would be wrong for the others
        every = max(1, len(longest) // 12)
        axes.set_xticks(range(0, len(longest), every), [str(i + 1) for i in range(0, len(longest), every)])
        return _finish(figure, axes, "number of the layer, in the order given", metric)
    names = [_end(name, 24) for name in longest]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    return _finish(figure, axes, "layer", metric)


def _end(name: str, most: int) -> str:
    """The end of a layer's name, where layers differ."""
    return name if len(name) <= most else "…" + name[1 - most :]


def shots_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> bytes:
    """Draw the metric over the number of training clips per class, a line per experiment.

    Args:
        curves: Experiment to its points, each with `shots`, `value`, `low`, `high`.
        metric: Name of the metric.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = _figure(7.0, 3.4)
    axes = figure.add_subplot()
    for i, (name, curve) in enumerate(curves.items()):
        _line(axes, [p["shots"] for p in curve], curve, name, i, shaded=len(curves) <= _MOST_SHADED)
    ticks = sorted({int(point["shots"]) for curve in curves.values() for point in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    return _finish(figure, axes, "training clips per class", metric)


def scatter_figure(scatter: Mapping[str, Any]) -> bytes:
    """Draw embeddings in two dimensions, coloured by class.

    Args:
        scatter: `points`, `classes`, `names`, `method`, as `avex.evaluation.projection.scatter` gives them.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    points = np.asarray(scatter["points"], float)
    classes = np.asarray(scatter["classes"])
    present = [int(number) for number in np.unique(classes)]
    named = len(present) <= _MOST_NAMED
    figure = _figure(7.0, 4.6)
    axes = figure.add_subplot()
    for number in present:
        chosen = points[classes == number]
        name = "no class" if number < 0 else shorten(str(scatter["names"][number]), 28)
        colour = _COLOURS[number % len(_COLOURS)] if number >= 0 else "#9aa5b1"
        mark = _MARKS[max(0, number) // len(_COLOURS) % len(_MARKS)]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=16, color=colour, marker=mark, alpha=0.8, linewidths=0, label=name
        )
    if named:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    method = str(scatter["method"])
    words = {"pca": "principal component", "umap": "UMAP axis"}
    word = words.get(method, "axis")
    unnamed = "" if named else ", too many to name"
    title = f"{method.upper()} of {len(points)} clips, {sum(n >= 0 for n in present)} classes{unnamed}"
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"{word} 1")
    axes.set_ylabel(f"{word} 2")
    return png_bytes(figure)


def _line(axes: Any, x: Any, curve: Sequence[Mapping[str, Any]], name: str, i: int, *, shaded: bool) -> None:
    colour, mark = _COLOURS[i % len(_COLOURS)], _MARKS[i // len(_COLOURS) % len(_MARKS)]
    values, low, high = (np.array([_float(p[key]) for p in curve]) for key in ("value", "low", "high"))
    axes.plot(x, values, marker=mark, ms=5, color=colour, label=shorten(name))
    known = np.isfinite(low) & np.isfinite(high) & shaded
    axes.fill_between(np.asarray(x)[known], low[known], high[known], color=colour, alpha=0.12, linewidth=0)


def _finish(figure: Figure, axes: Any, x: str, y: str) -> bytes:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low) if low > -0.5 else low, min(1.02, high))
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return png_bytes(figure)


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _figure(width: float, height: float) -> Figure:
    return new_figure(width, height, "A leaderboard with figures", _DPI)
