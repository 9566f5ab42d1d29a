"""What becomes of the classifier.

    python examples/06_classifier_head_loading.py [--model NAME]

Three things decide it: whether you ask for features, whether you say how many classes, and whether there
are weights, with a classifier or without. The table shows every combination as it happens, with small
networks and random weights that are saved and loaded again; `--model NAME` does the same with a card and
its real weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import avex

SMALL = {"encoder_layers": 1, "encoder_embed_dim": 96, "encoder_ffn_embed_dim": 96}
LABELS = ["frog", "newt", "duck", "bat"]
QUESTIONS: tuple[dict[str, Any], ...] = ({}, {"num_classes": 10}, {"return_features_only": True})


def write_card(folder: Path, name: str, *, weights: bool, head: bool) -> Path:
    """A card, and beside it what it needs: weights with or without a classifier, labels."""
    network = avex.build_model("beats", num_classes=len(LABELS) if head else None, init_config=SMALL)
    lines = [f"name: {name}", f"model_spec: {{name: beats, device: cpu, init_config: {json.dumps(SMALL)}}}"]
    if weights:
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        lines.append(f"checkpoint_path: {name}.safetensors")
    else:
        lines[1] = lines[1].replace("device: cpu", "device: cpu, pretrained: false")
    if head:
        (folder / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")
        lines.append("class_mapping_path: labels.json")
    card = folder / f"{name}.yml"
    card.write_text("\n".join(lines), encoding="utf-8")
    return card


def row(card: str | Path, title: str, question: dict[str, Any]) -> str:
    model: nn.Module = avex.load_model(card, device="cpu", **question)
    asked = ", ".join(f"{key}={value}" for key, value in question.items()) or "-"
    silence = torch.zeros(1, round((model.window_seconds or 1) * model.sample_rate))
    with torch.inference_mode():
        shape = tuple(model(silence).shape)
    report = getattr(model, "load_report", None)
    weights = "none" if report is None else "loaded"
    return f"{title:<28}{asked:<27}{_head(model, report):<24}{weights:<10}{shape}"


def _head(model: nn.Module, report: Any) -> str:
    if model.return_features_only:
        return "none: features"
    if report is not None and not report.reset:
        return f"kept, {'labels' if hasattr(model, 'label_mapping') else 'no labels'}"
    return "new, random"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", metavar="NAME", help="a card (avex list-models) whose weights to load")
    name = parser.parse_args().model

    torch.manual_seed(0)
    print(f"{'weights of the card':<28}{'you ask for':<27}{'classifier':<24}{'backbone':<10}output")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cards = {
            "with a classifier": write_card(folder, "with_head", weights=True, head=True),
            "without a classifier": write_card(folder, "without_head", weights=True, head=False),
            "none": write_card(folder, "no_weights", weights=False, head=False),
        }
        for title, card in {**cards, **({name: name} if name else {})}.items():
            for question in QUESTIONS:
                print(row(card, title, question))

        # A classifier of the same size as the checkpoint's is a new one all the same: it was asked for.
        kept = avex.load_model(cards["with a classifier"])
        new = avex.load_model(cards["with a classifier"], num_classes=len(LABELS))
        same = torch.equal(kept.classifier.weight, new.classifier.weight)
        print(f"\nnum_classes={len(LABELS)} keeps the classifier of {len(LABELS)}: {same}")
        print(f"what the report says of it: reset = {', '.join(new.load_report.reset)}")


if __name__ == "__main__":
    main()
