"""Every objective from a configuration to a model that loads: what it needs before, beside and after its steps."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import avex
from avex.configs import RunConfig
from avex.models.clip.config import TEXT_MODELS, RobertaConfig
from avex.models.clip.model import Clip
from avex.testing import tiny_card
from avex.testing.tiny_specs import TINY_SPECS
from avex.training.objectives import build_objective

_spec = importlib.util.spec_from_file_location("training_runs", Path(__file__).with_name("training_runs.py"))
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs the extra train")

FAMILY = {"eat": "eat", "mae": "birdmae", "hubert": "hubert", "beats": "beats"}
SETTINGS = {
    "eat": {"clones": 2, "decoder_dim": 16, "decoder_groups": 4, "decoder_layers": 1, "ema_start": 0.9},
    "mae": {"decoder_dim": 16, "decoder_layers": 2, "decoder_heads": 2},
    "hubert": {"clusters": 6, "projection_dim": 8},
    "beats": {"codes": 16, "code_dim": 4, "predictor_layers": 1},
}


def _spec_of(family):
    spec = tiny_card(family).model_spec.model_dump(mode="json", exclude_unset=True)
    return {**spec, "device": "cpu", "pretrained": False}


def _config(folder, objective, family, **changes):
    """The run of an objective on synthetic clips, read from its YAML file."""
    given = {
        "label_type": "self_supervised",
        "objective": objective,
        "model_spec": _spec_of(family),
        **changes,
    }
    return RunConfig.from_sources(
        runs.write_config(folder, augmentations=[], **given), [f"run_name={objective['name']}"]
    )


def _train(config):
    from avex.training.run import train

    return train(config)


def _losses(result):
    return [row["val/loss"] for row in runs.metrics(result.folder) if "val/loss" in row]


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_self_supervised_objectives_train_from_a_file(name, tmp_path):
    config = _config(tmp_path, {"name": name, "settings": SETTINGS[name]}, FAMILY[name])
    result = _train(config)
    losses = _losses(result)
    assert losses[-1] < losses[0]
    model = avex.load_model(result.model)
    fresh = avex.load_model(config.model_spec, return_features_only=True, device="cpu")
    assert model.return_features_only
    own, other = dict(model.named_parameters()), dict(fresh.named_parameters())
    assert own.keys() == other.keys()
    assert not any(
        torch.equal(own[key], other[key]) for key in own if "blocks.0.attn" in key or "q_proj" in key
    )


def test_networks_are_trained_in_training_mode(tmp_path, monkeypatch):
    """Batch statistics follow the clips and dropout drops, after a look at the embeddings, too."""
    modes = set()
    forward = torch.nn.Dropout.forward

    def note(self, x):
        modes.add((self.training, torch.is_grad_enabled()))
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Dropout, "forward", note)
    clustering = {"enabled": True, "frequency": 1, "run_before_training": True}
    path = runs.write_config(tmp_path, model_spec=_spec_of("efficientnet"), clustering_eval=clustering)
    result = _train(RunConfig.from_sources(path, ["training_params.train_epochs=2", "run_name=image"]))
    assert modes == {(True, True), (False, False)}
    statistics = {
        k: v for k, v in load_file(result.folder / "model.safetensors").items() if "running_mean" in k
    }
    assert len(statistics) == 49
    assert all(value.abs().max() > 0 for value in statistics.values())


def test_a_frozen_backbone_stays_as_it_is_until_its_time(tmp_path, monkeypatch):
    """And each epoch has its own order, and k-means on embeddings is measured before and after it."""
    from avex.training.module import TrainingModule

    orders, learns, step = {}, [], TrainingModule.training_step

    def note(module, batch, number):
        learns.append(module.objective.model.backbone.training)
        orders.setdefault(batch["epoch"][0], []).extend(batch["index"])
        return step(module, batch, number)

    monkeypatch.setattr(TrainingModule, "training_step", note)
    config = RunConfig.from_sources(
        runs.write_config(
            tmp_path, clustering_eval={"enabled": True, "frequency": 1, "run_before_training": True}
        ),
        [
            "run_name=frozen",
            "training_params.train_epochs=2",
            "training_params.freeze_backbone_epochs=1",
            "training_params.second_stage_lr=0.001",
            "checkpoints.keep=9",
        ],
    )
    result = _train(config)
    from avex.training.building import build_training_model

    before = build_training_model(config, 3).state_dict()
    changed = []
    for step in (3, 6):
        stored = torch.load(result.folder / f"checkpoints/step-{step:09d}.ckpt", weights_only=True)
        state = stored["state_dict"]
        changed.append({k for k, v in before.items() if not torch.equal(state[f"objective.model.{k}"], v)})
    assert changed[0] == {"classifier.weight", "classifier.bias"}
    assert {"classifier.weight", "backbone.blocks.0.attn.qkv.weight"} < changed[1]
    rows = runs.metrics(result.folder)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]
    assert learns == [False] * 3 + [True] * 3
    rates = {row["step"]: row["train/lr"] for row in rows if "train/lr" in row}
    assert rates[2] == pytest.approx(0.003)  # after two steps of warm-up
    assert rates[3] == pytest.approx(0.0001)  # a tenth of the second rate
    assert [row["step"] for row in rows if "clustering/ari" in row] == [0, 3, 6]


def test_a_trial_of_two_batches_with_a_rate_for_each_layer(tmp_path, caplog):
    config = RunConfig.from_sources(
        runs.write_config(tmp_path, sampling={"bucket_by_length": True}, scheduler={"name": "none"}),
        [
            "run_name=trial",
            "debug_mode=true",
            "training_params.layer_decay=0.5",
            "training_params.adam_betas=[0.8, 0.9]",
            "training_params.skip_validation=true",
            "training_params.warmup_epochs=1",
            "dataset_config.val_datasets[0].split=train",
        ],
    )
    result = _train(config)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("Leakage: 12 of 12 recordings are in two parts" in line for line in said)
    assert any("does not use training_params.warmup_epochs" in line for line in said)
    assert (result.steps, result.best) == (2, None)
    assert not any("val/" in name for row in runs.metrics(result.folder) for name in row)
    stored = torch.load(result.folder / "checkpoints/step-000000002.ckpt", weights_only=True)
    groups = stored["optimizer_states"][0]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {(0.8, 0.9)}
    layers = avex.load_model(result.model).get_model_layers()
    assert {group["lr"] for group in groups} == {0.003 * 0.5**depth for depth in range(len(layers) + 1)}


def test_eat_leaves_its_last_weights(tmp_path):
    result = _train(_config(tmp_path, {"name": "eat", "settings": SETTINGS["eat"]}, "eat"))
    stored = sorted(path.name for path in (result.folder / "checkpoints").iterdir())
    assert stored == ["step-000000008.ckpt", "step-000000009.ckpt"]
    last = torch.load(result.folder / "checkpoints" / stored[-1], weights_only=True)["state_dict"]
    model = avex.load_model(result.model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, last[f"objective.model.{name}"])


@pytest.mark.parametrize(("mode", "choose"), [(None, min), ("max", max)])
def test_a_metric_that_is_named_chooses_the_best_weights_of_eat(tmp_path, mode, choose):
    objective = {"name": "eat", "settings": SETTINGS["eat"]}
    checkpoints = {"monitor": "utterance_loss", "mode": mode}
    result = _train(_config(tmp_path, objective, "eat", checkpoints=checkpoints))
    name = "val/utterance_loss"
    values = {row["step"]: row[name] for row in runs.metrics(result.folder) if name in row}
    best = torch.load(result.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == choose(values, key=values.get)
    assert result.best == choose(values.values()) != (max if choose is min else min)(values.values())


def test_hubert_goes_on_with_the_clusters_that_it_had(tmp_path):
    config = _config(tmp_path, {"name": "hubert", "settings": SETTINGS["hubert"]}, "hubert")
    folder = _train(config).folder
    before = (folder / "model.safetensors").read_bytes()
    (folder / "checkpoints" / "step-000000009.ckpt").unlink()
    from avex.training.run import train

    assert train(config, resume=True).steps == 9
    assert (folder / "model.safetensors").read_bytes() == before


def test_the_second_iteration_of_hubert_starts_anew_beside_the_first(tmp_path):
    first = _train(_config(tmp_path, {"name": "hubert", "settings": SETTINGS["hubert"]}, "hubert"))
    settings = {**SETTINGS["hubert"], "target_layer": 2, "teacher": str(first.model)}
    config = _config(tmp_path, {"name": "hubert", "settings": settings}, "hubert")
    second = _train(config.model_copy(update={"run_name": "second"}))
    state = torch.load(next((second.folder / "checkpoints").glob("step-*.ckpt")), weights_only=True)[
        "state_dict"
    ]
    assert bool(state["objective.fitted"])
    taught = avex.load_model(first.model).backbone.state_dict()
    for name, value in taught.items():
        assert torch.equal(state[f"objective.targets.{name}"], value), name
    assert _losses(second)[-1] < _losses(second)[0]


def test_a_tokenizer_of_beats_is_trained_and_used(tmp_path):
    settings = {**SETTINGS["beats"], "estimator_layers": 1}
    settings.pop("predictor_layers")
    result = _train(_config(tmp_path, {"name": "beats_tokenizer", "settings": settings}, "beats"))
    path = result.folder / "tokenizer.safetensors"
    second = {"name": "beats", "settings": {**SETTINGS["beats"], "tokenizer": str(path)}}
    losses = _losses(_train(_config(tmp_path, second, "beats")))
    assert losses[-1] < losses[0]


def test_a_student_learns_from_a_card(tmp_path):
    teacher = _train(_config(tmp_path, {"name": "mae", "settings": SETTINGS["mae"]}, "birdmae"))
    student = {"name": "distillation", "settings": {"teacher": str(teacher.model), "distance": "mse"}}
    spec = _spec_of("efficientnet")
    spec["audio_config"]["sample_rate"] = 32000
    result = _train(_config(tmp_path, student, "efficientnet", model_spec=spec))
    assert _losses(result)[-1] < _losses(result)[0]
    assert type(avex.load_model(result.model)).__name__ == "EfficientNetModel"


def test_sounds_and_texts_from_scratch_need_no_download(tmp_path):
    spec = {**_spec_of("clip"), "text_model_name": "bytes-small", "projection_dim": 16}
    path = runs.write_config(
        tmp_path,
        model_spec=spec,
        label_type="text",
        loss_function="clip",
        objective={"name": "contrastive"},
    )
    text = "dataset_config.transformations=[{type: text_label_from_features, features: label}]"
    result = _train(RunConfig.from_sources(path, [text, "run_name=clip"]))
    model = avex.load_model(result.model)
    with torch.no_grad():
        audio, texts, _ = model(torch.zeros(2, 16000), text=["low", "mid", "high"])
    assert audio.shape == (2, 16)
    assert texts.shape == (3, 16)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_texts_that_cannot_be_read_are_found_before_the_start(tmp_path, monkeypatch):
    small = RobertaConfig(dim=16, depth=1, num_heads=2, hidden_dim=16, vocabulary_size=9, num_positions=20)
    monkeypatch.setitem(TEXT_MODELS, "small", small)
    spec = {**_spec_of("clip"), "text_model_name": "small"}
    path = runs.write_config(tmp_path, model_spec=spec, label_type="text", loss_function="clip")
    text = "dataset_config.transformations=[{type: text_label_from_features, features: label}]"
    from avex.training.preflight import check_run

    report = check_run(RunConfig.from_sources(path, [text]))
    assert [problem for problem in report.problems if "avex[text]" in problem], report.problems


def test_a_text_tower_starts_from_published_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(TEXT_MODELS, "small", RobertaConfig(dim=16, depth=1, num_heads=2, hidden_dim=16))
    model = Clip(audio_config=TINY_SPECS["clip"]["audio_config"], text_model_name="small", projection_dim=16)
    weights = {f"roberta.{k}": torch.full_like(v, 0.5) for k, v in model.text_encoder.state_dict().items()}
    save_file(weights, tmp_path / "roberta.safetensors")
    settings = {"text_weights": str(tmp_path / "roberta.safetensors"), "freeze_text": True}
    objective = build_objective("contrastive", model, settings)
    assert all(
        bool((p == 0.5).all()) and not p.requires_grad for p in objective.model.text_encoder.parameters()
    )
