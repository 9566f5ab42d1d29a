"""Losses on labels, groups of parameters, LoRA, distillation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avex._core.errors import ConfigError, UnknownNameError
from avex.testing import tiny_model
from avex.training.objectives import (
    DistillationObjective,
    SupervisedObjective,
    apply_lora,
    build_objective,
    merge_lora,
    objective_for,
)
from avex.training.objectives.losses import ClassificationLoss
from avex.training.objectives.parameters import layer_depths


def _chirps(count: int, seconds: float = 1.0, rate: int = 16000, seed: int = 0) -> torch.Tensor:
    """Rising and falling chirps with harmonics, the even ones rising."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * rate)) / rate
    base = 500 + 1500 * torch.rand(count, 1, generator=generator)
    slope = 1500 * (1 - 2 * (torch.arange(count).unsqueeze(1) % 2)) / seconds
    phase = 2 * math.pi * (base * time + slope * time**2 / 2)
    tone = torch.sin(phase) + 0.5 * torch.sin(2 * phase) + 0.25 * torch.sin(3 * phase)
    return 0.3 * tone + 0.01 * torch.randn(count, len(time), generator=generator)


# -- losses -----------------------------------------------------------------------------------------------


def test_cross_entropy_is_that_of_the_textbook():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    expected = -2.0 + math.log(math.exp(2) + 1 + math.exp(-1))
    assert ClassificationLoss()(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_mixed_labels_cost_the_mixture_of_their_losses():
    logits, weight = torch.randn(5, 4), 0.3
    a, b = torch.randint(4, (5,)), torch.randint(4, (5,))
    rows = [nn.functional.one_hot(x, 4).float() for x in (a, b)]
    mixed = weight * rows[0] + (1 - weight) * rows[1]
    loss = ClassificationLoss("cross_entropy")
    expected = weight * loss(logits, a) + (1 - weight) * loss(logits, b)
    assert loss(logits, mixed).item() == pytest.approx(expected.item(), abs=1e-6)


def test_two_labels_count_half_each_and_none_cost_nothing():
    loss, logits = ClassificationLoss(), torch.randn(1, 3)
    both = loss(logits, torch.tensor([[1.0, 0.0, 1.0]]))
    each = [loss(logits, torch.tensor([i])) for i in (0, 2)]
    assert both.item() == pytest.approx(sum(each).item() / 2, abs=1e-6)
    assert loss(logits, torch.zeros(1, 3)).item() == 0.0


@given(st.integers(1, 6), st.integers(2, 5))
def test_focal_loss_without_focus_is_binary_cross_entropy(batch, classes):
    logits, target = torch.randn(batch, classes), torch.rand(batch, classes).round()
    plain = ClassificationLoss("bce")(logits, target)
    assert torch.allclose(ClassificationLoss("focal", focal_gamma=0.0)(logits, target), plain)
    halved = ClassificationLoss("focal", focal_gamma=0.0, focal_alpha=0.5)(logits, target)
    assert torch.allclose(halved, plain / 2)
    assert ClassificationLoss("focal")(logits, target) < plain


def test_focal_loss_of_one_number():
    # sigmoid(0) = 1/2, so that the loss is (1/2)^2 * log 2.
    loss = ClassificationLoss("focal")(torch.zeros(1, 1), torch.ones(1, 1))
    assert loss.item() == pytest.approx(0.25 * math.log(2))


def test_class_numbers_are_rows_to_binary_losses():
    logits = torch.randn(4, 3)
    target = torch.tensor([0, 2, 1, 1])
    rows = nn.functional.one_hot(target, 3).float()
    for name in ("bce", "focal"):
        assert torch.equal(ClassificationLoss(name)(logits, target), ClassificationLoss(name)(logits, rows))


def test_smoothing_and_class_weights():
    logits = torch.tensor([[3.0, -3.0]])
    smooth = ClassificationLoss("bce", label_smoothing=0.2)(logits, torch.tensor([[1.0, 0.0]]))
    # Targets 0.9 and 0.1: both cost softplus(-3) + 0.1 * 3.
    assert smooth.item() == pytest.approx(math.log1p(math.exp(-3)) + 0.3, abs=1e-6)
    weighted = ClassificationLoss("bce", class_weights=torch.tensor([2.0, 0.0]))
    plain = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.ones(1))
    assert weighted(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(plain.item())


def test_labels_and_settings_that_do_not_fit_are_refused():
    loss = ClassificationLoss()
    with pytest.raises(ConfigError, match="do not fit logits"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="integers"):
        loss(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ConfigError, match="class weights"):
        ClassificationLoss(class_weights=torch.ones(2))(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(UnknownNameError, match="Did you mean 'focal'"):
        ClassificationLoss("fokal")
    for wrong in ({"label_smoothing": 1.0}, {"label_smoothing": -0.1}):
        with pytest.raises(ConfigError, match="label_smoothing must lie"):
            ClassificationLoss(**wrong)
    for wrong in ({"focal_gamma": -1.0}, {"focal_alpha": 1.5}, {"focal_alpha": -0.5}):
        with pytest.raises(ConfigError, match="focal_gamma must not be negative"):
            ClassificationLoss("focal", **wrong)
    assert ClassificationLoss("focal", focal_gamma=0.0, focal_alpha=1.0).alpha == 1.0


# -- the objective ----------------------------------------------------------------------------------------


def _train(objective, batch, steps, lr, **options):
    optimiser = torch.optim.AdamW(objective.parameter_groups(lr, 0.0, **options))
    losses = []
    objective.train()
    for _ in range(steps):
        loss = objective(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
def test_a_model_learns_rising_from_falling(loss):
    torch.manual_seed(0)
    objective = SupervisedObjective(tiny_model("eat", num_classes=2), loss)
    labels = torch.arange(16) % 2
    _train(objective, {"raw_wav": _chirps(16), "label": labels}, 40, 5e-3)
    objective.eval()
    held_out = {"raw_wav": _chirps(32, seed=1), "label": torch.arange(32) % 2}
    output = objective(held_out)
    assert (output.outputs["logits"].argmax(1) == held_out["label"]).float().mean() > 0.85
    assert not output.outputs["logits"].requires_grad


def test_a_batch_without_labels_says_what_is_missing():
    objective = SupervisedObjective(tiny_model("eat", num_classes=2))
    with pytest.raises(ConfigError, match="needs 'label'"):
        objective({"raw_wav": torch.zeros(1, 16000)})
    with pytest.raises(ConfigError, match="raw_wav"):
        objective({"label": torch.zeros(1)})
    with pytest.raises(ConfigError, match="classifier"):
        SupervisedObjective(tiny_model("eat", num_classes=None))


def test_objectives_by_name():
    model = tiny_model("birdmae", num_classes=None)
    objective = build_objective("mae", model, {"mask_ratio": 0.8, "decoder_dim": 16, "decoder_heads": 2})
    assert objective.config.mask_ratio == 0.8
    assert objective_for(model) == "mae"
    with pytest.raises(UnknownNameError, match="Did you mean 'mae'"):
        build_objective("maee", model)
    with pytest.raises(ConfigError, match="Did you mean 'mask_ratio'"):
        build_objective("mae", model, {"mask_rate": 0.8})
    with pytest.raises(ConfigError, match="trains Eat models"):
        build_objective("eat", model)
    with pytest.raises(ConfigError, match="no self-supervised objective"):
        objective_for(tiny_model("efficientnet"))


# -- groups of parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["eat", "beats", "hubert", "birdmae", "efficientnet", "atst_frame"])
def test_every_trainable_parameter_is_in_one_group(family):
    model = tiny_model(family, num_classes=2)
    objective = SupervisedObjective(model)
    groups = objective.parameter_groups(1e-3, 0.05, layer_decay=0.75)
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in objective.parameters() if p.requires_grad}
    depths, top = layer_depths(model)
    assert depths["classifier.weight"] == top
    assert min(depths.values()) == 0
    for group in groups:
        vectors = {sum(size > 1 for size in p.shape) <= 1 for p in group["params"]}
        assert vectors == {group["weight_decay"] == 0.0}


def test_rates_fall_by_layer():
    model = tiny_model("eat", num_classes=2)  # two blocks: the head is the third layer
    rates = {}
    for group in SupervisedObjective(model).parameter_groups(1.0, 0.05, layer_decay=0.5):
        rates.update({id(p): (group["lr"], group["lr_scale"]) for p in group["params"]})
    at = {name: rates[id(p)][0] for name, p in model.named_parameters()}
    assert at["classifier.weight"] == 1.0
    assert at["backbone.blocks.1.attn.qkv.weight"] == 0.5
    assert at["backbone.blocks.0.norm1.bias"] == 0.25
    assert at["backbone.local_encoder.proj.weight"] == at["backbone.extra_tokens"] == 0.125


def test_frozen_parameters_are_left_out():
    model = tiny_model("eat", num_classes=2)
    model.backbone.requires_grad_(False)
    (decay, no_decay) = sorted(
        SupervisedObjective(model).parameter_groups(1e-3, 0.1), key=lambda g: -g["weight_decay"]
    )
    assert [p is model.classifier.weight for p in decay["params"]] == [True]
    assert [p is model.classifier.bias for p in no_decay["params"]] == [True]
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        SupervisedObjective(model).parameter_groups(1e-3, 0.1)


# -- LoRA -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["eat", "beats", "hubert", "birdmae"])
def test_lora_changes_nothing_until_trained_and_merges_exactly(family):
    torch.manual_seed(0)
    model = tiny_model(family, num_classes=2)
    names = list(model.state_dict())
    audio = torch.randn(4, model.sample_rate) * 0.1
    before = model(audio)
    assert apply_lora(model, rank=2)
    assert torch.allclose(model(audio), before, atol=1e-5)
    objective = SupervisedObjective(model)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    _train(objective, {"raw_wav": audio, "label": torch.tensor([0, 1, 0, 1])}, 3, 1e-2)
    model.eval()
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    trained = model(audio)
    assert not torch.allclose(trained, before, atol=1e-3)
    exported = objective.export()
    assert list(exported.state_dict()) == names
    assert torch.allclose(exported(audio), trained, atol=1e-5)
    assert merge_lora(model) > 0
    assert torch.allclose(model(audio), trained, atol=1e-5)


def test_lora_trains_little_and_says_what_it_cannot_find():
    model = tiny_model("eat", num_classes=2)
    apply_lora(model, rank=1)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # Two blocks of rank one on (48, 16), and the classifier of 16 x 2 + 2.
    assert trainable == 2 * (48 + 16) + 34
    with pytest.raises(ConfigError, match="already"):
        apply_lora(model)
    with pytest.raises(ConfigError, match="This model has"):
        apply_lora(tiny_model("eat"), targets=("nothing",))


# -- distillation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["embedding", "sequence"])
@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_a_student_approaches_its_teacher(what, distance):
    torch.manual_seed(0)
    student, teacher = tiny_model("eat", num_classes=None), tiny_model("beats", num_classes=None)
    objective = DistillationObjective(student, teacher, what=what, distance=distance)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    losses = _train(objective, {"raw_wav": _chirps(8)}, 25, 3e-3)
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(p, before[name]) for name, p in teacher.named_parameters())
    assert not teacher.training
    assert type(objective.export()) is type(student)


def test_distillation_between_rates_is_refused():
    with pytest.raises(ConfigError, match="16000 Hz"):
        DistillationObjective(tiny_model("eat"), tiny_model("birdmae"))
    with pytest.raises(ConfigError, match="choose"):
        DistillationObjective(tiny_model("eat"), tiny_model("beats"), what="all")
