"""`avex check`: what it says of the published file, and of a file that is given."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from avex import load_model
from avex.cli import main
from avex.models.beats.checkpoint import export_state
from avex.models.beats.model import Beats
from avex.models.utils.check import check_model
from avex.models.utils.registry import card_names, find_card, load_model_card

SIZES = dict(
    encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=32, encoder_attention_heads=4, embed_dim=16
)
SENTINEL = "backbone.patch_embedding.weight"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def published(tmp_path):
    """A card with a checksum, a fingerprint and the checksum of a tensor; and the weights."""
    torch.manual_seed(0)
    state = Beats(init_config=SIZES).state_dict()
    save_file(state, tmp_path / "tiny.safetensors")
    card = {
        "checkpoint_path": "tiny.safetensors",
        "sha256": sha256((tmp_path / "tiny.safetensors").read_bytes()),
        "tensor_sha256": {SENTINEL: sha256(state[SENTINEL].numpy().tobytes())},
        "model_spec": {"name": "beats", "device": "cpu", "init_config": SIZES},
    }
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(card))
    card["fingerprint"] = check_model(load_model_card(path)).fingerprint
    path.write_text(yaml.safe_dump(card))
    return path, state


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["avex", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    return caught.value.code or 0, out, " ".join(err.split())


def test_the_published_file(published, monkeypatch, capsys):
    path, _ = published
    code, out, err = run(monkeypatch, capsys, path)
    assert (code, err) == (0, "")
    for line in (
        "sha256       verified\n",
        "Fingerprint  matches the card\n",
        "1 of 1 as published\n",
        "OK\n",
    ):
        assert line in out
    code, given, _ = run(monkeypatch, capsys, path, "--checkpoint", path.with_name("tiny.safetensors"))
    assert code == 0
    assert given.splitlines()[1:] == out.splitlines()[1:]  # all but the time it took


def test_the_same_weights_in_another_container(published, tmp_path, monkeypatch, capsys):
    path, state = published
    torch.save({"model": export_state(state, "microsoft")}, tmp_path / "again.pt")
    code, out, err = run(monkeypatch, capsys, path, "--checkpoint", tmp_path / "again.pt")
    assert code == 1
    assert "sha256       DIFFERS from the card" in out
    assert out.endswith("\nFAILED\n")
    assert "layout      microsoft" in out
    assert "1 of 1 as published" in out
    assert "Fingerprint  matches the card" in out
    assert sha256((tmp_path / "again.pt").read_bytes()) in err
    assert "not the published file" in err


def test_other_weights(published, tmp_path, monkeypatch, capsys):
    path, state = published
    save_file({name: value * 1.1 for name, value in state.items()}, tmp_path / "other.safetensors")
    code, out, err = run(monkeypatch, capsys, path, "--checkpoint", tmp_path / "other.safetensors")
    assert code == 1
    assert "Fingerprint  DIFFERS from the card" in out
    assert f"tensor '{SENTINEL}' is not the published one" in err
    assert "rms is" in err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: {"model.stem.weight": torch.zeros(2)}, "0 of"),
        (lambda state: {k: v for k, v in state.items() if "fc1.bias" not in k}, "fc1.bias"),
        (lambda state: {**state, "backbone.surprise": torch.zeros(1)}, "backbone.surprise"),
        (lambda state: {**state, SENTINEL: state[SENTINEL] * torch.nan}, "NaN or infinite"),
    ],
)
def test_a_file_that_does_not_fit(published, tmp_path, monkeypatch, capsys, damage, message):
    path, state = published
    save_file(damage(state), tmp_path / "bad.safetensors")
    code, out, err = run(monkeypatch, capsys, path, "--checkpoint", tmp_path / "bad.safetensors")
    assert code == 1
    assert "Parameters   nothing" in out
    assert out.endswith("\nFAILED\n")
    assert message in err
    assert "Traceback" not in err


def test_a_file_that_is_not_there(published, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, published[0], "--checkpoint", "absent.pt")
    assert code == 1
    assert "'absent.pt' does not exist" in err


def test_published_checksums_of_tensors_name_tensors_of_the_model():
    cards = [card for card in map(find_card, card_names()) if card.tensor_sha256]
    assert len(cards) == 3
    with torch.device("meta"):
        names = Beats(device="meta").state_dict().keys()
    for card in cards:
        assert card.tensor_sha256.keys() <= names


def test_published_hashes_of_an_output(published, monkeypatch, capsys):
    """They are reported, and decide nothing: another version of torch rounds otherwise."""
    path, _ = published
    model = load_model(path)
    seconds = np.arange(16000, dtype=np.float32) / 16000
    tones = [level * np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 440, 880) for level in (0.8, 0.9)]
    with torch.inference_mode():
        tokens = model(torch.from_numpy(np.array(tones, np.float32)))
    theirs = sha256(np.round(tokens.mean(dim=1).numpy(), 4).tobytes())
    card = yaml.safe_load(path.read_text())
    for hashes, words in (
        ({"torch_1": "0" * 64, "torch_2": theirs}, "Output       as published for torch_2\n"),
        (
            {"torch_1": "0" * 64},
            "Output       none of the 1 that were published, which hold to the last bit only\n",
        ),
    ):
        path.write_text(yaml.safe_dump({**card, "output_sha256": hashes}))
        code, out, err = run(monkeypatch, capsys, path)
        assert (code, err) == (0, "")
        assert words in out


def test_cards_state_the_published_hashes_of_outputs():
    """All that avex 1.4.0 published, but for the two models whose files it does not load."""
    stating = {name for name in card_names() if find_card(name).output_sha256}
    official = {name for name in card_names() if name.startswith("esp_aves2_")}
    without = {"esp_aves2_eat_all", "esp_aves2_eat_bio", "esp_aves2_sed_birdcode_beats_encoder"}
    assert stating == official - without
    hashes = [value for name in stating for value in find_card(name).output_sha256.values()]
    assert len(hashes) == 24
    versions = {tuple(find_card(name).output_sha256) for name in stating}
    assert versions == {("torch_2_5_0", "torch_2_6_0", "torch_2_11_0")}


def test_a_file_of_another_size(published, monkeypatch, capsys):
    path, _ = published
    card = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**card, "embedding_dim": 48}))
    code, _, err = run(monkeypatch, capsys, path)
    assert code == 1
    assert "an embedding has 32 values, the card states 48" in err


def test_a_folder(published, tmp_path, monkeypatch, capsys):
    path, _ = published
    code, out, err = run(monkeypatch, capsys, path, "--checkpoint", tmp_path)
    assert code == 1
    assert out.endswith("\nFAILED\n")
    assert "is a folder. Pass the weights file inside it." in err
