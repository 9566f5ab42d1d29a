"""What a model can be called, and what loading it gives.

    python examples/01_basic_model_loading.py [--model NAME]

A model is named by a family, a card, a YAML file, a spec, or a name of your own. `num_classes` and
`return_features_only` decide what comes out. So that nothing is downloaded, the networks here are small and
their weights random; with `--model NAME` the last lines show a card with its real weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import avex
from avex.configs import AudioConfig, ModelSpec

SMALL = {"encoder_layers": 2, "encoder_embed_dim": 96, "encoder_ffn_embed_dim": 96}
CARD = """\
name: small_beats
description: BEATs with two layers
model_spec:
  name: beats
  device: cpu
  pretrained: false
  audio_config: {sample_rate: 16000, representation: raw, normalize: false, target_length_seconds: 5}
  init_config: {encoder_layers: 2, encoder_embed_dim: 96, encoder_ffn_embed_dim: 96}
"""


def ways_to_name_a_model(folder: Path) -> Iterator[tuple[str, nn.Module]]:
    # A family is an architecture. Options that belong to it are checked, never dropped.
    yield "a family", avex.load_model("beats", device="cpu", init_config=SMALL)
    yield (
        "a family, new classifier",
        avex.load_model("beats", device="cpu", num_classes=10, init_config=SMALL),
    )
    yield "another family", avex.load_model("efficientnet", device="cpu", num_classes=10)

    # A YAML file is what you share with a colleague.
    card = folder / "small_beats.yml"
    card.write_text(CARD, encoding="utf-8")
    yield "a YAML file", avex.load_model(card, device="cpu")

    # A spec is the same in Python, and a registered spec has a name.
    audio = AudioConfig(sample_rate=16000, representation="raw", normalize=False, target_length_seconds=5)
    spec = ModelSpec(name="beats", pretrained=False, device="cpu", audio_config=audio, init_config=SMALL)
    yield "a spec", avex.load_model(spec, num_classes=3)
    avex.register_model("my_beats", spec)
    yield "a name of your own", avex.load_model("my_beats", num_classes=3)


def ways_to_use_a_card(name: str) -> Iterator[tuple[str, nn.Module]]:
    yield f"{name}", avex.load_model(name, device="cpu")
    yield f"{name}, new classifier", avex.load_model(name, device="cpu", num_classes=10)
    yield f"{name}, features", avex.load_model(name, device="cpu", return_features_only=True)


def show(title: str, model: nn.Module) -> None:
    seconds = model.window_seconds or 5
    silence = torch.zeros(1, round(seconds * model.sample_rate))
    with torch.inference_mode():
        output, embedding = model(silence), model.embed(silence)
    labels = f"{model.label_mapping.num_classes} labels" if hasattr(model, "label_mapping") else "no labels"
    print(
        f"{title:<26}{type(model).__name__:<18}{seconds:>4g} s at {model.sample_rate} Hz  "
        f"output {tuple(output.shape)!s:<18}embedding {embedding.shape[1]:<5} {labels}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", metavar="NAME", help="a card (avex list-models) whose weights to load")
    name = parser.parse_args().model

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for title, model in ways_to_name_a_model(Path(folder)):
            show(title, model)
    for title, model in ways_to_use_a_card(name) if name else ():
        show(title, model)

    # A name that does not exist is an error that suggests others.
    try:
        avex.load_model("esp_aves2_sl_beats_al")
    except ValueError as error:
        print(f"\n{error}")


if __name__ == "__main__":
    main()
