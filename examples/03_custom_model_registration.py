"""A model of your own, from the class to the table.

    python examples/03_custom_model_registration.py [OUTPUT]

The network here is not trained, so its detections mean nothing; what counts is that every step works. On
the command line the last steps read:

    avex check pond.yml --plugin 03_custom_model_registration.py
    avex embed recordings/ -m pond.yml --plugin 03_custom_model_registration.py -o mine.parquet
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import avex
from avex.configs import AudioConfig, ModelSpec
from avex.io import sha256_of
from avex.models.base_model import ModelBase

RECORDINGS = Path(__file__).parent / "audio"
LABELS = ["frog", "newt", "duck"]
CARD = """\
name: pond
description: Calls at the pond, three classes
checkpoint_path: pond_net.safetensors
sha256: {sha256}
class_mapping_path: labels.json
num_classes: 3
license: MIT
activation: softmax
model_spec:
  name: pond_net
  device: cpu
  audio_config: {{sample_rate: 16000, representation: raw, normalize: false, target_length_seconds: 5}}
"""


@avex.register_model_class
class PondNet(ModelBase):
    """Two convolutions over the waveform, the mean over time, a linear classifier."""

    name = "pond_net"

    def __init__(
        self,
        device: str = "cpu",
        audio_config: AudioConfig | None = None,
        num_classes: int = len(LABELS),
        channels: int = 16,
    ) -> None:
        super().__init__(device=device, audio_config=audio_config)
        self.encoder = nn.Sequential(
            nn.Conv1d(1, channels, kernel_size=400, stride=160),
            nn.ReLU(),
            nn.Conv1d(channels, channels, kernel_size=3, stride=2),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, C) of waveforms (B, S)."""
        return self.classifier(self.encoder(x[:, None]).mean(-1))


def save(folder: Path) -> Path:
    """Write weights, labels and a card; return the path of the card."""
    torch.manual_seed(0)
    weights = folder / "pond_net.safetensors"
    save_file(PondNet().state_dict(), weights)
    (folder / "labels.json").write_text(json.dumps(LABELS), encoding="utf-8")
    card = folder / "pond.yml"
    card.write_text(CARD.format(sha256=sha256_of(weights)), encoding="utf-8")
    return card


def main(folder: Path = Path("example-output")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    card = save(folder)

    model = avex.load_model(card, device="cpu")
    print(model.load_report.summary())
    print("Labels:", ", ".join(model.label_mapping.labels))

    store = avex.embed(RECORDINGS, card, folder / "mine.parquet")
    print(f"Embedded {len(store)} windows of {store.header.window_s:g} s: {store.to_numpy().shape}")
    found = avex.predict(RECORDINGS, card, folder / "tables", min_conf=0, top_n=1)
    print(f"Wrote {len(found.files)} selection tables")

    # Without a card: a spec under a name of its own, with random weights and another number of classes.
    audio = AudioConfig(sample_rate=16000, target_length_seconds=5)
    avex.register_model("pond_wide", ModelSpec(name="pond_net", device="cpu", audio_config=audio))
    wide = avex.build_model("pond_wide", num_classes=10, channels=32)
    print("A fresh network:", tuple(wide(torch.zeros(1, 16000)).shape))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
