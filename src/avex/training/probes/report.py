"""The report of a fit: one HTML file without requests, the confusion matrix as PNG, tables as CSV."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avex.io import write_bytes
from avex.training.probes.figures import classes_figure, confusion_figure, history_figure
from avex.training.probes.result import Evaluation, mean_and_deviation

if TYPE_CHECKING:
    from avex.training.probes.result import ProbeFit

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "F1, mean over classes",
    "micro_f1": "F1, over all labels",
    "macro_roc_auc": "ROC AUC, mean over classes",
    "mean_average_precision": "Average precision, mean over classes",
    "top5_accuracy": "True class among the first five",
}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;background:#fff;max-width:60rem;margin:2rem
auto;padding:0 1rem} h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
p.sub{color:#52606d;margin-top:0}table{border-collapse:collapse;margin:.5rem 0} th,td{padding:.2rem .8rem
.2rem 0;text-align:left;border-bottom:1px solid #e4e7eb;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}img{max-width:100%;height:auto}
.wide{overflow-x:auto}.note{color:#52606d;font-size:.9rem}
"""


def write_report(fit: ProbeFit, folder: Path) -> list[Path]:
    """Write `report.html`, and the files of the evaluation, if there is one (`evaluation_files`).

    Args:
        fit: What was trained.
        folder: Created if needed.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    files: dict[str, bytes] = {}
    images: dict[str, bytes] = {}
    if fit.history:
        images["Course of the training"] = history_figure(fit.history)
    if fit.evaluation is not None:
        files = evaluation_files(fit.evaluation)
        if "confusion.png" in files:
            images["Confusion matrix"] = files["confusion.png"]
        images["Classes"] = classes_figure(fit.per_class)
    files["report.html"] = _html(fit, images).encode()
    return write_files(files, folder)


def evaluation_files(evaluation: Evaluation) -> dict[str, bytes]:
    """Contents of `metrics.csv`, `classes.csv`, `predictions.csv` and, for one label each, `confusion.png`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    classes = evaluation.targets.classes
    files = {
        "metrics.csv": _csv(("metric", "value", "low", "high"), _metric_rows(evaluation)),
        "classes.csv": _csv(_CLASS_COLUMNS, _class_rows(evaluation)),
        "predictions.csv": _csv(("name", "true", "predicted", *classes), _prediction_rows(evaluation)),
    }
    if evaluation.confusion is not None:
        files["confusion.png"] = confusion_figure(evaluation.confusion, classes)
    return files


def write_files(files: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files into a folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    return [folder / name for name in files]


_CLASS_COLUMNS = ("class", "examples", "predicted", "precision", "recall", "f1")


def _metric_rows(evaluation: Evaluation) -> Iterable[Sequence[Any]]:
    return [(name, s.value, s.low, s.high) for name, s in evaluation.metrics.items()]


def _class_rows(evaluation: Evaluation) -> list[Sequence[Any]]:
    return [(c.name, c.support, c.predicted, c.precision, c.recall, c.f1) for c in evaluation.per_class]


def _prediction_rows(evaluation: Evaluation) -> Iterable[Sequence[Any]]:
    classes = evaluation.targets.classes
    truth = evaluation.targets.table().astype(bool)
    for name, row, scores in zip(evaluation.names, truth, evaluation.probabilities, strict=True):
        own = ";".join(label for label, is_it in zip(classes, row, strict=True) if is_it)
        yield (name, own, classes[int(scores.argmax())], *(f"{score:.4g}" for score in scores))


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _html(fit: ProbeFit, images: dict[str, bytes]) -> str:
    title = f"Probe '{fit.config.probe_type}' with {len(fit.classes)} classes"
    model = f"; embeddings of {fit.header.card}" if fit.header else ""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<h1>{escape(title)}</h1><p class="sub">{escape(_sizes(fit) + model)}</p>',
        _metrics_html(fit),
    ]
    for heading, image in images.items():
        source = base64.b64encode(image).decode()
        parts.append(f"<h2>{escape(heading)}</h2>")
        parts.append(
            f'<div class="wide"><img alt="{escape(heading)}" src="data:image/png;base64,{source}"></div>'
        )
    if fit.evaluation is not None:
        rows = [(row[0], row[1], row[2], *map(_number, row[3:])) for row in _class_rows(fit.evaluation)]
        parts += ["<h2>Table of classes</h2>", _table(_CLASS_COLUMNS, rows)]
    parts += ["<h2>How it was made</h2>", _table(("setting", "value"), _settings(fit), numeric=False)]
    parts += [f'<p class="note">{escape(note)}</p>' for note in fit.notes]
    return "\n".join(parts) + "</html>\n"


def _sizes(fit: ProbeFit) -> str:
    what = "sequences of windows" if fit.is_sequence else f"{fit.unit}s"
    return ", ".join(f"{count} {what} {_PARTS[name]}" for name, count in fit.sizes.items())


_HEADER_FIELDS = (
    "card",
    "weights_sha256",
    "sample_rate",
    "resampler",
    "window_s",
    "hop_s",
    "channel",
    "precision",
)
_PARTS = {
    "train": "for training",
    "validation": "for validation",
    "test": "for the test",
    "out of fold": "predicted out of fold",
}


def _metrics_html(fit: ProbeFit) -> str:
    if fit.evaluation is None:
        return '<p class="note">No examples were held out, so nothing is known about how good it is.</p>'
    folds = mean_and_deviation(fit.fold_metrics)
    head = ["metric", "value", "95 % interval", *(["mean of folds ± sd"] if folds else [])]
    rows = []
    for name, score in fit.evaluation.metrics.items():
        row = [
            METRIC_NAMES.get(name, name),
            _number(score.value),
            f"{_number(score.low)} – {_number(score.high)}",
        ]
        rows.append([*row, "{:.3f} ± {:.3f}".format(*folds[name])] if folds else row)
    notes = [
        f"{METRIC_NAMES.get(metric, metric)}: without {', '.join(names)}, of which there is no example to "
        "tell."
        for metric, names in fit.evaluation.metrics.left_out.items()
    ]
    notes.append(
        "Intervals are of a bootstrap over recordings: they say how far these examples determine the value, "
        "not how it would change with another training set."
    )
    text = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f"<h2>Metrics</h2>{_table(head, rows)}{text}"


def _settings(fit: ProbeFit) -> list[tuple[str, str]]:
    rows = [("task", fit.task), ("seed", str(fit.seed)), ("seconds", f"{fit.seconds:.1f}")]
    if fit.strength is not None:
        tried = ", ".join(f"{c:g}: {loss:.3f}" for c, loss in fit.strength.losses.items())
        rows.append(
            ("strength C", f"{fit.strength.strength:g}, chosen by log loss inside training ({tried})")
        )
        rows.append(("scaling of logits", f"{fit.strength.scale:.2f}"))
    elif fit.config.probe_type == "linear":
        rows.append(("strength C", f"{fit.options.strength:g}, given"))
    stated = fit.config.model_dump(exclude_none=True)
    rows += [(name, str(value)) for name, value in stated.items()]
    if fit.header is not None:
        rows += [(name, str(getattr(fit.header, name))) for name in _HEADER_FIELDS]
    return rows


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, numeric: bool = True) -> str:
    kind = ' class="n"' if numeric else ""
    cells = "".join(f"<th{kind if i else ''}>{escape(name)}</th>" for i, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{kind if i else ''}>{escape(str(v))}</td>" for i, v in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
