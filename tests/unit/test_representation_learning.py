"""`representation_learning` is avex under its older name: the same objects, in every way they can be reached."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import subprocess
import sys

import pytest

import avex
import representation_learning
from avex.configs import ModelSpec

# What the README of the older package imports, and what stands behind it.
SAME = {
    "api:build_probe_from_config_offline": "models.probes.utils",
    "api:build_probe_from_config_online": "models.probes.utils",
    "api:load_class_mapping": "models.utils.registry:load_label_mapping",
    "api:load_model": "models.utils.load",
    "api:register_model": "models.utils.registry",
    "configs:AudioConfig": "configs.audio",
    "configs:ModelSpec": "configs.model",
    "configs:ProbeConfig": "configs.probe",
    "models.base_model:ModelBase": "models.base_model",
    "models.probes:build_probe_from_config": "models.probes.utils.factory",
    "models.probes.utils:load_probe_config": "models.probes.utils.registry",
    "models.utils.factory:build_model": "models.utils.factory",
    "models.utils.load:load_model": "models.utils.load",
    "models.utils.registry:get_model_spec": "models.utils.registry",
}


def run_python(code, *options):
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("older", SAME)
def test_imports_of_the_document(older):
    path, _, name = older.partition(":")
    home, _, newer_name = SAME[older].partition(":")
    by_older_name = getattr(importlib.import_module(f"representation_learning.{path}"), name)
    assert by_older_name is getattr(importlib.import_module(f"avex.{home}"), newer_name or name)


@pytest.mark.parametrize("name", [*avex.__all__, "load_class_mapping"])
def test_names_of_the_package(name):
    assert getattr(representation_learning, name) is getattr(avex, name)
    assert name in representation_learning.__all__


def test_names_of_the_api_module():
    api = importlib.import_module("avex.api")
    assert set(api.__all__) == set(api._NAMES)
    for name in api.__all__:
        assert callable(getattr(api, name))
        if name in avex.__all__:
            assert getattr(api, name) is getattr(avex, name)
    with pytest.raises(AttributeError, match=r"'avex\.api' has no attribute 'load_modell'"):
        _ = api.load_modell


def test_every_module_is_the_same_object():
    """The whole tree, but for what is run when it is imported or needs a package that is not here."""
    names = [module.name for module in pkgutil.walk_packages(avex.__path__, "avex.")]
    assert len(names) > 100
    for name in names:
        if name.endswith("__main__"):
            continue
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        older = importlib.import_module("representation_learning" + name.removeprefix("avex"))
        assert older is sys.modules[name]
        assert (older.__name__, older.__spec__.name) == (name, name)


@pytest.mark.parametrize("order", ["older first", "newer first"])
def test_whichever_name_is_imported_first(order):
    names = ["representation_learning.configs.model", "avex.configs.model"]
    first, second = names if order == "older first" else names[::-1]
    code = f"import sys, importlib as i; print(i.import_module({first!r}) is i.import_module({second!r}))"
    assert run_python(code) == "True"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_load_under_both_names(protocol):
    spec = ModelSpec(name="beats", use_naturelm=True, device="cpu")
    newer = pickle.dumps((spec, ModelSpec), protocol)
    # Names are stored with their length (binary protocols) or ended by a line break (text protocol).
    name, older_name = b"avex.configs.model", b"representation_learning.configs.model"
    assert name in newer
    older = newer
    for size in (1, 4):
        old_size, new_size = (len(x).to_bytes(size, "little") for x in (name, older_name))
        older = older.replace(old_size + name, new_size + older_name)
    older = older.replace(b"c" + name + b"\n", b"c" + older_name + b"\n")
    older = older.replace(b"\x95" + newer[3:11], b"\x95" + (len(older) - 11).to_bytes(8, "little"), 1)
    assert older_name in older
    assert pickle.loads(older) == pickle.loads(newer) == (spec, ModelSpec)


def test_an_old_pickle_loads_in_a_fresh_program():
    code = (
        "import pickle, sys\n"
        "made = b'crepresentation_learning.configs\\nAudioConfig\\n.'\n"
        "cls = pickle.loads(made)\n"
        "print(cls.__module__, 'torch' in sys.modules)"
    )
    assert run_python(code) == "avex.configs.audio False"


def test_a_class_built_on_the_older_base_is_a_model_of_avex():
    from representation_learning.models.base_model import ModelBase as OlderBase

    from avex.models.base_model import ModelBase

    class Mine(OlderBase):
        pass

    assert issubclass(Mine, ModelBase)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("beats_naturelm", "esp_aves2_naturelm_audio_v1_beats"),
        ("sl_beats_animalspeak", "esp_aves2_sl_beats_bio"),
        ("efficientnet_animalspeak", "esp_aves2_effnetb0_bio"),
        ("sl_eat_animalspeak_ssl_all", "esp_aves2_sl_eat_bio_ssl_all"),
    ],
)
def test_older_model_names_are_official_cards(alias, name):
    assert representation_learning.get_model_spec(alias) == avex.get_model_spec(name)
    path = representation_learning.get_checkpoint_path(alias)
    assert path == avex.get_checkpoint_path(name)
    assert path.startswith("hf://EarthSpeciesProject/")


def test_importing_loads_nothing_heavy_and_warns_of_nothing():
    code = (
        "import sys\n"
        "import avex\n"
        "before = set(sys.modules)\n"
        "import representation_learning, representation_learning.api\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'pyarrow', 'yaml'} & set(sys.modules)\n"
        "more = set(sys.modules) - before\n"
        "print(sorted(heavy), sorted(m for m in more if m.split('.')[0] not in sys.stdlib_module_names))\n"
        "print('importlib.resources' in more)"
    )
    heavy_and_more, slow = run_python(code).splitlines()
    assert heavy_and_more == "[] ['avex.api', 'representation_learning', 'representation_learning.api']"
    assert slow == "False"  # a third of the time that importing avex takes


@pytest.mark.parametrize("module", ["representation_learning", "representation_learning.cli"])
def test_modules_run(module):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", module, "describe", "beats_naturelm"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "16000 Hz" in done.stdout
    assert done.stderr == ""


def test_what_does_not_exist_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"representation_learning\.nothing"):
        importlib.import_module("representation_learning.nothing")
    with pytest.raises(AttributeError, match="nothing"):
        _ = representation_learning.nothing
    assert set(dir(representation_learning)) >= set(avex.__all__)


def test_functions_with_the_name_of_their_module_stay_functions():
    """The import system sets a sub-module on its package, which here is avex's own."""
    code = (
        "import sys, avex.io, avex.audio, representation_learning.io.fetch, representation_learning.audio.info\n"
        "from representation_learning.audio.resample import resample\n"
        "print(callable(avex.io.fetch), callable(avex.audio.info), resample is avex.audio.resample)\n"
        "print(sys.modules['representation_learning.io'] is avex.io, representation_learning.audio is avex.audio)\n"
        "print(sys.modules['representation_learning.io.fetch'] is sys.modules['avex.io.fetch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 6
