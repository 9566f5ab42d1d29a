"""Features of any layer, pooled or not, and when they were heard.

    python examples/05_embedding_extraction.py [--model NAME]

Encoders differ in what they give for a clip: a sequence of frames, patches of time and frequency, a map of
channels. Every model of avex says which (`layout`), so pooling, time steps and layers work the same way for
all. Run on five seconds of a cuckoo. The networks have few layers and random weights, so that nothing is
downloaded: shapes and times are true, values mean nothing. With `--model NAME` the weights of that card are
loaded instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import avex
from avex import audio
from avex.models.base_model import ModelBase

RECORDING = Path(__file__).parent / "audio" / "cuckoo_stereo.flac"
SMALL = {
    "beats": {"init_config": {"encoder_layers": 2, "encoder_ffn_embed_dim": 96}},
    "eat": {"eat_cfg": {"depth": 2, "mlp_ratio": 0.25}},
    "efficientnet": {},
    "aves": {"init_config": {"encoder_num_layers": 2, "encoder_ff_interm_features": 96}},
}


def load(name: str) -> ModelBase:
    return avex.load_model(name, device="cpu", return_features_only=True, **SMALL.get(name, {}))


def read(model: ModelBase, seconds: float = 5) -> torch.Tensor:
    """The beginning of the recording at the rate that a model wants, (1, samples)."""
    samples, _ = audio.read(RECORDING, sample_rate=model.sample_rate, end_s=seconds)
    return torch.from_numpy(samples).reshape(1, -1)


@torch.inference_mode()
def compare_layouts(names: list[str]) -> None:
    print(
        f"{'model':<16}{'what forward gives':<22}{'axes':<9}{'time steps':<18}{'per second':<12}{'embedding'}"
    )
    for name in names:
        model = load(name)
        waveform = read(model)
        features = model.forward_features(waveform)
        assert torch.equal(
            features.values, model(waveform)
        )  # forward gives the values, without their meaning
        rate = f"{model.frame_rate:.2f}" if model.frame_rate else "-"
        shapes = [str(tuple(x.shape)) for x in (features.values, features.sequence(), features.pooled())]
        print(f"{name:<16}{shapes[0]:<22}{features.layout.kind:<9}{shapes[1]:<18}{rate:<12}{shapes[2]}")


@torch.inference_mode()
def frequency_bands(model: ModelBase) -> None:
    """BEATs gives a token for each of eight bands of a time step, the bands of a step side by side."""
    tokens = model(read(model))
    bands = model.layout.freq_bins
    by_step = tokens.reshape(len(tokens), -1, bands, tokens.shape[2])
    print(f"\n{tokens.shape[1]} tokens = {by_step.shape[1]} time steps x {bands} bands, from low to high")
    print(f"the lowest band alone: {tuple(by_step[:, :, 0].shape)}")


@torch.inference_mode()
def choose_layers(model: ModelBase) -> None:
    waveform = read(model)
    print("\nlayers that can be chosen:")
    for number, layer in model.get_model_layer_map().items():
        print(f"  layer_{number:<4}{layer}")
    for layers in (["last_layer"], ["layer_0"], [0, -1], ["all"]):
        embedding = model.embed(waveform, layers=layers)
        print(f"embed(layers={layers}) gives {tuple(embedding.shape)}")


@torch.inference_mode()
def choose_pooling(model: ModelBase) -> None:
    waveform = read(model)
    for aggregation in ("mean", "max", "none"):
        print(
            f"aggregation={aggregation!r} gives {tuple(model.embed(waveform, aggregation=aggregation).shape)}"
        )


@torch.inference_mode()
def when_it_changes(model: ModelBase) -> None:
    """Frame times turn an index into seconds: here, where neighbouring steps differ most."""
    features = model.forward_features(read(model))
    steps, times = features.sequence()[0], features.frame_times()
    change = (steps[1:] - steps[:-1]).norm(dim=1)
    at = int(change.argmax()) + 1
    print(
        f"\n{len(times)} steps, the last begins at {times[-1]:.2f} s; the largest change is at {times[at]:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", metavar="NAME", help="a card (avex list-models) whose weights to load")
    name = parser.parse_args().model

    torch.manual_seed(0)
    compare_layouts([name] if name else list(SMALL))
    model = load(name or "beats")
    if model.layout.kind == "tokens" and model.layout.freq_bins > 1 and not model.layout.num_prefix_tokens:
        frequency_bands(model)
    choose_layers(model)
    choose_pooling(model)
    when_it_changes(model)


if __name__ == "__main__":
    main()
