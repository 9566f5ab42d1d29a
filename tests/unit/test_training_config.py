"""RunConfig: patches, the documents' names, checks between fields, and every recipe."""

import math
from pathlib import Path

import pytest

from avex._core.errors import ConfigError
from avex.configs import RunConfig
from avex.configs.sweep import SweepConfig
from avex.training.schedule import learning_rate

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "run_configs"
RUNS = sorted(p for p in RECIPES.rglob("*.yml") if p.parent.name != "data" and p.name != "sweep.yml")


def config(**changes):
    base = {
        "model_spec": {"name": "efficientnet"},
        "training_params": {"train_epochs": 4, "lr": 0.1, "batch_size": 2},
        "dataset_config": {"train_datasets": [{"dataset_name": "manifest", "data_root": "a.csv"}]},
        "output_dir": "runs",
        "loss_function": "cross_entropy",
    }
    return RunConfig(**{**base, **changes})


def params(**changes):
    return {"train_epochs": 4, "lr": 0.1, "batch_size": 2, **changes}


@pytest.mark.parametrize("path", RUNS, ids=lambda p: str(p.relative_to(RECIPES)))
def test_every_recipe_is_a_run(path):
    run = RunConfig.from_sources(path)
    assert run.dataset_config.train_datasets


def test_published_recipe_keeps_its_numbers():
    run = RunConfig.from_sources(RECIPES / "aaai_train" / "sl_beats_animalspeak.yml")
    p = run.training_params
    assert (p.train_epochs, p.lr, p.batch_size, p.optimizer, p.amp_dtype) == (
        10,
        5e-4,
        64,
        "adamw8bit",
        "bf16",
    )
    assert (p.freeze_backbone_epochs, p.second_stage_lr, p.second_stage_warmup_steps) == (2, 1e-4, 5000)
    assert (run.scheduler.name, run.scheduler.warmup_steps, run.scheduler.min_lr) == ("cosine", 5000, 1e-6)
    noise, mixup = run.augmentations
    assert (noise.snr_db_range, noise.augmentation_prob, len(noise.noise_dirs)) == ((-5, 20), 0.5, 10)
    assert (mixup.alpha, mixup.n_mixup, mixup.augmentation_prob) == (0.4, 1, 0.5)


def test_sweep_recipe_names_a_run():
    sweep = SweepConfig.from_sources(RECIPES / "sweep.yml")
    assert RunConfig(**sweep.run_config).training_params.lr == 0.001
    assert sweep.search_space["training_params.batch_size"].values == [8, 16, 32]


@pytest.mark.parametrize("patch", ["training_params.lr=0.007", "training.lr=0.007", "--training.lr=7e-3"])
def test_learning_rate_by_patch(patch):
    run = RunConfig.from_sources(RECIPES / "own_classifier.yml", [patch])
    assert run.training_params.lr == 0.007


def test_training_is_another_name_of_training_params():
    base = config().model_dump()
    renamed = {**base, "training": base["training_params"]}
    del renamed["training_params"]
    assert RunConfig(**renamed).training_params.lr == 0.1
    with pytest.raises(ValueError, match="one thing"):
        RunConfig(**base, training=base["training_params"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multilabel": True}, "multilabel=True needs loss_function 'bce' or 'focal'"),
        ({"loss_function": "clip"}, "set label_type='text'"),
        ({"label_type": "text"}, "needs loss_function 'contrastive' or 'clip'"),
        ({"training_params": params(second_stage_lr=0.1)}, "freeze_backbone_epochs"),
        ({"training_params": params(freeze_backbone_epochs=4)}, "leaves nothing"),
        ({"training_params": params(freeze_backbone_epochs=1), "strategy": "fsdp"}, "cannot unfreeze"),
        (
            {
                "strategy": "fsdp",
                "label_type": "self_supervised",
                "objective": {"name": "hubert", "settings": {"target_layer": 6}},
            },
            "cannot cluster a layer",
        ),
        ({"strategy": "fsdp", "clustering_eval": {"enabled": True}}, "cannot embed clips"),
        ({"training_params": params(freeze_backbone_epochs=1, lora_rank=4)}, "lora_rank"),
        (
            {
                "label_type": "text",
                "loss_function": "clip",
                "augmentations": [{"mixup": {"alpha": 1, "augmentation_prob": 1}}],
            },
            "leave mixup out",
        ),
        ({"label_type": "self_supervised", "class_weights": "balanced"}, "uses no classes"),
        ({"augmentations": [{"echo": {}}]}, "kind"),
        ({"class_weights": [1.0, -1.0]}, "at least 0"),
        ({"class_weights": [1.0, float("nan")]}, "at least 0"),
        ({"augmentations": [{"gain": {"gain_db_range": [3, -3]}}]}, "lowest to the highest"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_file_with_a_mistake_names_the_place(tmp_path):
    file = tmp_path / "run.yml"
    text = (RECIPES / "own_classifier.yml").read_text().replace("lr: 0.001", "lr: -1")
    file.write_text(text.replace("data/data_base.yml", str(RECIPES / "data" / "data_base.yml")))
    with pytest.raises(ConfigError, match=r"training_params\.lr"):
        RunConfig.from_sources(file)


def test_warmup_and_cosine():
    run = config(scheduler={"name": "cosine", "warmup_steps": 10, "min_lr": 0.01})
    rate = learning_rate(run, 110, 25)
    assert rate(0) == pytest.approx(0.01)  # a tenth
    assert rate(5) == pytest.approx(0.055)
    assert rate(10) == pytest.approx(0.1)
    assert rate(60) == pytest.approx(0.055)  # half way down, by symmetry of the cosine
    assert rate(35) == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi / 4)) / 2)
    assert rate(110) == pytest.approx(0.01)
    assert rate(500) == pytest.approx(0.01)


def test_two_stages_have_their_own_rates():
    run = config(
        training_params=params(freeze_backbone_epochs=1, second_stage_lr=0.02, second_stage_warmup_steps=4),
        scheduler={"name": "linear"},
    )
    rate = learning_rate(run, 40, 10)
    assert [rate(step) for step in (0, 5, 9)] == pytest.approx([0.1, 0.05, 0.01])
    assert rate(10) == pytest.approx(0.002)  # a tenth of the second rate
    assert rate(14) == pytest.approx(0.02)
    assert rate(27) == pytest.approx(0.01)
    assert rate(40) == pytest.approx(0.0)


def test_second_stage_is_a_tenth_by_default():
    run = config(training_params=params(freeze_backbone_epochs=2))
    assert learning_rate(run, 40, 10)(20) == pytest.approx(0.01)
