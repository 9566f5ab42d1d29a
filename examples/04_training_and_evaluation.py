"""Train a model, keep its best state, evaluate it on clips it has not heard.

    python examples/04_training_and_evaluation.py [OUTPUT]

A plain PyTorch loop: three kinds of invented calls in noise, a small convolutional network that starts from
random weights, a validation set that decides which state to keep, a test set for the report. The best state
is saved with its labels and a card, and loads like any other model. For your own recordings change
`datasets`.

With `--model NAME` training starts from the weights of that card; then a smaller learning rate (`--lr
1e-4`) and a GPU (`--device cuda`) are in order.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from synthetic_calls import CLASSES, make_calls
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import avex
from avex.configs import AudioConfig
from avex.models.base_model import ModelBase

AUDIO: dict[str, Any] = {
    "sample_rate": 16000,
    "n_fft": 512,
    "hop_length": 160,
    "n_mels": 64,
    "representation": "mel_spectrogram",
    "target_length_seconds": 1,
}
CARD = """\
name: my_calls
checkpoint_path: my_calls.safetensors
class_mapping_path: my_calls.labels.json
license: MIT
activation: softmax
model_spec:
  name: call_net
  device: cpu
  audio_config: {audio_config}
"""


@avex.register_model_class
class CallNet(ModelBase):
    """Four convolutions over a log-mel picture, the mean over the picture, a linear classifier."""

    name = "call_net"

    def __init__(
        self,
        device: str = "cpu",
        audio_config: AudioConfig | dict[str, Any] = AUDIO,
        num_classes: int = len(CLASSES),
    ) -> None:
        super().__init__(device=device, audio_config=audio_config)
        channels = (1, 16, 32, 64, 64)
        layers = [block(a, b) for a, b in itertools.pairwise(channels)]
        self.encoder = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels[-1], num_classes)
        self.to(device)

    def forward(self, x: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, C) of waveforms (B, S)."""
        picture = self.process_audio(x)  # (B, mels, frames), between 0 and 1
        return self.classifier(self.encoder(picture[:, None]).mean((2, 3)))


def block(inputs: int, outputs: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def datasets(sample_rate: int) -> dict[str, TensorDataset]:
    """Clips (N, samples) and classes (N,), three times; no clip is in two sets."""
    sets = {}
    for seed, (name, count) in enumerate({"train": 480, "validation": 90, "test": 150}.items()):
        clips, labels = make_calls(count, 1.0, sample_rate, seed)
        sets[name] = TensorDataset(torch.from_numpy(clips), torch.from_numpy(labels))
    return sets


def train_one_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    model.train()
    total = 0.0
    for clips, labels in loader:
        loss = nn.functional.cross_entropy(model(clips.to(model.device)), labels.to(model.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item() * len(clips)
    return total / len(loader.dataset)


@torch.inference_mode()
def evaluate(model: nn.Module, data: TensorDataset) -> torch.Tensor:
    """Confusion matrix (classes, classes): rows are what was there, columns what the model said."""
    model.eval()
    counts = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.long)
    for clips, labels in DataLoader(data, batch_size=64):
        said = model(clips.to(model.device)).argmax(1).cpu()
        counts.index_put_((labels, said), torch.tensor(1), accumulate=True)
    return counts


def accuracy(confusion: torch.Tensor) -> float:
    return confusion.diagonal().sum().item() / confusion.sum().item()


def train(model: nn.Module, sets: dict[str, TensorDataset], epochs: int, lr: float) -> float:
    """Train, and leave the model in the state that was best on the validation set; return that accuracy."""
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(sets["train"], batch_size=32, shuffle=True, generator=order)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs)
    best, best_state = -1.0, {}
    for epoch in range(1, epochs + 1):
        loss = train_one_epoch(model, loader, optimizer)
        schedule.step()
        right = accuracy(evaluate(model, sets["validation"]))
        print(f"epoch {epoch:>2}/{epochs}  loss {loss:.3f}  validation accuracy {right:.3f}")
        if right > best:
            best, best_state = right, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return best


def report(confusion: torch.Tensor) -> None:
    print(f"\n{'':<10}" + "".join(f"{name:>10}" for name in CLASSES) + "    recall")
    for name, row in zip(CLASSES, confusion, strict=True):
        recall = row[CLASSES.index(name)].item() / row.sum().item()
        print(f"{name:<10}" + "".join(f"{count:>10}" for count in row.tolist()) + f"{recall:>10.2f}")
    print(f"test accuracy {accuracy(confusion):.3f} (chance {1 / len(CLASSES):.3f})")


def save(model: nn.Module, folder: Path) -> Path:
    """Weights, labels and a card; `avex predict -m my_calls.yml --plugin 04_training_and_evaluation.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "my_calls.safetensors")
    (folder / "my_calls.labels.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    card = folder / "my_calls.yml"
    card.write_text(CARD.format(audio_config=json.dumps(AUDIO)), encoding="utf-8")
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", nargs="?", type=Path, default=Path("example-output"))
    parser.add_argument("--model", metavar="NAME", help="a card whose weights to start from")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=2e-3, help="largest learning rate (default: 2e-3)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    torch.manual_seed(0)
    if options.model:
        model = avex.load_model(options.model, num_classes=len(CLASSES), device=options.device)
    else:
        model = avex.build_model("call_net", options.device)
    sets = datasets(model.sample_rate)
    train(model, sets, options.epochs, options.lr)
    confusion = evaluate(model, sets["test"])
    report(confusion)

    if not options.model:
        card = save(model, options.output)
        again = avex.load_model(card, device="cpu")
        same = torch.equal(evaluate(again, sets["test"]), confusion)
        print(f"\nsaved {card}; loaded again it gives the same confusion matrix: {same}")


if __name__ == "__main__":
    main()
