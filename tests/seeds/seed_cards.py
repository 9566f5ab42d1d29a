"""What the code blocks of the source documents need around them: small models under their names, files, a runner.

The models have the published architecture, sample rate and width, but few layers and seeded random weights.
"""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import avex
from avex.configs import ModelCard
from avex.io import sha256_of
from avex.io.cache import CacheEntry, CacheRecord
from avex.models.beats.model import Beats
from avex.models.eat.model import Eat
from avex.models.efficientnet.model import EfficientNetModel
from avex.models.utils.registry import find_card, unregister_model

LABELS = ["bat", "dog", "Turdus merula", "frog", "whale", "cricket", "Cuculus canorus"]
BEATS = {"encoder_layers": 2, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 32, "conv_pos": 16}
EAT = {"embed_dim": 768, "depth": 1, "num_heads": 12, "mlp_ratio": 0.125}
# Each name of the documents: which file stands for its weights.
FILES = {
    "beats_naturelm": "beats",
    "esp_aves2_naturelm_audio_v1_beats": "beats",
    "beats_iter3_plus_as2m": "beats",
    "sl_beats_animalspeak": "sl_beats",
    "esp_aves2_sl_beats_all": "sl_beats",
    "efficientnet_animalspeak": "efficientnet",
    "sl_eat_animalspeak_ssl_all": "eat",
}


def build(kind: str) -> nn.Module:
    """The small model behind a file, always with the same weights."""
    torch.manual_seed(0)
    if kind.endswith("beats"):
        heads = len(LABELS) if kind == "sl_beats" else None
        return Beats(init_config=BEATS, num_classes=heads).eval()
    if kind == "eat":
        return Eat(eat_cfg=EAT, num_classes=len(LABELS)).eval()
    audio = find_card("efficientnet_animalspeak").model_spec.audio_config
    return EfficientNetModel(audio_config=audio, num_classes=len(LABELS)).eval()


def write_weights(folder: Path) -> None:
    """A checkpoint of each small model, and the labels of those with a classifier."""
    for kind in dict.fromkeys(FILES.values()):
        save_file(build(kind).state_dict(), folder / f"{kind}.safetensors")
    indices = {label: index for index, label in enumerate(LABELS)}
    (folder / "labels.json").write_text(json.dumps(indices), encoding="utf-8")


def small_card(name: str, folder: Path) -> ModelCard:
    """The official card of that name, with the small model's sizes and files."""
    card = find_card(name)
    path = folder / f"{FILES[name]}.safetensors"
    sizes = {"beats": ("init_config", BEATS), "eat": ("eat_cfg", EAT)}
    changes: dict[str, Any] = {}
    for family, (field, values) in sizes.items():
        if card.model_spec.name.startswith(family):
            changes[field] = {**(getattr(card.model_spec, field) or {}), **values}
    if card.model_spec.name.startswith("eat"):
        changes["model_id"] = None  # it would state the published sizes
    spec = card.model_spec.model_copy(update=changes)
    files = {"checkpoint_path": str(path), "sha256": sha256_of(path), "fingerprint": None, "aliases": []}
    if card.class_mapping_path:
        files["class_mapping_path"] = str(folder / "labels.json")
    return card.model_copy(update={"name": name, "model_spec": spec, **files})


@contextmanager
def registered(folder: Path) -> Iterator[None]:
    """The small models under the names of the documents, as long as the block runs."""
    before = {name: find_card(name) for name in FILES}
    for name in FILES:
        avex.register_model(name, small_card(name, folder))
    try:
        yield
    finally:
        for name, card in before.items():
            unregister_model(name)
            if card.name == name:  # else it was an alias of another card
                avex.register_model(name, card)


def put_in_cache(uri: str, source: Path) -> Path:
    """Let a remote file look as if it had been downloaded before."""
    entry = CacheEntry.of(uri)
    entry.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, entry.file)
    entry.remember(CacheRecord(uri, "1", entry.file.stat().st_size, sha256_of(entry.file)))
    return entry.file


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a block as a script of its own, with some names that the document takes for granted.

    Returns:
        The names that it leaves behind.
    """
    module = types.ModuleType("block")
    module.__dict__.update(names)
    sys.modules["block"] = module  # classes look their module up
    try:
        exec(compile(code, "block", "exec"), module.__dict__)
    finally:
        del sys.modules["block"]
    return module.__dict__
