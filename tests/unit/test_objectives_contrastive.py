"""Contrastive training: the loss by hand, towers that learn to match, and two processes as one."""

import math
import subprocess
import sys

import pytest
import torch

import avex
from avex._core.errors import ConfigError
from avex.models.clip.config import TEXT_MODELS, RobertaConfig
from avex.models.clip.model import Clip
from avex.testing import tiny_model
from avex.testing.tiny_specs import TINY_SPECS
from avex.training.objectives import ContrastiveObjective, save_encoder
from avex.training.objectives.contrastive import contrastive_loss
from avex.training.objectives.gathering import copy_of_first, gather_with_gradient, sum_over_processes

TINY_TEXT = RobertaConfig(
    dim=16, depth=1, num_heads=2, hidden_dim=32, vocabulary_size=20, num_positions=12, dropout=0.0
)


def _unit(rows: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=-1)


def test_the_loss_is_the_mean_of_both_directions():
    audio, text, scale = _unit(3), _unit(3, seed=1), torch.tensor(5.0)
    loss, _ = contrastive_loss(audio, text, scale)
    expected = 0.0
    for i in range(3):
        to_text = [math.exp(5.0 * float(audio[i] @ text[j])) for j in range(3)]
        to_audio = [math.exp(5.0 * float(text[i] @ audio[j])) for j in range(3)]
        expected -= math.log(to_text[i] / sum(to_text)) + math.log(to_audio[i] / sum(to_audio))
    assert loss.item() == pytest.approx(expected / 6, abs=1e-5)


def test_pairs_that_cannot_be_told_apart_cost_the_logarithm_of_their_number():
    same = torch.ones(8, 4) / 2
    assert contrastive_loss(same, same, torch.tensor(10.0))[0].item() == pytest.approx(math.log(8))


def test_as_many_texts_as_sounds():
    with pytest.raises(ConfigError, match="as many texts"):
        contrastive_loss(_unit(3), _unit(2), torch.tensor(1.0))


@pytest.fixture
def clip(monkeypatch) -> Clip:
    monkeypatch.setitem(TEXT_MODELS, "tiny", TINY_TEXT)
    torch.manual_seed(0)
    model = Clip(audio_config=TINY_SPECS["clip"]["audio_config"], text_model_name="tiny", projection_dim=16)
    with torch.no_grad():  # a new tower hardly tells texts apart, other than a trained one
        for parameter in model.text_encoder.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10.0)
    return model


def _pairs(count: int, seed: int = 0) -> dict:
    """Tones of four pitches and a text of three tokens that names the pitch."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.arange(count) % 4
    time = torch.arange(16000) / 16000
    pitch = torch.tensor([300.0, 900.0, 2000.0, 5000.0])[which].unsqueeze(1)
    pitch = pitch * (1 + 0.05 * torch.rand(count, 1, generator=generator))
    tone = torch.sin(2 * math.pi * pitch * time) + 0.05 * torch.randn(count, 16000, generator=generator)
    text = torch.stack([torch.zeros(count).long(), which + 5, torch.full((count,), 2)], dim=1)
    return {"raw_wav": 0.3 * tone, "text": text}


@pytest.mark.parametrize("freeze_text", [False, True])
def test_towers_learn_to_match(clip, freeze_text, tmp_path):
    objective = ContrastiveObjective(clip, freeze_text=freeze_text).train()
    before = {name: p.clone() for name, p in clip.text_encoder.named_parameters()}
    assert clip.text_encoder.training is not freeze_text
    optimiser = torch.optim.AdamW(objective.parameter_groups(2e-3, 0.0))
    losses, batch = [], _pairs(4)
    for _ in range(16):
        output = objective(batch)
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        losses.append(output.loss.item())
    assert losses[-1] < (0.8 if freeze_text else 0.4) * losses[0]
    if not freeze_text:
        assert output.logs["acc_a2t"] == output.logs["acc_t2a"] == 1.0
    assert output.logs["temperature"] != pytest.approx(0.07, abs=1e-5)  # it is learned
    unchanged = [torch.equal(p, before[name]) for name, p in clip.text_encoder.named_parameters()]
    assert all(unchanged) is freeze_text
    path = save_encoder(objective.export(), tmp_path / "clip.safetensors", "esp")
    loaded = avex.load_model("clip", checkpoint_path=path, return_features_only=True, device="cpu", **_spec())
    clip.eval()
    with torch.no_grad():
        assert torch.allclose(loaded(batch["raw_wav"]), clip(batch["raw_wav"]), atol=1e-5)


def _spec() -> dict:
    return {"audio_config": TINY_SPECS["clip"]["audio_config"], "projection_dim": 16}


def test_other_models_and_batches_without_text_are_refused(clip):
    with pytest.raises(ConfigError, match="text tower"):
        ContrastiveObjective(tiny_model("clip"))
    with pytest.raises(ConfigError, match="trains Clip"):
        ContrastiveObjective(tiny_model("eat"))
    with pytest.raises(ConfigError, match="needs 'text'"):
        ContrastiveObjective(clip)({"raw_wav": torch.zeros(1, 16000)})


# -- processes --------------------------------------------------------------------------------------------


def test_one_process_gathers_itself():
    x = torch.randn(2, 3, requires_grad=True)
    assert gather_with_gradient(x) is x
    assert sum_over_processes(x) is x
    assert copy_of_first(x) is x


_WORKER = """
import sys
import torch, torch.distributed as dist
from avex.training.objectives.contrastive import contrastive_loss
from avex.training.objectives.gathering import copy_of_first, gather_with_gradient, sum_over_processes

rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
given = torch.load(out + "/given.pt")
half = slice(rank * 3, rank * 3 + 3)
towers = [torch.nn.Parameter(given[name].clone()) for name in ("a", "t")]
scale = torch.nn.Parameter(torch.tensor(3.0))
audio, text = (
    torch.nn.functional.normalize(given[x][half] @ tower, dim=-1) for x, tower in zip(("x", "y"), towers)
)
loss, logs = contrastive_loss(audio, text, scale)
loss.backward()
mean = [sum_over_processes(p.grad) / 2 for p in (*towers, scale)]  # as data parallelism does it
losses = sum_over_processes(loss) / 2
refused = ""
try:
    gather_with_gradient(torch.zeros(1 + rank, 2))
except ValueError as error:
    refused = str(error)
first = copy_of_first(torch.tensor([float(rank)]))
if rank == 1:
    torch.save({"grads": mean, "loss": losses, "refused": refused, "first": first}, out + "/found.pt")
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    torch.manual_seed(0)
    given = {"x": torch.randn(6, 5), "y": torch.randn(6, 7), "a": torch.randn(5, 4), "t": torch.randn(7, 4)}
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "worker.py").write_text(_WORKER)
    arguments = [str(tmp_path / "store"), str(tmp_path)]
    workers = [
        subprocess.Popen([sys.executable, str(tmp_path / "worker.py"), str(rank), *arguments])
        for rank in (0, 1)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    found = torch.load(tmp_path / "found.pt")
    towers = [torch.nn.Parameter(given[name].clone()) for name in ("a", "t")]
    scale = torch.nn.Parameter(torch.tensor(3.0))
    audio, text = (
        torch.nn.functional.normalize(given[x] @ tower, dim=-1)
        for x, tower in zip(("x", "y"), towers, strict=True)
    )
    loss, _ = contrastive_loss(audio, text, scale)
    loss.backward()
    assert found["loss"].item() == pytest.approx(loss.item(), abs=1e-6)
    for parallel, parameter in zip(found["grads"], (*towers, scale), strict=True):
        assert torch.allclose(parallel, parameter.grad, atol=1e-6)
    assert "batches of 1, 2 clips" in found["refused"]
    assert found["first"].item() == 0.0
