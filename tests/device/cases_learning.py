"""Probes, objectives, training and evaluation on a device that is not the CPU."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy

import avex
from avex.configs import RunConfig
from avex.evaluation import evaluate
from avex.models.clip.config import TEXT_MODELS, RobertaConfig
from avex.models.clip.model import Clip
from avex.testing import tiny_model
from avex.testing.tiny_specs import TINY_SPECS
from avex.training import processes, run
from avex.training.checkpoint import stored_checkpoints
from avex.training.objectives import (
    ContrastiveObjective,
    DistillationObjective,
    SupervisedObjective,
    apply_lora,
    build_objective,
)


def _load(name: str, path: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


standin = _load("standin", "device/standin.py")
runs = _load("training_runs", "e2e/training_runs.py")
data = _load("evaluation_data", "unit/evaluation_data.py")

DEVICES = (torch.device("cpu"), standin.DEVICE)
SELF_SUPERVISED = {
    "eat": ("eat", {"clones": 2, "decoder_dim": 16, "decoder_groups": 4, "decoder_layers": 1}),
    "mae": ("birdmae", {"decoder_dim": 16, "decoder_layers": 1, "decoder_heads": 2}),
    "hubert": ("hubert", {"clusters": 6, "projection_dim": 8}),
    "beats": ("beats", {"codes": 16, "code_dim": 4, "predictor_layers": 1}),
}
# LSTMs go through a kernel of cuDNN's, which has no like here.
PROBES = ["linear", "mlp", "prototype", "knn", "attention", "transformer", "attention_pooling"]


@pytest.fixture(autouse=True)
def count():
    standin.waits.clear()
    standin.operations.clear()


class _Accelerator(Accelerator):
    """What Lightning asks of a device."""

    def setup_device(self, device):
        pass

    def teardown(self):
        pass

    def get_device_stats(self, device):
        return {}

    @staticmethod
    def parse_devices(devices):
        return devices

    @staticmethod
    def get_parallel_devices(devices):
        return [standin.DEVICE]

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return standin.NAME


AcceleratorRegistry.register(standin.NAME, _Accelerator)


def _sounds(rate: int = 16000) -> torch.Tensor:
    return 0.1 * torch.randn(8, rate, generator=torch.Generator().manual_seed(0))


def _steps(make, batch, device, prepare=False, steps=3):
    """Losses of a few steps, and where those after the first waited."""
    torch.manual_seed(0)
    objective = make(device)
    batch = {key: v.to(device) if isinstance(v, torch.Tensor) else v for key, v in batch.items()}
    if prepare:
        objective.prepare([batch])
    objective.train()
    optimiser = torch.optim.AdamW(objective.parameter_groups(1e-3, 0.01))
    losses = []
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        loss = objective(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step(step, steps)
        if step == 1:
            standin.waits.clear()  # what is looked at once
        losses.append(loss.detach())
    waits = dict(standin.waits)
    assert all(loss.device == device for loss in losses)
    return [float(loss) for loss in losses], waits


@pytest.mark.parametrize("name", SELF_SUPERVISED)
@pytest.mark.parametrize("built_there", [False, True])
def test_self_supervised_steps_are_the_same_and_wait_for_nothing(name, built_there):
    family, settings = SELF_SUPERVISED[name]

    def make(device):
        model = tiny_model(family, num_classes=None)
        if built_there:
            return build_objective(name, model.to(device), settings)
        return build_objective(name, model, settings).to(device)

    on_cpu, on_device = (_steps(make, {"raw_wav": _sounds()}, device, prepare=True) for device in DEVICES)
    assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)
    assert on_device[1] == {}


def test_supervised_steps_with_lora_are_the_same():
    def make(device):
        model = tiny_model("beats")
        apply_lora(model, rank=2)
        return SupervisedObjective(model.to(device))

    batch = {"raw_wav": _sounds(), "label": torch.arange(8) % 3}
    on_cpu, on_device = (_steps(make, batch, device) for device in DEVICES)
    assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)
    assert on_device[1] == {}


def test_distillation_steps_are_the_same():
    def make(device):
        teacher, student = tiny_model("beats", num_classes=None), tiny_model("eat", num_classes=None)
        return DistillationObjective(student, teacher).to(device)

    on_cpu, on_device = (_steps(make, {"raw_wav": _sounds()}, device) for device in DEVICES)
    assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)


def test_contrastive_steps_are_the_same(monkeypatch):
    tiny = RobertaConfig(
        dim=16, depth=1, num_heads=2, hidden_dim=32, vocabulary_size=20, num_positions=12, dropout=0.0
    )
    monkeypatch.setitem(TEXT_MODELS, "tiny", tiny)

    def make(device):
        audio_config = TINY_SPECS["clip"]["audio_config"]
        model = Clip(audio_config=audio_config, text_model_name="tiny", projection_dim=16)
        return ContrastiveObjective(model).to(device)

    batch = {"raw_wav": _sounds(), "text": torch.arange(24).reshape(8, 3) % 18 + 2}
    on_cpu, on_device = (_steps(make, batch, device) for device in DEVICES)
    assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)


@pytest.mark.parametrize("kind", PROBES)
def test_probes_learn_the_same(kind):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 8)).astype(np.float32)
    labels = ["frog" if value > 0 else "newt" for value in x[:, 0]]
    clips = [np.stack([row, row / 2]) for row in x] if "attention" in kind or kind == "transformer" else x
    fits = [avex.fit_probe(clips, labels, kind, device=str(device), seed=0, epochs=5) for device in DEVICES]
    assert standin.operations
    assert fits[1].probe.device == standin.DEVICE
    assert fits[1].metrics["accuracy"].value == fits[0].metrics["accuracy"].value
    again = fits[1].probe.to("cpu")
    with torch.no_grad():
        sample = torch.from_numpy(np.stack(clips))
        assert torch.allclose(again(sample), fits[0].probe(sample), atol=1e-3)


def _there(*_):
    return SingleDeviceStrategy(standin.DEVICE, _Accelerator())


def test_a_training_gives_the_same_losses(tmp_path, monkeypatch):
    monkeypatch.setitem(processes._ACCELERATORS, standin.NAME, "auto")
    losses = []
    for device in ("cpu", standin.NAME):
        folder = tmp_path / device
        folder.mkdir()
        if device != "cpu":  # Lightning puts models on devices that it knows, and all others on the CPU
            monkeypatch.setattr(run, "_strategy", _there)
        config = RunConfig.from_sources(runs.write_config(folder), ["run_name=there"])
        result = run.train(config.model_copy(update={"device": device}))
        losses.append([row["val/loss"] for row in runs.metrics(result.folder) if "val/loss" in row])
    (result.folder / "checkpoints" / "best.ckpt").unlink()
    for checkpoint in stored_checkpoints(result.folder / "checkpoints")[1:]:
        checkpoint.unlink()
    resumed = run.train(config.model_copy(update={"device": standin.NAME}), resume=True)
    losses.append([row["val/loss"] for row in runs.metrics(resumed.folder) if "val/loss" in row])
    assert losses[2] == losses[1]
    assert standin.operations["aten.mm.default"] > 100
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_every_mode_of_an_evaluation_gives_the_same(tmp_path):
    manifest, model = data.write_clips(tmp_path / "folds"), data.write_model(tmp_path)
    modes = ["probe", "knn", "fewshot", "retrieval", "clustering", "finetune"]
    results = []
    for device in ("cpu", standin.NAME):
        settings = data.config(tmp_path / device, manifest, model, eval_modes=modes)
        report = evaluate(settings.model_copy(update={"device": device}))
        results.append({result.mode: result.main for result in report.results})
    assert set(results[0]) == set(modes)
    assert standin.operations
    for mode, value in results[0].items():
        assert results[1][mode] == pytest.approx(value, abs=1e-6), mode
