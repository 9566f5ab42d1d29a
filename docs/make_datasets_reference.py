"""Write docs/reference/datasets.md from the task and benchmark cards, so that they cannot disagree.

    python docs/make_datasets_reference.py

A test compares the committed file with what this script makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from avex.configs.cards import TaskCard
from avex.data.cards import benchmark_card, benchmark_names, task_card, task_names

TARGET = Path(__file__).parent / "reference" / "datasets.md"
HEAD = """\
# Tasks and benchmarks

<!-- Made by docs/make_datasets_reference.py from the cards themselves. Do not edit; run the script. -->

A task is data with labels and a main metric, a benchmark is a list of tasks. Both are cards, YAML files in
`src/avex/api/configs/datasets` and `benchmarks`; `avex datasets list` shows them, and `dataset_config` of
an evaluation takes their names. avex comes with no data: `avex datasets path TASK` says where they are
looked for and what to do to have them, `avex datasets check TASK` whether they are complete. Data lie in
one folder per dataset, inside the folder that `AVEX_DATA` or `--data` names. For recordings of your own see
[your own benchmark](../how-to/your-own-benchmark.md).

Clips are read at the rate of the model, not at that of published results, which is given here. Where a card
has no validation part, a fifth of the training clips is held out; where it has folds, each is the test
once. A recording, or a group, in two parts is an error.
"""
_KINDS = {
    "classification": "Classification",
    "detection": "Detection",
    "individual": "Individuals",
    "repertoire": "Repertoires",
    "zero-shot": "BEANS-Zero",
}


def render() -> str:
    """Return the whole page."""
    cards = [task_card(name) for name in task_names()]
    parts = [HEAD, "## Benchmarks\n", _benchmarks()]
    for kind, title in _KINDS.items():
        chosen = [card for card in cards if card.task == kind]
        parts += [f"## {title}\n", _overview(chosen)]
        parts += [_details(card) for card in chosen]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _benchmarks() -> str:
    rows = []
    for name in benchmark_names():
        card = benchmark_card(name)
        rows.append((f"`{name}`", card.description, ", ".join(f"`{task}`" for task in card.tasks)))
    return _table(("benchmark", "what", "tasks"), rows)


def _overview(cards: Iterable[TaskCard]) -> str:
    rows = []
    for card in cards:
        main, *others = card.evaluation_set().metrics
        clips = ", ".join(f"{part} {count:,}" for part, count in card.num_clips.items())
        rows.append(
            (
                f"[`{card.name}`](#{card.name})",
                card.description,
                str(card.num_classes or "from data"),
                clips,
                " · ".join(_split(card)),
                ", ".join([f"**{main}**", *others]),
                card.license,
            )
        )
    return _table(("task", "what", "classes", "clips", "splits", "metrics", "licence"), rows)


def _split(card: TaskCard) -> list[str]:
    return [f"{name}: {part.split}" for name, part in card.parts().items()]


def _details(card: TaskCard) -> str:
    rate = f"{card.sample_rate} Hz" if card.sample_rate else "that of the model"
    length = f", at most {card.max_seconds:g} s" if card.max_seconds else ""
    lines = [
        f"### {card.name}\n",
        f"- Files in `{card.layout.folder}`: {', '.join(f'`{name}`' for name in card.layout.files)}. "
        f"{card.layout.description}".rstrip(),
        f"- Published results: {rate}{length}. Retrieval: {card.retrieval_mode}. Card version {card.version}.",
        f"- Source: {_link(card.source)}" + (f"; paper: {_link(card.paper)}" if card.paper else ""),
        f"- Cite: {card.citation}",
    ]
    lines += [f"- Licence: {card.license_note}"] if card.license_note else []
    lines += [f"- {card.note}"] if card.note else []
    return "\n".join(lines)


def _link(text: str | None) -> str:
    return f"<{text}>" if text and text.startswith("http") and " " not in text else text or ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
