"""Train a probe on embeddings, use it on recordings, save it and load it again.

    python examples/07_probe_training_and_inference.py [OUTPUT] [--model NAME]

A probe is a small head on a frozen encoder. Trained offline it reads stored embeddings, so every epoch
costs next to nothing; attached to its encoder it reads waveforms. Both are one class with one set of
weights, as the example shows. The encoder is BirdNET if its extra is installed (its weights are under CC
BY-NC-SA 4.0), else a small BEATs with random weights, whose scores mean little; the calls are invented.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from synthetic_calls import CLASSES, make_calls
from torch import nn

import avex
from avex.configs import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.probes import build_probe_from_config, load_probe, load_probe_config, save_probe
from avex.models.probes.utils import list_probe_classes

CONFIG = """\
# my_probe.yml
probe_type: mlp
target_layers: ["last_layer"]
aggregation: mean
hidden_dims: [64]
dropout_rate: 0.2
"""
SMALL = {"encoder_layers": 2, "encoder_ffn_embed_dim": 96}


def load_encoder(name: str | None) -> ModelBase:
    try:
        return avex.load_model(name or "birdnet", return_features_only=True, device="cpu")
    except ImportError as error:
        if name:
            raise
        print(f"No BirdNET here ({error}), so a small BEATs with random weights takes its place.")
        return avex.load_model("beats", return_features_only=True, device="cpu", init_config=SMALL)


@torch.no_grad()
def embed(encoder: ModelBase, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Invented clips (N, samples), their embeddings (N, D) and classes (N,)."""
    clips, labels = make_calls(count, 3.0, encoder.sample_rate, seed)
    waveforms = torch.from_numpy(clips)
    embeddings = torch.cat([encoder.embed(batch) for batch in waveforms.split(16)])
    return waveforms, embeddings, torch.from_numpy(labels)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", nargs="?", type=Path, default=Path("example-output"))
    parser.add_argument("--model", metavar="NAME", help="another encoder (avex list-models)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    encoder = load_encoder(options.model)
    print(f"probe types: {', '.join(list_probe_classes())}")

    # A config, in Python or in a file.
    linear = ProbeConfig(probe_type="linear", target_layers=["last_layer"], aggregation="mean")
    path = options.output / "my_probe.yml"
    path.write_text(CONFIG, encoding="utf-8")
    mlp = load_probe_config(path)

    # Offline: embed once, then train on the embeddings. `fit_probe` fits a linear probe exactly and trains other
    # heads in mini-batches; what it returns holds a plain torch module, for loops of one's own.
    _, embeddings, labels = embed(encoder, 60, seed=1)
    waveforms, held_out, truth = embed(encoder, 30, seed=2)
    names = [CLASSES[i] for i in labels]
    fits = {}
    for config in (linear, mlp):
        fit = avex.fit_probe(embeddings, names, config, classes=CLASSES, split=None)
        right = sum(said == CLASSES[i] for said, i in zip(fit.predict(held_out), truth, strict=True)) / len(
            truth
        )
        fits[config.probe_type] = fit
        print(f"{config.probe_type:<8}{count_parameters(fit.probe):>8,} parameters  held out {right:.3f}")

    # Online: the same probe with its encoder takes waveforms. The frozen encoder is no part of its state dict.
    probe = fits["linear"].probe
    online = build_probe_from_config(linear, num_classes=len(CLASSES), base_model=encoder).eval()
    online.load_state_dict(probe.state_dict())
    with torch.no_grad():
        same = torch.allclose(online(waveforms[:8]), probe(held_out[:8]), atol=1e-4)
    print(f"online as offline: {same}; trainable online: {count_parameters(online):,} parameters")

    # A saved probe knows its classes, its encoder and that encoder's weights; it refuses to run on other ones.
    file = options.output / "calls.probe.safetensors"
    save_probe(online, file, labels=list(CLASSES), metadata={"sample_rate": encoder.sample_rate})
    again = load_probe(file, base_model=encoder)
    with torch.no_grad():
        scores = again(waveforms[:3]).softmax(1)
    print(f"loaded {file.name}:")
    for row, index in zip(scores, truth, strict=False):
        best = int(row.argmax())
        print(f"  {again.info.labels[best]:<10}{row[best]:.3f}   (it is: {CLASSES[index]})")


if __name__ == "__main__":
    main()
