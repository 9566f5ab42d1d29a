"""`load_model` with a user's classes and checkpoints, good and bad."""

import json
import logging
import os
import pickle

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import avex
from avex._core.errors import (
    ChecksumError,
    ConfigError,
    UnknownModelError,
    UnsafeCheckpointError,
    WeightsError,
)
from avex.configs import AudioConfig, ModelSpec
from avex.io import sha256_of
from avex.models.base_model import ModelBase

pytestmark = pytest.mark.usefixtures("clean_registry")


class TinyEncoder(ModelBase):
    """A family-like class: features and a classifier."""

    name = "tiny_encoder"

    def __init__(
        self, device="cpu", audio_config=None, num_classes=None, return_features_only=False, width=4
    ):
        super().__init__(device, audio_config, return_features_only)
        self.backbone = nn.Linear(8, width)
        if not return_features_only:
            self.classifier = nn.Linear(width, num_classes)

    def forward_features(self, x, padding_mask=None):
        return self._as_features(self.backbone(x.unfold(1, 8, 8)))


class MyAudioCNN(ModelBase):
    """The class of the documents, with the channel axis that Conv1d wants."""

    name = "my_audio_cnn"

    def __init__(self, device: str, num_classes: int, **kwargs):
        super().__init__(device=device, **kwargs)
        self.model = nn.Sequential(
            nn.Conv1d(1, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Flatten(),
            nn.Linear(64 * 25, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, num_classes),
        )
        self.to(device)

    def forward(self, x, padding_mask=None):
        return self.model(x.unsqueeze(1) if x.ndim == 2 else x)

    def get_embedding_dim(self):
        return 128


@pytest.fixture
def tiny(tmp_path):
    """A registered class, its checkpoint with a head of 5, labels and a card."""
    avex.register_model_class(TinyEncoder)
    torch.manual_seed(0)
    original = TinyEncoder(num_classes=5)
    save_file(original.state_dict(), tmp_path / "tiny.safetensors")
    labels = ["a", "b", "c", "d", "e"]
    (tmp_path / "labels.json").write_text(
        json.dumps({"label_to_index": {x: i for i, x in enumerate(labels)}})
    )
    return write_card(tmp_path), original


def write_card(folder, **changes):
    card = {
        "name": "tiny",
        "checkpoint_path": "tiny.safetensors",
        "class_mapping_path": "labels.json",
        "license": "MIT",
        "model_spec": {
            "name": "tiny_encoder",
            "pretrained": False,
            "device": "cpu",
            "audio_config": {"sample_rate": 16000, "representation": "raw", "target_length_seconds": 1},
        },
    }
    card.update(changes)
    path = folder / "tiny.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in card.items() if v is not None}))
    return path


def test_everything_is_kept_without_num_classes(tiny):
    path, original = tiny
    model = avex.load_model(path)
    x = torch.randn(2, 16)
    assert torch.equal(model(x), original(x))
    assert model.label_mapping["index_to_label"][4] == "e"
    assert not model.training
    assert sorted(model.load_report.loaded) == sorted(original.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_a_head_is_found_in_a_wrapped_file(tiny, tmp_path, prefix):
    path, original = tiny
    wrapped = {prefix + name: value for name, value in original.state_dict().items()}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    model = avex.load_model(path, checkpoint_path=tmp_path / "wrapped.safetensors")
    x = torch.randn(2, 16)
    assert torch.equal(model(x), original(x))


def test_a_class_of_one_size_keeps_it(tiny, tmp_path):
    class OneSize(nn.Sequential):
        name = "one_size"

        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(8, 5)

    avex.register_model_class(OneSize)
    save_file(original := OneSize().state_dict(), tmp_path / "one.safetensors")
    path = write_card(tmp_path, checkpoint_path="one.safetensors", model_spec={"name": "one_size"})
    model = avex.load_model(path, device="cpu")
    assert torch.equal(model.classifier.weight, original["classifier.weight"])
    assert model.label_mapping["index_to_label"][4] == "e"
    with pytest.raises(ConfigError, match="takes no option 'num_classes'"):
        avex.load_model(path, num_classes=5, device="cpu")


def test_num_classes_makes_a_new_head(tiny):
    path, original = tiny
    model = avex.load_model(path, num_classes=3)
    assert model(torch.randn(1, 16)).shape == (1, 3)
    assert not hasattr(model, "label_mapping")
    assert set(model.load_report.reset) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(model.backbone.weight, original.backbone.weight)


def test_same_size_is_still_a_new_head(tiny):
    path, original = tiny
    model = avex.load_model(path, num_classes=5)
    assert not torch.equal(model.classifier.weight, original.classifier.weight)


def test_features_only(tiny):
    path, original = tiny
    model = avex.load_model(path, return_features_only=True)
    x = torch.randn(2, 16)
    assert model(x).shape == (2, 2, 4)
    assert torch.equal(model.embed(x), original.forward_features(x).pooled())
    assert not hasattr(model, "classifier")


def test_a_checkpoint_without_head_gives_features(tiny, tmp_path):
    path, original = tiny
    save_file(original.backbone.state_dict(prefix="backbone."), tmp_path / "tiny.safetensors")
    model = avex.load_model(path)
    assert model.return_features_only
    assert not hasattr(model, "label_mapping")


def test_a_given_checkpoint_wins(tiny, tmp_path):
    path, _ = tiny
    other = TinyEncoder(num_classes=2)
    torch.save(
        {"model_state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "o.pt"
    )
    model = avex.load_model(path, checkpoint_path=tmp_path / "o.pt", num_classes=7)
    assert torch.equal(model.backbone.weight, other.backbone.weight)


def test_fairseq_weights_path_names_weights(tiny, tmp_path):
    """The documents' option of EAT: in a spec, or passed; a checkpoint that is passed wins."""
    first, second = TinyEncoder(num_classes=2), TinyEncoder(num_classes=2)
    for model, name in ((first, "a"), (second, "b")):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    a, b = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    spec = ModelSpec(name="tiny_encoder", device="cpu", pretrained=False, fairseq_weights_path=a)
    for options, expected in (({}, first), ({"checkpoint_path": b}, second)):
        model = avex.load_model(spec, num_classes=5, **options)
        assert torch.equal(model.backbone.weight, expected.backbone.weight)
    model = avex.load_model(tiny[0], num_classes=5, fairseq_weights_path=b)
    assert torch.equal(model.backbone.weight, second.backbone.weight)


def test_options_reach_the_class_or_are_refused(tiny, tmp_path):
    path, _ = tiny
    write_card(tmp_path, checkpoint_path=None, class_mapping_path=None)
    assert avex.load_model(path, num_classes=2, width=9).backbone.out_features == 9
    with pytest.raises(ConfigError, match="'widht'"):
        avex.load_model(path, num_classes=2, widht=9)
    with pytest.raises(ConfigError, match="efficientnet_variant"):
        avex.load_model(path, num_classes=2, efficientnet_variant="b1")


def test_a_model_without_weights_says_so(tiny, tmp_path, caplog):
    path = write_card(tmp_path, checkpoint_path=None, class_mapping_path=None)
    with caplog.at_level(logging.WARNING):
        avex.load_model(path, num_classes=2)
    assert "random" in caplog.text


def test_registry_is_not_changed_by_loading(tiny):
    path, _ = tiny
    card = avex.models.utils.registry.load_model_card(path)
    avex.register_model("tiny", card)
    before = avex.get_model_spec("tiny")
    avex.load_model("tiny", num_classes=2, width=4)
    assert avex.get_model_spec("tiny") == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda sd: {f"foo.{k}": v for k, v in sd.items()}, "0 of"),
        (lambda sd: {k: v for k, v in sd.items() if k != "backbone.bias"}, r"backbone\.bias"),
        (lambda sd: {**sd, "surprise.weight": torch.zeros(1)}, r"surprise\.weight"),
        (lambda sd: {**sd, "backbone.weight": torch.zeros(4, 9)}, r"backbone\.weight"),
        (lambda sd: {**sd, "backbone.weight": torch.full((4, 8), float("nan"))}, r"backbone\.weight"),
        (lambda sd: {}, "no tensors|0 tensors|empty"),
    ],
)
def test_checkpoints_that_do_not_fit(tiny, tmp_path, damage, message):
    path, original = tiny
    torch.save(damage(dict(original.state_dict())), tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match=message):
        avex.load_model(path, checkpoint_path=tmp_path / "bad.pt", return_features_only=True)
    with pytest.raises((WeightsError, ConfigError)):
        avex.load_model(path, checkpoint_path=tmp_path / "bad.pt")


def test_wrong_checksum(tiny, tmp_path):
    write_card(tmp_path, sha256="0" * 64)
    with pytest.raises(ChecksumError, match="0000"):
        avex.load_model(tmp_path / "tiny.yml")
    write_card(tmp_path, sha256=sha256_of(tmp_path / "tiny.safetensors"))
    assert avex.load_model(tmp_path / "tiny.yml").load_report.loaded


def test_pickles_with_code_are_not_executed(tiny, tmp_path):
    path, _ = tiny
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    torch.save({"model_state_dict": {"backbone.weight": Evil()}}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises((UnsafeCheckpointError, WeightsError)):
            avex.load_model(path, checkpoint_path=tmp_path / name, num_classes=2)
    assert not marker.exists()


def test_missing_files(tiny, tmp_path):
    path, _ = tiny
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        avex.load_model(path, checkpoint_path=tmp_path / "nowhere.pt")


def test_labels_of_another_model(tiny, tmp_path):
    path, _ = tiny
    (tmp_path / "labels.json").write_text(json.dumps(["only", "three", "labels"]))
    with pytest.raises(ConfigError, match="3 classes.*5"):
        avex.load_model(path)


def test_unknown_class(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("model_spec: {name: my_audio_cn, device: cpu}\n")
    avex.register_model_class(MyAudioCNN)
    with pytest.raises(UnknownModelError, match="my_audio_cnn"):
        avex.load_model(path)


def test_custom_class_of_the_documents():
    assert avex.register_model_class(MyAudioCNN) is MyAudioCNN
    assert "my_audio_cnn" in avex.list_model_classes()
    assert avex.get_model_class("my_audio_cnn") is MyAudioCNN
    model = MyAudioCNN(device="cpu", num_classes=10)
    assert model(torch.randn(3, 1, 100)).shape == (3, 10)
    built = avex.build_model("my_audio_cnn", device="cpu", num_classes=10)
    assert built(torch.randn(3, 100)).shape == (3, 10)
    spec = ModelSpec(name="my_audio_cnn", device="cpu", audio_config=AudioConfig(sample_rate=16000))
    from_spec = avex.build_model_from_spec(spec, "cpu", num_classes=4)
    assert from_spec.sample_rate == 16000
    with pytest.raises(ConfigError, match="num_classes"):
        avex.build_model("my_audio_cnn", device="cpu")


@pytest.mark.parametrize("device", ["meta", "hpu", "cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ConfigError, match=f"'{device}' was asked for"):
        avex.build_model("resnet18", device=device)


def test_a_class_that_passes_on_its_device_only_gets_the_audio_settings_of_its_spec():
    """As the documents write them: `super().__init__(device=device)`."""

    @avex.register_model_class
    class OfTheDocument(ModelBase):
        name = "of_the_document"

        def __init__(self, device, num_classes, **kwargs):
            super().__init__(device=device)
            self.classifier = nn.Linear(8, num_classes)

        def forward(self, x, padding_mask=None):
            return self.classifier(x[:, :8])

    audio = AudioConfig(sample_rate=8000, target_length_seconds=2)
    avex.register_model("mine", ModelSpec(name="of_the_document", device="cpu", audio_config=audio))
    for model in (avex.build_model("mine", num_classes=2), avex.load_model("mine", num_classes=2)):
        assert (model.sample_rate, model.window_seconds) == (8000, 2)
    assert avex.build_model("of_the_document", num_classes=2).audio_config is None


def test_building_from_a_spec_leaves_its_checkpoint_alone():
    """`ModelSpec(name="eat_hf", fairseq_weights_path=...)` of the document, without that file."""
    spec = ModelSpec(
        name="eat_hf", device="cpu", fairseq_weights_path="/path/to/weights.pt", eat_cfg={"depth": 1}
    )
    assert len(avex.build_model_from_spec(spec).get_model_layers()) == 1 + 1
    with pytest.raises(ConfigError, match="takes no option 'fairseq_weights_path'"):
        avex.build_model_from_spec(spec, fairseq_weights_path="/path/to/weights.pt")


def test_the_embedding_of_a_class_with_only_forward_is_what_enters_its_head():
    model = MyAudioCNN(device="cpu", num_classes=10).eval()
    x = torch.randn(3, 100)
    embedding = model.embed(x)
    assert embedding.shape == (3, 128)
    assert torch.allclose(model.model[-1](embedding), model(x))


def test_custom_class_with_checkpoint(tmp_path):
    avex.register_model_class(MyAudioCNN)
    model = MyAudioCNN(device="cpu", num_classes=10)
    torch.save(model.state_dict(), tmp_path / "cnn.pt")
    (tmp_path / "cnn.yml").write_text(
        "checkpoint_path: cnn.pt\nnum_classes: 10\nmodel_spec: {name: my_audio_cnn, device: cpu}\n"
    )
    loaded = avex.load_model(tmp_path / "cnn.yml")
    x = torch.randn(2, 100)
    assert torch.equal(loaded(x), model.eval()(x))


def test_registering_something_else():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        avex.register_model_class(dict)


def test_name_of_a_class_without_name():
    class Nameless(ModelBase):
        def forward(self, x, padding_mask=None):
            return x

    avex.register_model_class(Nameless)
    assert avex.get_model_class("nameless") is Nameless


def test_device_that_is_not_there(tiny):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    path, _ = tiny
    with pytest.raises(ConfigError, match="cuda"):
        avex.load_model(path, device="cuda")


def test_older_layer_api(tiny):
    path, _ = tiny
    model = avex.load_model(path)
    assert model.get_model_layers() == ["backbone"]
    assert model.get_model_layer_map() == {0: "backbone"}
    assert model.register_hooks_for_layers(["last_layer"]) == ["backbone"]
    x = torch.randn(2, 16)
    assert model.extract_embeddings(x, aggregation="mean").shape == (2, 4)
    assert model.extract_embeddings({"raw_wav": x, "padding_mask": None}).shape == (2, 2, 4)
    with pytest.raises(ValueError, match="empty"):
        model.extract_embeddings(torch.zeros(0))
    assert avex.list_model_layers(model)["last_layer"] == "backbone"
    assert model.batch_inference([x, x]).shape == (4, 5)
    assert model.embedding_dim == 4


class ForwardOnly(ModelBase):
    """The least a user may write: no padding_mask, no head called classifier."""

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        return self.net(x.unfold(1, 8, 8).mean(1))


def test_a_class_with_only_init_and_forward():
    model = ForwardOnly().eval()
    x = torch.randn(2, 16)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    embedding, logits = model.embed_and_classify(x, mask)
    assert torch.equal(logits, model(x))
    assert torch.equal(model.net[2](embedding), logits)
    assert torch.equal(model.embed(x, padding_mask=mask), embedding)
    assert model.get_model_layers() == ["net.0"]


def test_embedding_and_logits_of_a_family_come_from_one_pass(tiny):
    path, original = tiny
    model = avex.load_model(path)
    x = torch.randn(2, 16)
    embedding, logits = model.embed_and_classify(x)
    assert torch.equal(logits, original(x))
    assert torch.equal(embedding, model.embed(x))


def test_process_audio_follows_the_audio_config():
    class Mel(ModelBase):
        def forward(self, x, padding_mask=None):
            return self.process_audio(x).mean(-1)

    config = AudioConfig(sample_rate=16000, n_fft=800, hop_length=160, win_length=800, n_mels=64)
    model = Mel(audio_config=config)
    x = torch.randn(2, 16000)
    assert model.process_audio(x).shape == (2, 64, 101)
    assert model.process_audio(x[0]).shape == (1, 64, 101)
    assert model.process_audio(x).amin() == 0
    assert not model.state_dict()
    raw = Mel(audio_config=AudioConfig(representation="raw"))
    assert torch.equal(raw.process_audio(x), x)
    with pytest.raises(ValueError, match="None"):
        raw.process_audio(None)


def test_an_option_with_a_wrong_value_is_named():
    with pytest.raises(ConfigError, match="option of 'efficientnet'.*efficientnet_variant.*'b0' or 'b1'"):
        avex.load_model("efficientnet", efficientnet_variant="b7", device="cpu")
