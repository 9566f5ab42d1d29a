"""Checkpoints and their labels.

    python examples/02_checkpoint_loading.py [--model NAME]

Shows where the weights of a card come from, how to give your own instead, how labels travel with them, and
what avex says about a file that does not fit. The checkpoint is made here, from a small network with random
weights; with `--model NAME` the weights of that card are loaded at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import textwrap
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import avex
from avex.io import sha256_of

SMALL = {"encoder_layers": 2, "encoder_embed_dim": 96, "encoder_ffn_embed_dim": 96}
LABELS = ["frog", "newt", "duck"]
CARD = """\
name: pond_beats
checkpoint_path: pond.safetensors
sha256: {sha256}
class_mapping_path: labels.json
license: MIT
model_spec:
  name: beats
  device: cpu
  init_config: {init_config}
"""


def where_weights_are() -> None:
    print("Weights of some cards (nothing is downloaded by asking):")
    for name in ("birdnet", "esp_aves2_sl_beats_all", "aves_base_bio", "perch_v1"):
        print(f"  {name:<24}{avex.get_checkpoint_path(name)}")


def make_checkpoint(folder: Path) -> nn.Module:
    """Stands for your training: a network, its weights and its labels."""
    torch.manual_seed(0)
    network = avex.build_model("beats", device="cpu", num_classes=len(LABELS), init_config=SMALL).eval()
    save_file(network.state_dict(), folder / "pond.safetensors")
    # As torch.save writes it after training on several GPUs: every key begins with "module.".
    parallel = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": parallel, "epoch": 7}, folder / "pond.pt")
    (folder / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")
    return network


def load_your_own(folder: Path, network: nn.Module) -> None:
    audio = 0.1 * torch.randn(2, 16000)
    for name in ("pond.safetensors", "pond.pt"):
        model = avex.load_model("beats", checkpoint_path=folder / name, init_config=SMALL, device="cpu")
        same = torch.equal(model(audio), network(audio))
        report = model.load_report
        print(
            f"  {name}: {len(report.loaded)} tensors, {report.num_parameters:,} numbers, same output: {same}"
        )


def load_by_card(folder: Path) -> None:
    card = folder / "pond_beats.yml"
    settings = json.dumps(SMALL)
    card.write_text(CARD.format(sha256=sha256_of(folder / "pond.safetensors"), init_config=settings))
    model = avex.load_model(card, device="cpu")
    labels = model.label_mapping
    print(f"  classes: {labels.labels}")
    print(f"  index of 'newt': {labels['label_to_index']['newt']}, label 2: '{labels['index_to_label'][2]}'")
    print(f"  labels alone: {avex.load_label_mapping(folder / 'labels.json').labels}")


def what_is_refused(folder: Path) -> None:
    (folder / "cut.safetensors").write_bytes((folder / "pond.safetensors").read_bytes()[:-1000])
    save_file({"something.weight": torch.zeros(3)}, folder / "other.safetensors")
    wider = {**SMALL, "encoder_ffn_embed_dim": 128}
    for title, name, settings in [
        ("a file that was cut off", "cut.safetensors", SMALL),
        ("a file of another network", "other.safetensors", SMALL),
        ("other sizes than the file's", "pond.safetensors", wider),
        ("a file that is not there", "pont.safetensors", SMALL),
    ]:
        try:
            avex.load_model("beats", checkpoint_path=folder / name, init_config=settings, device="cpu")
        except (RuntimeError, OSError) as error:  # WeightsError is a RuntimeError, a missing file an OSError
            message = str(error).replace(f"{folder}/", "")
            print(f"  {title}: {textwrap.shorten(message, 170, placeholder=' ...')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", metavar="NAME", help="a card (avex list-models) whose weights to load")
    name = parser.parse_args().model

    where_weights_are()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = make_checkpoint(folder)
        print("\nYour own checkpoint instead of a card's:")
        load_your_own(folder, network)
        print("\nThe same with a card, which checks the sha256 and brings the labels:")
        load_by_card(folder)
        print("\nWhat is refused:")
        what_is_refused(folder)
    if name:
        print(f"\n{avex.load_model(name, device='cpu').load_report.summary()}")


if __name__ == "__main__":
    main()
