"""The leaderboard as one HTML page: sortable tables and figures, all in the file, usable offline."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from avex.evaluation.leaderboard import Board, Cell, metric_of, superseded_text
from avex.evaluation.plots import layers_figure, scatter_figure, shots_figure
from avex.evaluation.results import Result
from avex.training.probes.figures import confusion_figure

_MODES = {
    "probe": "Probe",
    "finetune": "Fine-tuning",
    "knn": "Nearest neighbours",
    "retrieval": "Retrieval",
    "clustering": "Clustering",
    "fewshot": "Few shots",
}
_MOST_CLASSES = 60
_STYLE = """
:root{--ink:#1f2933;--soft:#52606d;--line:#e4e7eb;--paper:#fff;--best:#e6f2ee}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:76rem;margin:2rem auto;padding:0 1.2rem}h1{font-size:1.6rem;margin:0}
h2{font-size:1.2rem;margin:2.2rem 0 .3rem}
h3{font-size:1rem;margin:1.6rem 0 .2rem}p{margin:.2rem 0;color:var(--soft)}nav a{margin-right:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0}th,td{padding:.35rem .9rem .35rem 0;
text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums}td.n small{color:var(--soft);margin-left:.4rem}td.best{background:var(--best)}
th button{all:unset;cursor:pointer;font-weight:600}th button:focus-visible{outline:2px solid #0072b2}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
img{max-width:100%;height:auto}.grid{display:flex;flex-wrap:wrap;gap:1.2rem}figure{margin:0;max-width:36rem}
figcaption{color:var(--soft);font-size:.9rem}details summary{cursor:pointer}
"""
_SCRIPT = """
for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const head = button.closest('th'), body = head.closest('table').tBodies[0], i = head.cellIndex;
  const down = head.getAttribute('aria-sort') ? head.getAttribute('aria-sort') === 'ascending'
    : head.classList.contains('n');
  for (const other of head.parentNode.cells) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const key = row => row.cells[i].dataset.value ?? row.cells[i].textContent;
  const rows = [...body.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === '' || y === '') return (x === '') - (y === '');
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  body.append(...rows);
});
"""


def render_page(
    boards: Sequence[Board],
    results: Sequence[Result],
    superseded: Sequence[Result] = (),
    *,
    figures: bool = True,
) -> str:
    """Make the page.

    Args:
        boards: Tables, one per mode.
        results: What figures and the list of models are made of.
        superseded: Results that newer ones replace: they are named, not shown.
        figures: Draw figures.

    Raises:
        MissingExtraError: Figures are wanted, and matplotlib is not installed.
    """
    links = "".join(f'<a href="#{b.mode}">{_MODES[b.mode]}</a>' for b in boards)
    tables = "".join(_board(board) for board in boards)
    drawn = _figures(results) if figures else ""
    said = superseded_text(superseded)
    note = f"<p>{escape(said)}</p>" if said else ""
    latest = max((r.finished_utc for r in results), default="")
    experiments = len({r.experiment for r in results})
    tasks = len({r.task for r in results})
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Leaderboard</title><style>{_STYLE}</style></head><body><h1>Leaderboard</h1>"
        f"<p>{len(results)} results of {_count(experiments, 'experiment')} on {_count(tasks, 'task')}, the latest "
        f"of {escape(latest)}. Small numbers are 95 % intervals; of several seeds, the smallest and the largest. "
        "A column is sorted by its head; the best value of each is shaded.</p>"
        f"<nav>{links}</nav>{tables}{note}{drawn}{_models(results)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _board(board: Board) -> str:
    several = len(board.tasks) > 1
    heads = ["experiment", *board.tasks, *(["mean"] if several else [])]
    cells = "".join(_head(text, number=i > 0) for i, text in enumerate(heads))
    best = {task: _best([row[task] for row in board.rows.values() if task in row]) for task in board.tasks}
    rows = []
    for name, row in board.rows.items():
        texts = [f"<td>{escape(name)}</td>", *(_cell(row.get(task), best[task]) for task in board.tasks)]
        if several:
            mean = board.means.get(name)
            texts.append(
                _cell(None if mean is None else Cell(mean, None, None), max(board.means.values(), default=0))
            )
        rows.append(f"<tr>{''.join(texts)}</tr>")
    return (
        f'<h2 id="{board.mode}">{_MODES[board.mode]}</h2><div class="wide"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(text: str, *, number: bool) -> str:
    return f'<th{" class=n" if number else ""}><button type="button">{escape(text)}</button></th>'


def _best(cells: Sequence[Cell]) -> float:
    return max((cell.value for cell in cells if cell.value is not None), default=0.0)


def _cell(cell: Cell | None, best: float) -> str:
    if cell is None or cell.value is None:
        return '<td class="n" data-value=""></td>'
    bounds = ""
    if cell.low is not None and cell.high is not None and cell.low != cell.high:
        bounds = f"<small>{cell.low:.3f} – {cell.high:.3f}</small>"
    shade = " best" if cell.value >= best else ""
    return f'<td class="n{shade}" data-value="{cell.value}">{cell.value:.3f}{bounds}</td>'


def _models(results: Sequence[Result]) -> str:
    rows: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for result in results:
        rows[result.experiment, str(result.model["card"]), str(result.model["weights"])] = result.model
    heads = (
        "experiment",
        "model",
        "weights (sha256)",
        "layers",
        "sample rate (Hz)",
        "window (s)",
        "precision",
    )
    lines = []
    for (experiment, card, weights), model in rows.items():
        texts = (
            experiment,
            card,
            weights[:12],
            _short_list(model["layers"]),
            model["sample_rate"],
            "any" if model["window_s"] is None else f"{model['window_s']:g}",
            model["precision"],
        )
        lines.append("<tr>" + "".join(f"<td>{escape(str(text))}</td>" for text in texts) + "</tr>")
    cells = "".join(_head(text, number=False) for text in heads)
    return (
        f'<h2>Models</h2><div class="wide"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _short_list(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names) if len(names) <= most else f"{names[0]}, … {names[-1]} ({len(names)})"


def _figures(results: Sequence[Result]) -> str:
    by_task: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_task[result.task].append(result)
    return "".join(f"<h2>{escape(task)}</h2>{_task_figures(own)}" for task, own in sorted(by_task.items()))


def _task_figures(results: Sequence[Result]) -> str:
    drawn = [
        *_curves(results, "layers", "A linear probe on each layer", layers_figure),
        *_curves(results, "shots", "Training clips per class", shots_figure),
    ]
    single, projected = [], set()
    for result in results:
        scatter, confusion = result.details.get("scatter"), result.details.get("confusion")
        embeddings = (result.model["weights"], result.model["layers"][-1], result.model["pooling"])
        if scatter and embeddings not in projected:
            projected.add(embeddings)
            single.append(
                _image(scatter_figure(scatter), f"{result.experiment}: embeddings of the tested clips")
            )
        if result.mode in ("probe", "finetune") and confusion and len(confusion["classes"]) <= _MOST_CLASSES:
            image = confusion_figure(np.asarray(confusion["counts"]), confusion["classes"])
            single.append(
                _image(image, f"{result.experiment}, {_MODES[result.mode].lower()}: which class for which")
            )
    shown = f'<div class="grid">{"".join(drawn)}</div>' if drawn else ""
    if any(len(r.details.get("confusion", {}).get("classes", ())) > _MOST_CLASSES for r in results):
        shown += (
            f"<p>More than {_MOST_CLASSES} classes: confusion matrices are in the files of results only.</p>"
        )
    if not single:
        return shown
    images = f'<div class="grid">{"".join(single)}</div>'
    return f"{shown}<details open><summary>By experiment</summary>{images}</details>"


def _curves(
    results: Sequence[Result], key: str, title: str, draw: Callable[[Mapping[str, Any], str], bytes]
) -> list[str]:
    curves: dict[str, dict[str, Any]] = defaultdict(dict)
    for result in results:
        if key in result.details:
            curves[metric_of(result, with_shots=False)][result.experiment] = result.details[key]
    return [_image(draw(own, metric), f"{title} ({metric})") for metric, own in curves.items()]


def _image(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
