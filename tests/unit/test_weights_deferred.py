"""Deferred initialisation: nothing is filled twice, nothing is left unfilled, nothing unfilled is ever seen."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from avex._core.registry import load_attribute
from avex.models.utils.families import FAMILIES
from avex.weights import apply_state
from avex.weights.deferred import DeferredInitialisation


def build(module):
    with DeferredInitialisation() as later:
        return module(), later


def test_values_are_those_of_the_class_once_filled():
    def net():
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3), nn.Embedding(5, 4))

    expected = net().state_dict()
    got, later = build(net)
    torch.manual_seed(5)
    later.fill()
    assert all(torch.equal(value, expected[name]) for name, value in got.state_dict().items())


def test_whoever_looks_sees_values():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.scale = nn.Parameter(self.linear.weight.norm(dim=0).detach())
            self.twin = copy.deepcopy(self.linear)
            self.flat = self.linear.bias.view(-1)
            self.listed = nn.Linear(4, 4)
            self.stack = torch.stack([self.listed.weight, self.listed.weight]).detach()
            self.scaled, factor = nn.Linear(4, 4), torch.tensor(2.0)
            with torch.no_grad():
                self.scaled.weight.mul_(factor)
            factor.zero_()

    model, later = build(Looks)
    bound = 0.5  # Linear draws from [-1/sqrt(fan_in), 1/sqrt(fan_in)]
    assert 0 < model.linear.weight.abs().max() <= bound
    assert torch.equal(model.scale, model.linear.weight.norm(dim=0))
    assert torch.equal(model.twin.weight, model.linear.weight)
    assert not later.is_unfilled(model.linear.weight)
    later.fill()
    assert torch.equal(model.stack[1], model.listed.weight)
    assert 0 < model.scaled.weight.abs().max() <= 2 * bound


def test_scaling_is_written_down_too():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8, bias=False)
            with torch.no_grad():
                self.linear.weight.mul_(1e-3)

    model, later = build(Scaled)
    assert later.is_unfilled(model.linear.weight)
    later.fill()
    assert 0 < model.linear.weight.abs().max() <= 1e-3 * 8**-0.5


def test_errors_of_a_constructor_come_where_they_are():
    with pytest.raises(RuntimeError, match="leaf Variable"), DeferredInitialisation():
        nn.Parameter(torch.empty(3)).normal_()
    with pytest.raises(ValueError, match="fewer than 2 dimensions"), DeferredInitialisation():
        nn.init.xavier_uniform_(nn.Parameter(torch.empty(3)))


def test_buffers_are_never_put_off():
    class WithTable(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(3))
            nn.init.ones_(self.table)

    assert build(WithTable)[0].table.tolist() == [1, 1, 1]


def test_a_checkpoint_is_taken_over_and_the_rest_is_filled():
    state = {"0.weight": torch.randn(64, 32), "0.bias": torch.randn(64)}
    with DeferredInitialisation() as later:
        model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 2))
    weight = model[0].weight
    pointer = state["0.weight"].data_ptr()
    report = apply_state(model, state, head_prefixes=("1.",), reset_head=True, deferred=later, take_over=True)
    assert model[0].weight is weight
    assert weight.data_ptr() == pointer
    assert weight.requires_grad
    assert weight.is_leaf
    assert set(report.reset) == {"1.weight", "1.bias"}
    assert 0 < model[1].weight.abs().max() <= 64**-0.5
    model(torch.randn(2, 32)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"weight": torch.ones(6, 4).T, "bias": torch.zeros(4)}, id="another memory format"),
        pytest.param({"weight": torch.ones(40)[:24].view(4, 6), "bias": torch.zeros(4)}, id="part of more"),
        pytest.param({"weight": torch.ones(4, 6).half(), "bias": torch.zeros(4)}, id="another type"),
    ],
)
def test_what_cannot_be_taken_over_is_copied(state):
    with DeferredInitialisation() as later:
        layer = nn.Linear(6, 4)
    apply_state(layer, state, deferred=later, take_over=True)
    assert layer.weight.data_ptr() != state["weight"].data_ptr()
    assert layer.weight.untyped_storage().nbytes() == 4 * 6 * 4
    assert torch.equal(layer.weight, torch.ones(4, 6))


def test_one_tensor_is_taken_over_once():
    shared = torch.ones(3, 3)
    with DeferredInitialisation() as later:
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    apply_state(model, {"0.weight": shared, "1.weight": shared}, deferred=later, take_over=True)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(model[1].weight, torch.ones(3, 3))


SMALL = {
    "beats": {"init_config": {"encoder_layers": 1}},
    "hubert": {"init_config": {"encoder_num_layers": 1}},
    "atst_frame": {"model_id": "atst_frame_small"},
    "resnet18": {},
    "efficientnet": {},
    "eat_hf": {},
}


@pytest.mark.parametrize("family", SMALL)
def test_families_put_off_their_parameters_and_compute_their_buffers(family):
    cls = load_attribute(FAMILIES[family].reference)
    options = SMALL[family]
    with DeferredInitialisation() as later:
        model = cls(return_features_only=True, **options)
    plain = cls(return_features_only=True, **options)
    waiting = sum(p.numel() for p in model.parameters() if later.is_unfilled(p))
    assert waiting > 0.99 * sum(p.numel() for p in model.parameters())
    buffers = dict(model.named_buffers())
    assert buffers.keys() == dict(plain.named_buffers()).keys()
    assert all(torch.equal(buffers[name], value) for name, value in plain.named_buffers())
    wants_grad = {name: p.requires_grad for name, p in plain.named_parameters()}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wants_grad
