import subprocess
import sys
import threading

import pytest

import avex
from avex._core.errors import ConfigError, FamilyNotAvailableError, UnknownModelError
from avex._core.registry import Registry
from avex.configs import AudioConfig, ModelCard, ModelSpec
from avex.models.utils import describe, registry
from avex.models.utils.families import FAMILIES, Family

OFFICIAL = {
    "esp_aves2_sl_beats_all": "25dc242853822de6e35228b22c285886162b5f787d162280e0277c010a510e91",
    "esp_aves2_sl_beats_bio": "1881788eb6d059d7b005e1c68235906fcb12bf3a6cde824cec7cbdc34dcb9fc3",
    "esp_aves2_naturelm_audio_v1_beats": "ce2c16141465e11852105eaee4a32bbb4663cfe8cf7a49ddc874ea5c267f78a2",
    "esp_aves2_sed_birdcode_beats_encoder": None,
    "esp_aves2_effnetb0_all": "a9ab2bf0896493a4bf325dbd739a7fbd58971513ac171bded880a81f7982bdc1",
    "esp_aves2_effnetb0_bio": "e34db5a8951f28f4d90cb06b396f4a4e716dd79e48a54e672017d832804868d7",
    "esp_aves2_effnetb0_audioset": "58455bac5346a8c8d705b20210edfd14a5f6151fed9dd61320bda2e31030119c",
    "esp_aves2_eat_all": "56159edf43111cd81522bee625dd79c43da80ba795bba85bf394ea1ba182c337",
    "esp_aves2_eat_bio": "3d01d4c834683c3b0d098b09535fbc629c042cfd64b442637a4851d9deb4d62c",
    "esp_aves2_sl_eat_all_ssl_all": "af10ff12eb15b0e1343348d787b4ccb97bd3e4fe11147140c68ba646d64130cc",
    "esp_aves2_sl_eat_bio_ssl_all": "d787a181898e4ca68e0d0fa78dc2de83b27c2bd1648bce476534fc8c5ac2c7d7",
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_cards(name):
    card = registry.resolve(name)
    assert card.sha256 == OFFICIAL[name]
    assert card.checkpoint_path.startswith("hf://EarthSpeciesProject/esp-aves2-")
    assert card.license
    assert card.citation
    assert card.model_spec.audio_config is not None
    assert card.resampler == "kaiser_best"


def test_labels_are_promised_only_where_they_are_published():
    with_labels = {name for name in OFFICIAL if registry.resolve(name).class_mapping_path}
    assert with_labels == {
        "esp_aves2_sl_beats_all",
        "esp_aves2_sl_beats_bio",
        "esp_aves2_effnetb0_all",
        "esp_aves2_effnetb0_bio",
        "esp_aves2_sl_eat_all_ssl_all",
        "esp_aves2_sl_eat_bio_ssl_all",
    }


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("beats_naturelm", "esp_aves2_naturelm_audio_v1_beats"),
        ("sl_beats_animalspeak", "esp_aves2_sl_beats_bio"),
        ("efficientnet_animalspeak", "esp_aves2_effnetb0_bio"),
        ("sl_eat_animalspeak_ssl_all", "esp_aves2_sl_eat_bio_ssl_all"),
    ],
)
def test_older_names(alias, name):
    assert registry.resolve(alias).name == name
    assert avex.get_checkpoint_path(alias) == registry.resolve(name).checkpoint_path


def test_eat_normalisation_is_that_of_the_cards():
    spec = avex.get_model_spec("esp_aves2_eat_all")
    assert (spec.eat_norm_mean, spec.eat_norm_std) == (-5.553, 4.606)


def test_unknown_names_get_suggestions():
    with pytest.raises(UnknownModelError, match="Did you mean 'esp_aves2_sl_beats_all'") as caught:
        registry.resolve("esp_aves2_sl_beats_al")
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ValueError)
    assert avex.get_model_spec("no_such_model_at_all") is None


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_family_names_are_model_names(family):
    spec = avex.get_model_spec(family)
    assert spec.name == family
    named_variants = {variant.value for variant in FAMILIES[family].variants if variant.field == "name"}
    for alias in FAMILIES[family].aliases:
        assert avex.get_model_spec(alias).name == (alias if alias in named_variants else family)


def test_planned_families_say_so(monkeypatch):
    monkeypatch.setitem(FAMILIES, "pondnet", Family(None))
    with pytest.raises(FamilyNotAvailableError, match="'pondnet' is not implemented"):
        avex.load_model("pondnet")
    assert avex.describe_model("pondnet")["_metadata"]["available"] is False


def test_what_a_caller_gets_is_a_copy():
    spec = avex.get_model_spec("birdnet")
    spec.device = "cuda"
    assert avex.get_model_spec("birdnet").device == "cpu"
    registry.resolve("birdnet").aliases.append("nonsense")
    assert "nonsense" not in registry.resolve("birdnet").aliases


@pytest.mark.usefixtures("clean_registry")
def test_register_model_as_in_the_documents():
    spec = ModelSpec(
        name="my_model", pretrained=False, device="cpu", audio_config=AudioConfig(sample_rate=16000)
    )
    avex.register_model("my_model", spec)
    spec.audio_config.sample_rate = 1
    assert avex.get_model_spec("my_model").audio_config.sample_rate == 16000
    assert "my_model" in avex.describe_model("my_model")["_metadata"]["name"]
    with pytest.raises(TypeError, match="ModelSpec"):
        avex.register_model("other", {"name": "x"})


@pytest.mark.usefixtures("clean_registry")
def test_registering_from_many_threads():
    def work(index):
        for i in range(50):
            avex.register_model(f"threaded_{index}_{i}", ModelSpec(name="birdnet"))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(name.startswith("threaded_") for name in registry.card_names()) == 200


def test_card_files(tmp_path):
    path = tmp_path / "mine.yml"
    (tmp_path / "weights.pt").write_bytes(b"x")
    path.write_text("checkpoint_path: weights.pt\nmodel_spec:\n  name: birdnet\n  pretrained: false\n")
    card = registry.resolve(str(path))
    assert card.name == "mine"
    assert card.checkpoint_path == str(tmp_path / "weights.pt"), (
        "relative to the card, not to the working directory"
    )
    path.write_text("model_spec:\n  name: birdnet\n  sampel_rate: 3\n")
    with pytest.raises(ConfigError, match=r"model_spec\.sampel_rate"):
        registry.resolve(path)
    with pytest.raises(ConfigError, match="does not exist"):
        registry.resolve(tmp_path / "none.yml")


def test_resolve_refuses_other_types():
    with pytest.raises(TypeError, match="int"):
        registry.resolve(3)
    assert registry.resolve(ModelSpec(name="birdnet")).name == "birdnet"
    assert registry.resolve(ModelCard(name="x", model_spec=ModelSpec(name="birdnet"))).name == "x"


def test_listing_prints_and_returns(capsys):
    models = avex.list_models()
    printed = capsys.readouterr().out
    assert set(models) >= {*OFFICIAL, "birdnet"}
    assert models["birdnet"]["num_classes"] == 6522
    for title in ("Model Name", "Description", "Trained Classifier"):
        assert title in printed
    assert "Yes (6522 classes)" in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert models["esp_aves2_eat_all"]["has_trained_classifier"] is False


@pytest.mark.parametrize("width", [80, 120, None])
def test_the_list_fits_the_terminal(width):
    table = describe.model_table()
    lines = describe.format_models(table, width).splitlines()
    assert len(lines) == len(table) + 5
    assert (max(map(len, lines)) <= width) if width else all("…" not in line for line in lines)
    assert {line.split()[0] for line in lines} >= set(table)
    assert next(line for line in lines if line.startswith("birdnet ")).endswith("Yes (6522 classes)")


def test_families_that_are_planned_are_marked():
    facts = {
        "description": "A pond",
        "has_trained_classifier": False,
        "num_classes": None,
        "available": False,
    }
    assert "(planned) A pond" in describe.format_models({"pond": facts}, 80)


def test_describe_prints_only_when_asked(capsys):
    info = avex.describe_model("beats_naturelm")
    assert capsys.readouterr().out == ""
    assert info["audio_config"]["sample_rate"] == 16000
    avex.describe_model("birdnet", verbose=True)
    printed = capsys.readouterr().out
    assert "48000 Hz" in printed
    assert "CC BY-NC-SA 4.0" in printed
    assert 'load_model("birdnet", device="cpu")' in printed
    avex.describe_model("beats_iter3", verbose=True)  # has no address to load from
    assert 'load_model("beats_iter3", device="cpu", checkpoint_path="' in capsys.readouterr().out


def test_finding_and_describing_models_imports_no_torch():
    code = (
        "import sys, avex; avex.get_model_spec('beats'); avex.describe_model('birdnet');"
        "from avex.models.utils.describe import model_table; model_table();"
        "avex.load_label_mapping('birdnet');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lazy_registry():
    table = Registry("thing", {"pi": "math:pi", "three": 3})
    assert table["pi"] > 3
    assert table.get("four") is None
    assert list(table) == ["pi", "three"]
    with pytest.raises(KeyError, match="Unknown thing 'pie'. Did you mean 'pi'"):
        table["pie"]


def test_a_copy_of_a_card_does_not_take_its_aliases(clean_registry):
    copy = registry.resolve("birdnet").model_copy(update={"description": "mine"})
    avex.register_model("my_birdnet", copy)
    assert registry.resolve("my_birdnet").description == "mine"
    assert registry.resolve("birdnet_v2_4").name == "birdnet"
    registry.unregister_model("my_birdnet")
    assert registry.resolve("birdnet_v2_4").name == "birdnet"
