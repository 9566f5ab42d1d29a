import pytest
from pydantic import ValidationError

from avex._core.errors import ConfigError
from avex.configs import AudioConfig, ModelCard, ModelSpec, apply_patches, read_yaml


def test_audio_config_of_the_documents():
    config = AudioConfig(
        sample_rate=16000,
        n_fft=2048,
        hop_length=512,
        win_length=2048,
        window="hann",
        n_mels=128,
        representation="mel_spectrogram",
        normalize=True,
        target_length_seconds=10,
        window_selection="random",
        center=True,
    )
    assert config.hop_length == 512
    assert AudioConfig().sample_rate == 16000


@pytest.mark.parametrize("field", ["sample_rate", "n_fft", "hop_length", "n_mels", "target_length_seconds"])
def test_audio_config_refuses_zero(field):
    with pytest.raises(ValidationError):
        AudioConfig(**{field: 0})


def test_audio_config_refuses_unknown_fields():
    with pytest.raises(ValidationError, match="sampel_rate"):
        AudioConfig(sampel_rate=16000)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "beats", "use_naturelm": True, "fine_tuned": False, "disable_layerdrop": False},
        {"name": "clip", "text_model_name": "roberta-base", "projection_dim": 512, "temperature": 0.07},
        {
            "name": "eat_hf",
            "model_id": "worstchan/EAT-base_epoch30_pretrain",
            "fairseq_weights_path": "/path/to/weights.pt",
            "eat_norm_mean": -4.268,
            "eat_norm_std": 4.569,
        },
    ],
)
def test_model_specs_of_the_documents(fields):
    spec = ModelSpec(**fields)
    options = spec.family_options()
    assert "name" not in options
    assert options == {key: value for key, value in fields.items() if key != "name"}


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:3", "mps"])
def test_devices(device):
    assert ModelSpec(name="beats", device=device).device == device


def test_impossible_device():
    with pytest.raises(ValidationError, match="gpu"):
        ModelSpec(name="beats", device="gpu")


def test_family_defaults_do_not_leak():
    # In the existing package EAT's model_id reached BirdMAE.
    assert ModelSpec(name="birdmae").family_options() == {}


def test_card_with_the_spec_at_its_root():
    card = ModelCard.model_validate({"name": "efficientnet", "efficientnet_variant": "b1", "license": "MIT"})
    assert card.model_spec.efficientnet_variant == "b1"
    assert card.license == "MIT"


def test_card_refuses_unknown_fields_at_its_root():
    with pytest.raises(ValidationError, match="efficientnet_varient"):
        ModelCard.model_validate({"name": "efficientnet", "efficientnet_varient": "b1"})


def test_read_yaml_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yml"):
        read_yaml(tmp_path / "nothing.yml")
    broken = tmp_path / "broken.yml"
    broken.write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(broken)
    broken.write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="mapping"):
        read_yaml(broken)
    broken.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(broken)


def test_a_name_that_is_given_twice_is_an_error_and_an_anchor_is_none(tmp_path):
    path = tmp_path / "run.yml"
    path.write_text("training_params:\n  lr: 0.1\n  batch_size: 2\n  lr: 0.2\n")
    with pytest.raises(ConfigError, match=r"(?s)run\.yml' is not valid YAML: 'lr' is there twice.*line 4"):
        read_yaml(path)
    path.write_text(
        "x-base: &base {lr: 0.1, to: [&one {a: 1}, *one]}\nfirst: {<<: *base, lr: 0.2}\n'1': a\n1: b\n"
    )
    data = read_yaml(path)
    assert data["first"] == {"lr": 0.2, "to": [{"a": 1}, {"a": 1}]}
    assert (data["1"], data[1], data["x-base"]["lr"]) == ("a", "b", 0.1)


def test_yaml_executes_nothing(tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "evil.yml"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{marker}']\n")
    with pytest.raises(ConfigError):
        read_yaml(path)
    assert not marker.exists()


def test_patches():
    config = {"training_params": {"lr": 0.1, "betas": [0.9, 0.999]}, "name": "x"}
    patched = apply_patches(
        config,
        ["training_params.lr = 1e-4", "training_params.betas[1]=0.95", "new.deep.key=[1, a]", "name=null"],
    )
    assert patched == {
        "training_params": {"lr": 1e-4, "betas": [0.9, 0.95]},
        "name": None,
        "new": {"deep": {"key": [1, "a"]}},
    }
    assert config["training_params"]["lr"] == 0.1, "the original is not changed"


@pytest.mark.parametrize(
    "patch", ["lr", "=1", "[]=1", ".=1", "name.sub=1", "training_params.betas[7]=1", "training_params[0]=1"]
)
def test_impossible_patches(patch):
    with pytest.raises(ConfigError, match="[Pp]atch"):
        apply_patches({"training_params": {"betas": [1, 2]}, "name": "x"}, [patch])


def test_a_patch_may_name_a_file_that_is_not_utf_8():
    assert apply_patches({}, ["a=/data/caf\udce9"]) == {"a": "/data/caf\udce9"}
