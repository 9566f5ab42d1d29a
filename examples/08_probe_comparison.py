"""Which layer, and which kind of probe? Two tables with the uncertainty that small test sets have.

    python examples/08_probe_comparison.py [--model NAME] [--layer LAYER] [--heads TYPE ...]

Every clip goes through the encoder once; `avex.fit_probe` trains all probes on the stored features, with the same
split and seed. The encoder is BirdNET as a PyTorch network if its extra is installed (its weights are
under CC BY-NC-SA 4.0), else a small BEATs with random weights, whose scores mean little. The calls are
invented and faint. `--heads attention transformer` tries the large heads.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from synthetic_calls import CLASSES, make_calls

import avex
from avex.configs.probe import reads_sequences
from avex.data import Split
from avex.models.base_model import ModelBase
from avex.models.features import Features

HEADS = {
    "linear": {},
    "mlp": {"hidden_dims": [128]},
    "prototype": {},
    "knn": {"knn_neighbors": 5},
    "attention_pooling": {"num_heads": 2},
    "lstm": {"lstm_hidden_size": 64, "num_layers": 1},
    "attention": {"num_heads": 4, "attention_dim": 64},
    "transformer": {"num_heads": 4, "attention_dim": 64, "num_layers": 1},
}
QUICK = ("linear", "mlp", "prototype", "knn", "attention_pooling", "lstm")
SMALL = {"encoder_layers": 4, "encoder_ffn_embed_dim": 96}
TRAINING, TEST = 60, 90  # clips


def load_encoder(name: str | None) -> ModelBase:
    if name:
        return avex.load_model(name, return_features_only=True, device="cpu")
    try:
        return avex.load_model("birdnet", backend="native", return_features_only=True, device="cpu")
    except ImportError as error:
        print(f"No BirdNET here ({error}), so a small BEATs with random weights takes its place.")
        return avex.load_model("beats", return_features_only=True, device="cpu", init_config=SMALL)


def pick_layers(encoder: ModelBase) -> list[str]:
    """A quarter, half and three quarters of the way up, and the encoder's own output."""
    names = encoder.get_model_layers()
    inner = {names[len(names) * quarter // 4] for quarter in (1, 2, 3)} - {names[-1]}
    return [*sorted(inner, key=names.index), "last_layer"]


@torch.no_grad()
def encode(
    encoder: ModelBase, layers: list[str], count: int, seed: int
) -> tuple[dict[str, Features], torch.Tensor]:
    """Unpooled features of each layer, and the classes, of invented clips."""
    clips, labels = make_calls(count, 3.0, encoder.sample_rate, seed, noise=0.5)
    batches = [encoder.layer_features(batch, layers) for batch in torch.from_numpy(clips).split(8)]
    features = {
        layer: Features(torch.cat([batch[layer].values for batch in batches]), batches[0][layer].layout)
        for layer in layers
    }
    return features, torch.from_numpy(labels)


def reads(head: str) -> str:
    return "time steps" if reads_sequences(head) else "a mean"


def score(head: str, layer: str, features: dict[str, Features], labels: torch.Tensor) -> str:
    """A line of the table: parameters, accuracy on held-out clips with its 95 % interval, seconds of training."""
    clips = features[layer].tokens() if reads_sequences(head) else features[layer].pooled("mean")
    config = {"probe_type": head, "target_layers": [layer], **HEADS[head]}
    everything = np.arange(len(labels))
    split = Split(everything[:TRAINING], test=everything[TRAINING:])
    fit = avex.fit_probe(clips, labels, config, classes=CLASSES, split=split, epochs=30)
    accuracy = fit.metrics["accuracy"]
    count = sum(parameter.numel() for parameter in fit.probe.parameters())
    interval = f"{accuracy.low:.2f} to {accuracy.high:.2f}"
    return f"{count:>11,}  {accuracy.value:.2f}  {interval}  {fit.seconds:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", metavar="NAME", help="another encoder (avex list-models)")
    parser.add_argument("--layer", help="layer whose time steps the heads of the second table read")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=QUICK, metavar="TYPE")
    options = parser.parse_args()

    torch.manual_seed(0)
    encoder = load_encoder(options.model)
    layers = pick_layers(encoder)
    heard = encoder.resolve_layers([options.layer])[0] if options.layer else layers[-2]
    layers = list(dict.fromkeys([*layers, heard]))
    features, labels = encode(encoder, layers, count=TRAINING + TEST, seed=1)
    columns = "parameters  held-out accuracy   seconds"

    print(f"One linear probe, several layers of {encoder.name} (mean over time)\n")
    print(f"{'layer':<24}{'a clip gives':<18}{columns}")
    for layer in layers:
        shape = str(tuple(features[layer].values.shape[1:]))
        print(f"{layer:<24}{shape:<18}{score('linear', layer, features, labels)}")

    print(f"\nOne layer, {heard}, several heads\n")
    print(f"{'head':<24}{'reads':<18}{columns}")
    for head in options.heads:
        print(f"{head:<24}{reads(head):<18}{score(head, heard, features, labels)}")


if __name__ == "__main__":
    main()
