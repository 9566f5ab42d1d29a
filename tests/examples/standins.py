"""Small files with random weights in the layouts that AVES is published in, under the published names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from avex.models.hubert.checkpoint import export_state
from avex.models.hubert.model import Hubert

# As many layers as the base model, heads of the published length, everything else small.
SIZES = {
    "extractor_conv_layer_config": [[16, 10, 5], *[[16, 3, 2]] * 4, *[[16, 2, 2]] * 2],
    "encoder_embed_dim": 64,
    "encoder_num_heads": 1,
    "encoder_ff_interm_features": 64,
    "encoder_pos_conv_kernel": 16,
}


def write_aves(folder: Path) -> None:
    """The torchaudio port with its JSON and the fairseq original of one small AVES, and an ONNX port of another."""
    torch.manual_seed(0)
    state = Hubert(init_config=SIZES).state_dict()
    torch.save(export_state(state, "torchaudio"), folder / "aves-base-bio.torchaudio.pt")
    torch.save({"args": None, "model": export_state(state, "fairseq")}, folder / "aves-base-bio.pt")
    config = folder / "aves-base-bio.torchaudio.model_config.json"
    config.write_text(json.dumps(SIZES), encoding="utf-8")
    onnx = Path(__file__).resolve().parents[1] / "golden" / "hubert" / "aves_tiny.onnx"
    shutil.copy(onnx, folder / "aves-base-bio.onnx")
