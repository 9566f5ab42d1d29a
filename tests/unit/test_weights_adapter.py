from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
import torch

from avex._core.errors import UnknownNameError, WeightsError
from avex.weights import CheckpointAdapter, KeyMap, KeyMapAdapter, StateDictAdapter, choose_adapter

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"
ESP = KeyMapAdapter("esp", KeyMap([("{rest}", "{rest}")]), requires=("backbone.a", "classifier.weight"))
HUB = KeyMapAdapter("huggingface", KeyMap([("model.{rest}", "backbone.{rest}")]))
FAIRSEQ = KeyMapAdapter(
    "fairseq",
    KeyMap([("_ema.{rest}", None, "moving average"), ("{rest}", "backbone.{rest}")]),
    requires=("mask_emb",),
)
ADAPTERS = [ESP, HUB, FAIRSEQ]


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"backbone.a", "classifier.weight"}, "esp"),
        ({"model.a", "model.b"}, "huggingface"),
        ({"mask_emb", "a", "_ema.a"}, "fairseq"),
    ],
)
def test_the_layout_is_recognised(keys: set[str], name: str) -> None:
    assert choose_adapter(ADAPTERS, keys, "w.pt", "eat").name == name


def test_conversion_keeps_the_tensors() -> None:
    tensor = torch.ones(2)
    converted = FAIRSEQ.convert({"mask_emb": tensor, "_ema.x": torch.zeros(1)})
    assert list(converted) == ["backbone.mask_emb"]
    assert converted["backbone.mask_emb"] is tensor
    assert FAIRSEQ.dropped(["mask_emb", "_ema.x"]) == {"_ema.x": "moving average"}


def test_none_fits() -> None:
    keys = [f"blocks.{i}.attn.proj.bias" for i in range(12)]
    with pytest.raises(WeightsError) as caught:
        choose_adapter(ADAPTERS, keys, "/data/eat.safetensors", "eat", num_parameters=151)
    assert str(caught.value).startswith(
        "Checkpoint 'eat.safetensors' does not fit 'eat': 0 of 151 parameters matched. "
        "Formats tried: esp, huggingface, fairseq. First unmatched keys: 'blocks.0.attn.proj.bias', "
    )
    assert "..., " not in str(caught.value)
    assert "Pass checkpoint_format=..." in str(caught.value)
    with pytest.raises(WeightsError, match="0 of 12 parameters"):
        choose_adapter(ADAPTERS, keys, "eat.safetensors", "eat")


def test_the_format_can_be_given() -> None:
    assert choose_adapter(ADAPTERS, {"x"}, "w.pt", "eat", "fairseq") is FAIRSEQ
    # The name of a container says nothing about the layout.
    assert choose_adapter(ADAPTERS, {"model.a"}, "w.pt", "eat", "safetensors") is HUB
    with pytest.raises(UnknownNameError, match=r"no checkpoint format 'fairsec'. Did you mean 'fairseq'\?"):
        choose_adapter(ADAPTERS, {"x"}, "w.pt", "eat", "fairsec")


def test_any_class_with_the_three_members_is_an_adapter() -> None:
    class Mine:
        name = "mine"

        def matches(self, keys: AbstractSet[str]) -> bool:
            return "mine" in keys

        def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return state

    for adapter in (Mine(), ESP, StateDictAdapter(frozenset())):
        assert isinstance(adapter, CheckpointAdapter)
    assert choose_adapter([*ADAPTERS, Mine()], {"mine"}, "w.pt", "eat").name == "mine"


TARGET = frozenset({"backbone.a", "backbone.b", "classifier.weight"})


@pytest.mark.parametrize(
    ("target", "old", "new"),
    [
        # as they are
        (TARGET, ["backbone.a", "classifier.weight"], ["backbone.a", "classifier.weight"]),
        # wrappers
        (TARGET, ["module.backbone.a", "module.classifier.weight"], ["backbone.a", "classifier.weight"]),
        (TARGET, ["_orig_mod.module.backbone.a"], ["backbone.a"]),
        (TARGET, ["module._orig_mod.backbone.a"], ["backbone.a"]),
        # ... unless the model has them itself
        (frozenset({"module.a"}), ["module.a"], ["module.a"]),
        # a prefix more or less
        (TARGET, ["a", "b"], ["backbone.a", "backbone.b"]),
        (TARGET, ["a", "b", "classifier.weight"], ["backbone.a", "backbone.b", "classifier.weight"]),
        (TARGET, ["model.backbone.a", "model.classifier.weight"], ["backbone.a", "classifier.weight"]),
        (frozenset({"a", "b"}), ["model.a", "model.b"], ["a", "b"]),
        (frozenset({"a", "b"}), ["backbone.a", "backbone.b", "classifier.weight"], ["a", "b", "classifier.weight"]),
        (frozenset({"model.a"}), ["a"], ["model.a"]),
        # a model that has the prefix itself
        (frozenset({"model.a", "x"}), ["model.a", "x"], ["model.a", "x"]),
        # never in part: not every key has the prefix
        (frozenset({"a", "b"}), ["backbone.a", "b"], ["backbone.a", "b"]),
        (frozenset({"a", "b", "c"}), ["backbone.a", "backbone.b", "c"], ["backbone.a", "backbone.b", "c"]),
        # no gain, no change
        (TARGET, ["model.x", "model.y"], ["model.x", "model.y"]),
        (TARGET, [], []),
        # never two keys of one name
        (frozenset({"a", "classifier.w"}), ["backbone.classifier.w", "backbone.a", "classifier.w"],
         ["backbone.classifier.w", "backbone.a", "classifier.w"]),
    ],
)  # fmt: skip
def test_state_dicts_of_users(target: frozenset[str], old: list[str], new: list[str]) -> None:
    adapter = StateDictAdapter(target)
    state = {key: torch.full((1,), float(i)) for i, key in enumerate(old)}
    converted = adapter.convert(state)
    assert list(converted) == new
    assert [tensor.item() for tensor in converted.values()] == list(range(len(old)))
    assert adapter.matches(set(old)) is bool(target & set(new))


def test_a_real_layout_from_every_wrapper() -> None:
    layouts = json.loads((GOLDEN / "eat_tiny.keys.json").read_text())["layouts"]
    keys = [entry[0] for entry in layouts["hf_core"]["keys"]]
    adapter = StateDictAdapter(frozenset(keys))
    for prefix in (
        "",
        "module.",
        "_orig_mod.",
        "model.",
        "backbone.",
        "module.model.",
        "_orig_mod.backbone.",
    ):
        assert adapter.renamed([prefix + key for key in keys]) == {prefix + key: key for key in keys}
