"""Which layer, and which kind of probe? Two tables with the uncertainty that small test sets have.

    python examples/08_probe_comparison.py [--model NAME] [--layer LAYER] [--heads TYPE ...]

Every clip goes through the encoder once; all probes are trained on the stored features, from the same
splits and seed. The encoder is BirdNET as a PyTorch network if its extra is installed (its weights are
under CC BY-NC-SA 4.0), else a small BEATs with random weights, whose scores mean little. The calls are
invented and faint. `--heads attention transformer` tries the large heads.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from synthetic_calls import CLASSES, make_calls
from torch import nn

import avex
from avex.configs import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.features import Features
from avex.models.probes import Probe, build_probe_from_config

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


def make_probe(head: str, layer: str, features: Features) -> Probe:
    config = ProbeConfig(probe_type=head, target_layers=[layer], **HEADS[head])
    shape = tuple(features.values.shape[1:])
    return build_probe_from_config(config, num_classes=len(CLASSES), input_dim=shape)


def train(probe: Probe, features: Features, labels: torch.Tensor, epochs: int = 60) -> None:
    """Leaves the probe ready for inference."""
    if hasattr(probe, "fit"):  # prototypes and neighbours are remembered, not trained
        probe.fit(features, labels).eval()
        return
    values, _ = probe.head_input(features)
    columns = values.reshape(-1, values.shape[-1])
    probe.set_standardisation(columns.mean(0), columns.std(0))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(probe(features), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimizer.step()
    probe.eval()


def score(head: str, layer: str, sets: list[tuple[dict[str, Features], torch.Tensor]]) -> str:
    """A line of the table: parameters, accuracy on held-out clips with its 95 % interval, seconds of training."""
    (seen, labels), (held_out, truth) = sets
    torch.manual_seed(0)
    probe = make_probe(head, layer, seen[layer])
    started = time.perf_counter()
    train(probe, seen[layer], labels)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        right = int((probe(held_out[layer]).argmax(1) == truth).sum())
    low, high = wilson(right, len(truth))
    count = sum(parameter.numel() for parameter in probe.parameters())
    return f"{count:>11,}  {right / len(truth):.2f}  {low:.2f} to {high:.2f}  {seconds:7.2f}"


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share that behaves at 0 and 1 (Wilson 1927)."""
    share, factor = right / total, 1 / (1 + z * z / total)
    middle = factor * (share + z * z / (2 * total))
    half = factor * z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return middle - half, middle + half


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
    sets = [encode(encoder, layers, count=60, seed=1), encode(encoder, layers, count=90, seed=2)]
    columns = "parameters  held-out accuracy   seconds"

    print(f"One linear probe, several layers of {encoder.name} (mean over time)\n")
    print(f"{'layer':<24}{'a clip gives':<18}{columns}")
    for layer in layers:
        shape = str(tuple(sets[0][0][layer].values.shape[1:]))
        print(f"{layer:<24}{shape:<18}{score('linear', layer, sets)}")

    print(f"\nOne layer, {heard}, several heads\n")
    print(f"{'head':<24}{'reads':<18}{columns}")
    for head in options.heads:
        reads = (
            "time steps"
            if ProbeConfig(probe_type=head, target_layers=[heard], **HEADS[head]).reads_sequences
            else "a mean"
        )
        print(f"{head:<24}{reads:<18}{score(head, heard, sets)}")


if __name__ == "__main__":
    main()
