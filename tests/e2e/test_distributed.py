"""Two processes (gloo, started by torchrun) train as one does with the same total batch."""

import importlib.util
import json
import socket
from pathlib import Path

import pytest
import torch

import avex

_spec = importlib.util.spec_from_file_location("training_runs", Path(__file__).with_name("training_runs.py"))
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs the extra train"),
]

CONTRASTIVE = """
import json, os, sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from avex.training.objectives.contrastive import contrastive_loss

class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.audio, self.text = nn.Linear(5, 4), nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.tensor(3.0))
    def forward(self, a, t):
        unit = nn.functional.normalize
        return contrastive_loss(unit(self.audio(a), dim=-1), unit(self.text(t), dim=-1), self.scale)[0]

torch.manual_seed(0)
towers, a, t = Towers(), torch.randn(8, 5), torch.randn(8, 3)
world = int(os.environ.get("WORLD_SIZE", 1))
rank = int(os.environ.get("RANK", 0))
if world > 1:
    distributed.init_process_group("gloo")
    model = DistributedDataParallel(towers)
else:
    model = towers
part = slice(rank * 8 // world, (rank + 1) * 8 // world)
model(a[part], t[part]).backward()
if rank == 0:
    grads = {n: p.grad.flatten().tolist() for n, p in towers.named_parameters()}
    open(sys.argv[1], "w").write(json.dumps(grads))
if world > 1:
    distributed.destroy_process_group()
"""

SHARDED = """
import sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from avex.testing import tiny_model
from avex.training.objectives import build_objective
from avex.training.sharding import shard

CASES = {
    "eat": ("eat", dict(clones=2, decoder_dim=16, decoder_groups=4, decoder_layers=1, ema_start=0.5, ema_end=0.9)),
    "mae": ("birdmae", dict(decoder_dim=16, decoder_layers=2, decoder_heads=2)),
    "hubert": ("hubert", dict(clusters=4, projection_dim=8)),
    "beats": ("beats", dict(codes=8, code_dim=4, predictor_layers=1)),
    "beats_tokenizer": ("beats", dict(codes=8, code_dim=4, estimator_layers=1)),
}

def train(name, mesh):
    family, settings = CASES[name]
    torch.manual_seed(0)
    objective = build_objective(name, tiny_model(family, num_classes=None), settings)
    if mesh is not None:
        shard(objective, mesh)
    optimiser = torch.optim.SGD(objective.parameter_groups(0.1, 0.0))
    objective.train()
    objective.prepare([{"raw_wav": torch.randn(2, 16000)}])
    for step in range(1, 4):
        objective({"raw_wav": torch.randn(2, 16000)}).loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 4.0)
        optimiser.step()
        optimiser.zero_grad()
        objective.after_step(step, 3)
        with torch.no_grad():
            objective.eval()({"raw_wav": torch.randn(2, 16000)})
        objective.train()
    state = objective.state_dict()
    return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}

distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))["data_parallel"]
for name in CASES:
    whole, shares = train(name, None), train(name, mesh)
    assert whole.keys() == shares.keys(), name
    for key, value in whole.items():
        torch.testing.assert_close(shares[key], value, msg=lambda text: f"{name} {key}: {text}")
distributed.destroy_process_group()
"""


def test_two_processes_follow_the_curve_of_one(tmp_path):
    config = runs.write_config(tmp_path)
    common = [
        "train",
        "-c",
        config,
        "-p",
        "checkpoints.every_n_steps=null",
        "-p",
        "metrics=[accuracy, roc_auc]",
    ]
    code, text = runs.run_here(*common, "-p", "run_name=one")
    assert code == 0, text
    two = ["-p", "run_name=two", "-p", "training_params.batch_size=2"]
    code, text = runs.run(*common, *two, processes=2)
    assert code == 0, text
    one, two = (runs.metrics(tmp_path / "runs" / name) for name in ("one", "two"))
    assert len(one) == len(two) == 12
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            # The sums of a batch are taken in another order.
            assert b[name] == pytest.approx(value, rel=2e-3, abs=1e-4), (name, a, b)
    assert (tmp_path / "runs" / "two" / "model.safetensors").is_file()


def test_two_processes_with_a_share_of_the_weights_each(tmp_path):
    """`strategy: fsdp` follows the curve of one process, goes on from its checkpoints, and its model loads."""
    config = runs.write_config(tmp_path)
    clip = ["-p", "training_params.gradient_clip_val=0.1", "-p", "checkpoints.keep=9"]
    code, text = runs.run_here("train", "-c", config, "-p", "run_name=one", *clip)
    assert code == 0, text
    sharded = ["train", "-c", config, "-p", "strategy=fsdp", "-p", "run_name=two", *clip]
    sharded += ["-p", "training_params.batch_size=2"]
    code, text = runs.run(*sharded, processes=2)
    assert code == 0, text
    whole = runs.metrics(tmp_path / "runs" / "two")
    for a, b in zip(runs.metrics(tmp_path / "runs" / "one"), whole, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=2e-3, abs=1e-4), (name, a, b)
    for name in ("step-000000006.ckpt", "step-000000008.ckpt", "step-000000009.ckpt"):
        (tmp_path / "runs" / "two" / "checkpoints" / name).unlink()
    code, text = runs.run(*sharded, "--resume", processes=2)
    assert code == 0, text
    assert runs.metrics(tmp_path / "runs" / "two") == whole
    model = avex.load_model(str(tmp_path / "runs" / "two" / "model.yml"), device="cpu")
    best = torch.load(tmp_path / "runs" / "two" / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(model.classifier.weight, best["state_dict"]["objective.model.classifier.weight"])


def test_self_supervised_objectives_learn_the_same_with_a_share_of_the_weights_each(tmp_path):
    """Their weights, those of a teacher that follows included, after steps and validations on the same data."""
    import subprocess
    import sys

    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(script)], capture_output=True, text=True, timeout=runs.SECONDS
    )
    assert done.returncode == 0, done.stderr


def test_processes_that_slurm_started_train_together(tmp_path, monkeypatch):
    config = runs.write_config(tmp_path)
    job = {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1234", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "localhost"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in ("0", "1"):
        for name, value in {**job, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}.items():
            monkeypatch.setenv(name, value)
        patches = ["-p", "run_name=slurm", "-p", f"distributed_port={port}"]
        patches += ["-p", "training_params.batch_size=2", "-p", "training_params.max_steps=2"]
        started.append(runs.start("train", "-c", config, *patches))
    texts = [process.communicate(timeout=runs.SECONDS) for process in started]
    assert [process.returncode for process in started] == [0, 0], texts
    rows = [row for row in runs.metrics(tmp_path / "runs" / "slurm") if "train/loss" in row]
    assert len(rows) == 2  # one of the processes writes
    for name in (*job, "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name)
    code, text = runs.run_here(
        "train", "-c", config, "-p", "run_name=one", "-p", "training_params.max_steps=2"
    )
    assert code == 0, text
    for a, b in zip(runs.metrics(tmp_path / "runs" / "one"), rows, strict=False):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)


def test_contrastive_gradients_are_those_of_one_process(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "contrastive.py"
    script.write_text(CONTRASTIVE)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, prefix in (("one.json", []), ("two.json", torchrun)):
        command = [sys.executable, *prefix, str(script), str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=runs.SECONDS)
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    for name, values in one.items():
        assert max(map(abs, values)) > 1e-4
        assert two[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


def test_several_processes_need_a_name(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)  # as torchrun does
    code, text = runs.run_here("train", "-c", runs.write_config(tmp_path))
    assert code == 2
    assert "Several processes need run_name" in text
