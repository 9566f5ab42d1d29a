"""Curves of a training: an HTML page that needs nothing else, and a PNG."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avex._core.optional import available
from avex.io import atomic_path, write_text

PAGE, PICTURE = "curves.html", "curves.png"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 230, 64, 30, 14
_COLOURS = {"train": "#1f6f8b", "val": "#c8553d", "clustering": "#5b8c5a"}
_INK, _GREY = "#1f2933", "#d9e2ec"
_STYLE = (
    "body{font:15px system-ui,sans-serif;color:#1f2933;margin:2rem;background:#fff}"
    "main{display:flex;flex-wrap:wrap;gap:1.5rem}figure{margin:0}figcaption{font-weight:600;margin-bottom:.3rem}"
    ".key{font-weight:400;margin-left:.8rem;font-size:13px}"
)
Points = list[tuple[float, float]]


def write_curves(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw every metric over the steps.

    Args:
        rows: Lines of a `metrics.jsonl`.
        folder: Where `curves.html` goes, and `curves.png` if matplotlib is installed.

    Returns:
        What was written.
    """
    charts = collect(rows)
    written = [folder / PAGE]
    write_text(folder / PAGE, page(charts, folder.name))
    if charts and available("matplotlib"):
        _picture(charts, folder / PICTURE)
        written.append(folder / PICTURE)
    return written


def collect(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """Points by metric and part, so that `train/loss` and `val/loss` come into one chart.

    Example:
        >>> collect([{"step": 1, "train/loss": 0.5}, {"step": 2, "val/loss": 0.4}])
        {'loss': {'train': [(1.0, 0.5)], 'val': [(2.0, 0.4)]}}
    """
    charts: dict[str, dict[str, Points]] = {}
    for row in rows:
        for name, value in row.items():
            part, slash, metric = name.partition("/")
            if slash and isinstance(value, (int, float)) and math.isfinite(value):
                charts.setdefault(metric, {}).setdefault(part, []).append((float(row["step"]), float(value)))
    return charts


def page(charts: Mapping[str, Mapping[str, Points]], title: str) -> str:
    """The HTML page: one chart per metric, drawn as SVG."""
    figures = "".join(_figure(metric, lines) for metric, lines in charts.items())
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><main>{figures}</main></html>\n"
    )


def _figure(metric: str, lines: Mapping[str, Points]) -> str:
    points = [point for line in lines.values() for point in line]
    x_range, y_range = (_range([point[axis] for point in points]) for axis in (0, 1))
    keys = "".join(
        f"<span class='key' style='color:{_colour(part)}'>&#9632; {html.escape(part)}</span>"
        for part in lines
    )
    drawn = "".join(_line(line, _colour(part), x_range, y_range) for part, line in lines.items())
    return (
        f"<figure><figcaption>{html.escape(metric)}{keys}</figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' role='img' "
        f"aria-label='{html.escape(metric)} over steps'>{_axes(x_range, y_range)}{drawn}</svg></figure>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _place(point: tuple[float, float], x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float]:
    across = (point[0] - x[0]) / (x[1] - x[0])
    up = (point[1] - y[0]) / (y[1] - y[0])
    return _LEFT + across * (_WIDTH - _LEFT - 8), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)


def _line(points: Points, colour: str, x: tuple[float, float], y: tuple[float, float]) -> str:
    places = [_place(point, x, y) for point in points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    dots = "".join(f"<circle cx='{a:.1f}' cy='{b:.1f}' r='2.5' fill='{colour}'/>" for a, b in places)
    return f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.6'/>" + (
        dots if len(places) <= 60 else ""
    )


def _axes(x: tuple[float, float], y: tuple[float, float]) -> str:
    parts = []
    for share in (0.0, 0.5, 1.0):
        value = y[0] + share * (y[1] - y[0])
        _, height = _place((x[0], value), x, y)
        parts.append(
            f"<line x1='{_LEFT}' x2='{_WIDTH - 8}' y1='{height:.1f}' y2='{height:.1f}' stroke='{_GREY}'/>"
        )
        parts.append(_text(_LEFT - 6, height + 4, f"{value:.4g}", "end"))
        step = x[0] + share * (x[1] - x[0])
        place, _ = _place((step, y[0]), x, y)
        parts.append(_text(place, _HEIGHT - 8, f"{step:.6g}", "end" if share == 1 else "middle"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='12' fill='{_INK}' text-anchor='{anchor}'>{text}</text>"


def _colour(part: str) -> str:
    return _COLOURS.get(part, _INK)


def _picture(charts: Mapping[str, Mapping[str, Points]], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = min(3, len(charts))
    lines = -(-len(charts) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines), dpi=120, layout="constrained")
    for place, (metric, parts) in enumerate(charts.items(), start=1):
        axes = figure.add_subplot(lines, columns, place)
        for part, points in parts.items():
            axes.plot(*zip(*points, strict=True), color=_colour(part), label=part, linewidth=1.4, marker=".")
        axes.set_title(metric, loc="left", fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(color=_GREY, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
