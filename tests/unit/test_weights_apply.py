from __future__ import annotations

import pytest
import torch
from torch import nn

from avex._core.errors import WeightsError
from avex.weights import LoadReport, apply_state


class Model(nn.Module):
    """A backbone with batch statistics, an unsaved buffer and, if wanted, a classifier."""

    def __init__(self, classes: int | None = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.register_buffer("window", torch.hann_window(4), persistent=False)
        if classes:
            self.classifier = nn.Linear(5, classes)


class Tied(nn.Module):
    """Three layers share one table, as in BEATs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Embedding(6, 2) for _ in range(3))
        for layer in self.layers[1:]:
            layer.weight = self.layers[0].weight


def filled(module: nn.Module, value: float = 2.0) -> dict[str, torch.Tensor]:
    return {
        name: torch.full_like(tensor, value) if tensor.is_floating_point() else torch.full_like(tensor, 9)
        for name, tensor in module.state_dict().items()
    }


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def refused(module: nn.Module, state: dict[str, torch.Tensor], **options: object) -> str:
    """Apply, expect a refusal that changed nothing, and return its message."""
    before = snapshot(module)
    with pytest.raises(WeightsError) as caught:
        apply_state(module, state, source="w.pt", **options)  # type: ignore[arg-type]
    assert unchanged(module, before)
    assert "Nothing was loaded" in str(caught.value)
    assert "Checkpoint 'w.pt'" in str(caught.value)
    return str(caught.value)


def test_everything_fits() -> None:
    model = Model()
    pointers = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    report = apply_state(model, filled(model), source="w.pt")
    assert report.loaded == tuple(model.state_dict())
    assert (report.missing, report.unexpected, report.reset, report.ignored, report.notes) == ((),) * 5
    assert report.num_parameters == 20 + 5 + 4 * 5 + 1 + 15 + 3
    for name, tensor in model.state_dict().items():
        assert (tensor == (2.0 if tensor.is_floating_point() else 9)).all()
        assert tensor.data_ptr() == pointers[name]
    assert torch.equal(model.window, torch.hann_window(4))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert report.summary() == "Loaded 9 tensors (64 numbers) from 'w.pt'."


def test_agrees_with_torch() -> None:
    torch.manual_seed(0)
    ours, theirs, source = Model(), Model(), Model().state_dict()
    apply_state(ours, source)
    theirs.load_state_dict(source)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_missing_and_unexpected_names_are_listed() -> None:
    model = Model()
    state = filled(model)
    del state["backbone.0.bias"]
    state["backbone.7.weight"] = torch.ones(1)
    message = refused(model, state)
    assert "8 of 9 parameters matched" in message
    assert "lacks 1 of them: 'backbone.0.bias'" in message
    assert "has 1 others: 'backbone.7.weight'" in message


def test_at_most_eight_names() -> None:
    model = Model()
    state = {**filled(model), **{f"extra.{i}": torch.ones(1) for i in range(20)}}
    message = refused(model, state)
    assert "has 20 others" in message
    assert message.count("'extra.") == 8


def test_nothing_fits() -> None:
    message = refused(Model(), {"encoder.a": torch.ones(1)})
    assert "does not fit 'Model': 0 of 9 parameters matched. First unmatched keys: 'encoder.a'" in message
    assert "0 of 9 parameters matched" in refused(Model(), {})


def test_optional_names() -> None:
    model = Model()
    before = snapshot(model)
    state = {
        name: tensor for name, tensor in filled(model).items() if not name.startswith("backbone.1.running")
    }
    assert "lacks 2" in refused(model, state)
    report = apply_state(model, state, optional=("*.running_*",))
    assert report.missing == ("backbone.1.running_mean", "backbone.1.running_var")
    assert torch.equal(model.backbone[1].running_mean, before["backbone.1.running_mean"])
    assert report.summary().endswith("; 2 missing.")
    state["backbone.1.running_mean"] = before["backbone.1.running_mean"]
    assert "it lacks 1 of them: 'backbone.1.running_var'" in refused(model, state, optional=("*.running_*",))


def test_counters_may_be_missing() -> None:
    model = Model()
    state = filled(model)
    del state["backbone.1.num_batches_tracked"]
    assert apply_state(model, state).missing == ("backbone.1.num_batches_tracked",)


class TestHead:
    def test_reset(self) -> None:
        model = Model(classes=7)
        before = snapshot(model)
        report = apply_state(model, {**filled(Model(3)), "classifier.extra": torch.ones(1)}, reset_head=True)
        assert report.reset == ("classifier.weight", "classifier.bias")
        assert report.ignored == ("classifier.extra",)
        assert "classifier.weight" not in report.loaded
        assert torch.equal(model.classifier.weight, before["classifier.weight"])
        assert (model.backbone[0].weight == 2).all()

    def test_reset_when_the_file_has_no_head(self) -> None:
        report = apply_state(Model(7), filled(Model(None)), reset_head=True)
        assert report.reset == ("classifier.weight", "classifier.bias")
        assert report.ignored == ()

    def test_drop(self) -> None:
        report = apply_state(Model(None), filled(Model(3)), drop_head=True, ignored=["decoder.a"])
        assert report.ignored == ("classifier.weight", "classifier.bias", "decoder.a")
        assert report.table().splitlines()[1:] == [
            "ignored     classifier.weight",
            "ignored     classifier.bias",
            "ignored     decoder.a",
        ]
        assert "has 2 others: 'classifier.weight'" in refused(Model(None), filled(Model(3)))

    def test_wrong_number_of_classes(self) -> None:
        message = refused(Model(7), filled(Model(3)))
        assert "'classifier.weight' is (3, 5), expected (7, 5)" in message
        assert "num_classes=7" in message

    def test_other_names_for_the_head(self) -> None:
        model = nn.ModuleDict({"body": nn.Linear(2, 2), "fc": nn.Linear(2, 3)})
        report = apply_state(model, filled(model), head_prefixes=("fc.", "head."), reset_head=True)
        assert report.reset == ("fc.weight", "fc.bias")

    def test_names_that_only_contain_the_word_are_no_heads(self) -> None:
        model = nn.ModuleDict({"classifier_free": nn.Linear(2, 2), "multi_head": nn.Linear(2, 2)})
        assert len(apply_state(model, filled(model), reset_head=True).loaded) == 4


def test_wrong_shapes_are_all_listed() -> None:
    state = filled(Model())
    state["backbone.0.weight"] = torch.ones(5, 3)
    state["classifier.bias"] = torch.ones(4)
    message = refused(Model(), state)
    assert "'backbone.0.weight' is (5, 3), expected (5, 4)" in message
    assert "'classifier.bias' is (4,), expected (3,)" in message
    assert "num_classes" not in message
    state = filled(Model())
    state["backbone.0.weight"] = state["backbone.0.weight"].reshape(4, 5)
    assert "is (4, 5), expected (5, 4)" in refused(Model(), state)


def test_element_types() -> None:
    model = Model()
    half = {name: t.half() if t.is_floating_point() else t for name, t in filled(model, 0.1).items()}
    report = apply_state(model, half)
    assert report.notes == ("8 converted from float16 to float32",)
    assert model.backbone[0].weight.dtype == torch.float32
    assert (model.backbone[0].weight == torch.tensor(0.1).half().float()).all()
    assert "8 converted from float16 to float32" in report.summary()
    state = filled(model)
    state["backbone.0.bias"] = torch.ones(5, dtype=torch.int64)
    assert "'backbone.0.bias' as torch.int64" in refused(model, state)
    state = filled(model)
    state["backbone.1.num_batches_tracked"] = torch.tensor(0.5)
    assert "num_batches_tracked" in refused(model, state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(value: float) -> None:
    state = filled(Model())
    state["backbone.0.weight"][3, 2] = value
    assert "'backbone.0.weight' that are not finite" in refused(Model(), state)


def test_finite_values_at_the_edge_of_the_type() -> None:
    state = filled(Model())
    state["backbone.0.weight"].fill_(3e38)  # their sum is infinite, they are not
    model = Model()
    apply_state(model, state)
    assert (model.backbone[0].weight == 3e38).all()
    assert "too large for torch.float16" in refused(Model().half(), state)


class TestTied:
    def test_all_names_in_the_file(self) -> None:
        model = Tied()
        table = torch.arange(12.0).reshape(6, 2)
        report = apply_state(model, {f"layers.{i}.weight": table.clone() for i in range(3)})
        assert len(report.loaded) == 3
        assert report.num_parameters == 12
        assert torch.equal(model.layers[2].weight, table)
        assert model.layers[2].weight is model.layers[0].weight

    @pytest.mark.parametrize("which", [0, 2])
    def test_one_name_in_the_file(self, which: int) -> None:
        model = Tied()
        report = apply_state(model, {f"layers.{which}.weight": torch.ones(6, 2)})
        assert set(report.loaded) == {"layers.0.weight", "layers.1.weight", "layers.2.weight"}
        assert report.missing == ()
        assert (model.layers[1].weight == 1).all()

    def test_names_that_disagree(self) -> None:
        state = {f"layers.{i}.weight": torch.full((6, 2), float(i // 2)) for i in range(3)}
        assert "different values for 'layers.0.weight' and 'layers.2.weight'" in refused(Tied(), state)


def test_meta_modules_are_refused() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    with pytest.raises(WeightsError, match=r"without memory: 'weight', 'bias'"):
        apply_state(module, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})


def test_memory_stays_flat() -> None:
    """The values are copied into place; no second copy of the state is made."""
    model = nn.Linear(1000, 1000)
    source = {"weight": torch.ones(1000, 1000), "bias": torch.ones(1000)}
    before = model.weight.data_ptr()
    with torch.profiler.profile(profile_memory=True) as profile:
        apply_state(model, source)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events() or [])
    assert allocated < 100_000
    assert model.weight.data_ptr() == before


def test_reports_are_plain_values() -> None:
    report = LoadReport(loaded=("a",), missing=("b",), reset=("c", "d"), source="x", num_parameters=1_234_567)
    assert report.summary() == "Loaded 1 tensor (1,234,567 numbers) from 'x'; 1 missing; 2 reset."
    assert report.table().splitlines() == [
        report.summary(),
        "missing     b",
        "reset       c",
        "reset       d",
    ]
    assert report == LoadReport(("a",), ("b",), (), ("c", "d"), (), "x", 1_234_567)
    assert hash(report) == hash(LoadReport(("a",), ("b",), (), ("c", "d"), (), "x", 1_234_567))
