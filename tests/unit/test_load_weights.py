"""`load_model` and its weights: whose labels, which default, which wrappers, whose memory, what identity."""

from __future__ import annotations

import hashlib
import logging
import os

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import avex
from avex._core.errors import ConfigError, WeightsError
from avex.configs import ModelCard, ModelSpec
from avex.models.base_model import ModelBase
from avex.models.beats.checkpoint import export_state
from avex.models.beats.model import Beats
from avex.models.utils.families import FAMILIES, weights_card
from avex.models.utils.registry import card_names, find_card
from avex.weights.fingerprint import state_fingerprint, weights_identity

pytestmark = pytest.mark.usefixtures("clean_registry")
SIZES = dict(
    encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=32, encoder_attention_heads=4, embed_dim=16
)


@pytest.fixture
def beats():
    torch.manual_seed(0)
    return Beats(init_config=SIZES, num_classes=3).eval()


def load_beats(path, **options):
    return avex.load_model("beats", device="cpu", checkpoint_path=path, init_config=SIZES, **options)


# -- default weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "card"),
    [
        (dict(name="efficientnet"), "efficientnet_b0_imagenet"),
        (dict(name="efficientnet", efficientnet_variant="b1"), "efficientnet_b1_imagenet"),
        (dict(name="birdmae"), "birdmae_huge"),
        (dict(name="birdmae", model_id="DBD-research-group/Bird-MAE-Base"), "birdmae_base"),
        (dict(name="birdmae", model_id="bird-mae-large"), "birdmae_large"),
        (dict(name="eat", model_id="worstchan/EAT-base_epoch30_finetune_AS2M"), "eat_base_finetune_as2m"),
        (dict(name="eat_hf", model_id="worstchan/EAT-large_epoch20_pretrain"), None),
        (dict(name="resnet", variant="resnet50"), "resnet50_imagenet"),
        (dict(name="resnet", variant="resnet34"), None),
        (dict(name="beats", use_naturelm=True), "esp_aves2_naturelm_audio_v1_beats"),
        (dict(name="beats", use_naturelm=False), "beats_iter3_plus_as2m"),
        (dict(name="surfperch"), "surfperch_v1"),
        (dict(name="birdaves"), "birdaves_biox_base"),
        (dict(name="atst_frame"), None),
    ],
)
def test_default_weights_are_those_of_the_variant(spec, card):
    assert weights_card(ModelSpec(**spec)) == card


def test_every_variant_has_its_card_and_fits_it():
    for name, family in FAMILIES.items():
        for variant in family.variants:
            card = find_card(variant.card)
            assert card is not None, variant
            if variant.field not in ("name", "fine_tuned", "use_naturelm", "variant"):
                assert variant.fits(card.model_spec), (name, variant)


def test_a_variant_without_published_weights_says_so():
    with pytest.raises(WeightsError, match="no default weights for 'resnet18' with variant='resnet34'"):
        avex.load_model("resnet", variant="resnet34", pretrained=True, device="cpu")


def test_weights_without_an_address_are_named():
    """`load_model("beats", pretrained=True)` of the documents."""
    with pytest.raises(
        WeightsError, match=r"'beats_iter3_plus_as2m': .* pass BEATs_iter3_plus_AS2M\.pt as checkp"
    ):
        avex.load_model("beats", pretrained=True, device="cpu")


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.state_dict."]
)
@pytest.mark.parametrize("layout", ["avex", "esp", "microsoft"])
def test_wrapped_checkpoints_of_a_family(beats, tmp_path, prefix, layout):
    state = (
        beats.state_dict()
        if layout == "avex"
        else export_state(
            {
                k: v
                for k, v in beats.state_dict().items()
                if layout == "esp" or not k.startswith("classifier.")
            },
            layout,
        )
    )
    torch.save({"model": {prefix + key: value for key, value in state.items()}}, tmp_path / "w.pt")
    model = load_beats(tmp_path / "w.pt", return_features_only=True)
    assert torch.equal(
        model.backbone.encoder.layers[0].fc1.weight, beats.backbone.encoder.layers[0].fc1.weight
    )
    assert "removed from the names" in " ".join(model.load_report.notes)
    assert model.load_report.layout == layout


def test_an_average_of_the_weights_beside_them_is_named(beats, tmp_path):
    average = {name: torch.zeros_like(value) for name, value in beats.state_dict().items()}
    torch.save({"ema": average, "model": beats.state_dict()}, tmp_path / "w.pt")
    model = load_beats(tmp_path / "w.pt")
    assert model.load_report.notes == ("not read: the state dicts 'ema' of the file",)
    assert torch.equal(model.backbone.patch_embedding.weight, beats.backbone.patch_embedding.weight)


def test_nothing_is_removed_that_need_not_be(beats, tmp_path):
    torch.save(beats.state_dict(), tmp_path / "w.pt")
    report = load_beats(tmp_path / "w.pt").load_report
    assert report.notes == ()
    assert "layout      avex" in report.table()


def test_a_dictionary_in_a_dictionary(beats, tmp_path):
    torch.save({"epoch": 3, "model": {"state_dict": beats.state_dict(), "step": 9}}, tmp_path / "w.pt")
    assert load_beats(tmp_path / "w.pt")(torch.zeros(1, 16000)).shape == (1, 3)


# -- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_the_file_may_go_and_is_never_written(beats, tmp_path, name):
    path = tmp_path / name
    (save_file if name.endswith("s") else torch.save)(dict(beats.state_dict()), path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = load_beats(path).train()
    wants_grad = {n: p.requires_grad for n, p in beats.named_parameters()}
    assert {n: p.requires_grad for n, p in model.named_parameters()} == wants_grad
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 16000)).square().sum().backward()
    optimiser.step()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert not torch.equal(model.classifier.weight, beats.classifier.weight)
    values = model.backbone.encoder.layers[0].fc1.weight.clone()
    os.truncate(path, 16)  # a mapped file would end the process here
    assert torch.equal(model.backbone.encoder.layers[0].fc1.weight, values)
    assert model(torch.randn(1, 16000)).isfinite().all()


def test_parameters_do_not_share_memory(beats, tmp_path):
    save_file(beats.state_dict(), tmp_path / "w.safetensors")
    model = load_beats(tmp_path / "w.safetensors")
    save_file(model.state_dict(), tmp_path / "again.safetensors")  # refuses shared memory
    again = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in beats.state_dict().items())
    assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in model.parameters())


def test_a_new_head_beside_a_checkpoint_is_filled(beats, tmp_path):
    save_file(beats.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(1)
    first = load_beats(tmp_path / "w.safetensors", num_classes=7).classifier.weight
    torch.manual_seed(1)
    second = load_beats(tmp_path / "w.safetensors", num_classes=7).classifier.weight
    assert torch.equal(first, second)
    assert 0 < first.abs().max() <= 32**-0.5


class Seeded(ModelBase):
    """A constructor that depends on every random number before."""

    name = "seeded"

    def __init__(self, device="cpu"):
        super().__init__(device)
        torch.manual_seed(3)
        self.net = nn.Linear(8, 4)
        self.register_buffer("directions", torch.randn(4, 2), persistent=False)

    def forward(self, x, padding_mask=None):
        return self.net(x.unfold(1, 8, 8).mean(1)) @ self.directions


def test_a_class_of_the_users_own_is_built_as_it_is_written(tmp_path):
    avex.register_model_class(Seeded)
    original = Seeded()
    with torch.no_grad():
        original.net.weight.add_(1)
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    model = avex.load_model("seeded", checkpoint_path=tmp_path / "w.safetensors")
    x = torch.randn(2, 16)
    assert torch.equal(model(x), original(x))


# -- labels ------------------------------------------------------------------------------------------------


def card_of(tmp_path, beats, **changes):
    save_file(beats.state_dict(), tmp_path / "published.safetensors")
    (tmp_path / "labels.txt").write_text("wren\nrobin\nowl\n")
    card = {
        "checkpoint_path": "published.safetensors",
        "class_mapping_path": "labels.txt",
        "model_spec": {"name": "beats", "device": "cpu", "init_config": SIZES},
        **changes,
    }
    path = tmp_path / "published.yml"
    path.write_text(yaml.safe_dump(card))
    return path


def test_a_files_own_classes_do_not_get_the_cards_labels(tmp_path, beats, caplog):
    card = card_of(tmp_path, beats)
    assert avex.load_model(card).label_mapping.labels == ("wren", "robin", "owl")
    own = {**beats.state_dict(), "classifier.weight": torch.randn(2, 32), "classifier.bias": torch.zeros(2)}
    save_file(own, tmp_path / "own.safetensors")
    with caplog.at_level(logging.WARNING):
        model = avex.load_model(card, checkpoint_path=tmp_path / "own.safetensors")
    assert model(torch.zeros(1, 16000)).shape == (1, 2)
    assert not hasattr(model, "label_mapping")
    assert "2 classes" in caplog.text


def test_a_familys_card_gives_no_labels_to_a_file_that_is_not_its_own(tmp_path, beats, monkeypatch):
    path = card_of(tmp_path, beats)
    avex.register_model("tiny_default", avex.models.utils.registry.load_model_card(path))
    monkeypatch.setitem(
        FAMILIES, "beats", type(FAMILIES["beats"])(FAMILIES["beats"].reference, card="tiny_default")
    )
    model = load_beats(tmp_path / "published.safetensors")
    assert model(torch.zeros(1, 16000)).shape == (1, 3)
    assert not hasattr(model, "label_mapping")
    spec = ModelSpec(name="beats", pretrained=True, device="cpu", init_config=SIZES)
    assert avex.load_model(spec).label_mapping.labels == ("wren", "robin", "owl")


def test_labels_that_a_checkpoint_holds(tmp_path):
    sizes = {**SIZES, "finetuned_model": True, "predictor_class": 3}
    model = Beats(init_config=sizes)
    state = export_state(model.state_dict(), "microsoft")
    names = {0: "/m/09x0r", 1: "/m/015lz1", 2: "/m/0jbk"}
    torch.save({"cfg": sizes, "model": state, "label_dict": names}, tmp_path / "w.pt")
    features = avex.load_model("beats", device="cpu", checkpoint_path=tmp_path / "w.pt")
    assert features.predictor_labels.labels == tuple(names.values())
    assert not hasattr(features, "label_mapping")
    classifier = avex.load_model(
        "beats", device="cpu", checkpoint_path=tmp_path / "w.pt", checkpoint_format="microsoft_audioset"
    )
    assert classifier.label_mapping["index_to_label"] == names
    assert classifier(torch.zeros(1, 16000)).shape == (1, 3)


def test_labels_that_cannot_be_downloaded_are_left_out_with_a_warning(tmp_path, beats, caplog, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    card = card_of(tmp_path, beats, class_mapping_path="hf://org/repo/labels.json")
    with caplog.at_level(logging.WARNING):
        model = avex.load_model(card)
    assert not hasattr(model, "label_mapping")
    assert "without labels: 'hf://org/repo/labels.json'" in caplog.text


# -- identity and precision --------------------------------------------------------------------------------


def test_identity(tmp_path, beats):
    path = card_of(tmp_path, beats)
    sha256 = hashlib.sha256((tmp_path / "published.safetensors").read_bytes()).hexdigest()
    backbone = {k: v for k, v in beats.state_dict().items() if not k.startswith("classifier.")}
    assert weights_identity(avex.load_model(path)) == state_fingerprint(backbone)
    card_of(tmp_path, beats, sha256=sha256[:8])
    verified = avex.load_model(path, num_classes=9)
    assert weights_identity(verified) == sha256
    # Two heads, one embedding: one identity.
    first, second = (load_beats(tmp_path / "published.safetensors", num_classes=5) for _ in range(2))
    assert weights_identity(first) == weights_identity(second) == state_fingerprint(backbone)
    with torch.no_grad():
        second.backbone.layer_norm.bias.add_(1)
    assert weights_identity(second) == weights_identity(first)  # as loaded
    other = load_beats(tmp_path / "published.safetensors")
    with torch.no_grad():
        other.backbone.layer_norm.bias.add_(1)
    assert weights_identity(other) != weights_identity(first)


def test_precision(tmp_path, beats):
    save_file(beats.state_dict(), tmp_path / "w.safetensors")
    exact = load_beats(tmp_path / "w.safetensors")
    low = load_beats(tmp_path / "w.safetensors", precision="bf16")
    assert exact.precision == "fp32"
    assert low.precision == "bf16"
    assert low.backbone.encoder.layers[0].fc1.weight.dtype == torch.bfloat16
    assert weights_identity(low) == weights_identity(exact)
    stated = ModelSpec(name="beats", device="cpu", init_config=SIZES, extra_config={"precision": "bfloat16"})
    assert avex.load_model(stated, checkpoint_path=tmp_path / "w.safetensors").precision == "bf16"
    with pytest.raises(ConfigError, match="Unknown precision 'fp12'"):
        load_beats(tmp_path / "w.safetensors", precision="fp12")


# -- cards -------------------------------------------------------------------------------------------------


def test_checksums_of_torchvision_are_those_of_its_file_names():
    for name in card_names():
        card = find_card(name)
        if card.checkpoint_path and "download.pytorch.org" in card.checkpoint_path:
            assert card.checkpoint_path.endswith(f"-{card.sha256}.pth")


def test_checksums_shorter_than_eight_digits_are_refused():
    with pytest.raises(ValueError, match="sha256"):
        ModelCard(name="x", model_spec=ModelSpec(name="beats"), sha256="7f5810b")
