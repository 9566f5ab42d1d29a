from __future__ import annotations

import json
from pathlib import Path

import pytest

from avex._core.errors import ConfigError, WeightsError
from avex.weights import KeyMap, Rule

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"


@pytest.mark.parametrize(
    ("pattern", "replacement", "key", "expected"),
    [
        ("blocks.{i}.attn.{rest}", "backbone.model.blocks.{i}.attn.{rest}", "blocks.11.attn.qkv.weight",
         "backbone.model.blocks.11.attn.qkv.weight"),
        ("{rest}", "model.{rest}", "a.b.c", "model.a.b.c"),
        ("a.{name}.{kind:weight|bias}", "{kind}.of.{name}", "a.norm.bias", "bias.of.norm"),
        ("l{i}.{j}", "x.{j}.{i}", "l3.4", "x.4.3"),
        ("{i}.{i}", "{i}", "7.7", "7"),
        ("conv.0.{w:weight_g|weight_v}", "conv.{w}", "conv.0.weight_v", "conv.weight_v"),
    ],
)  # fmt: skip
def test_rules(pattern: str, replacement: str, key: str, expected: str) -> None:
    rule = Rule(pattern, replacement)
    assert rule.matches(key)
    assert rule.apply(key) == expected
    assert rule.invert().apply(expected) == key


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("blocks.{i}.weight", "blocks.x.weight"),
        ("blocks.{i}.weight", "blocks.1.weight.more"),
        ("blocks.{i}.weight", "pre.blocks.1.weight"),
        ("a.{name}.b", "a.x.y.b"),
        ("a.b", "axb"),
        ("{i}.{i}", "7.8"),
        ("{kind:weight|bias}", "weights"),
        ("a.{rest}", "a."),
        ("{i}", "\u0663"),
    ],
)
def test_what_does_not_fit(pattern: str, key: str) -> None:
    rule = Rule(pattern, None)
    assert not rule.matches(key)
    with pytest.raises(WeightsError, match="does not fit the pattern"):
        rule.apply(key)


@pytest.mark.parametrize("template", ["a.{b", "a.}", "{}", "{A}", "{a:}", "", "{i}{j}"])
def test_malformed_templates(template: str) -> None:
    with pytest.raises(ConfigError, match="template"):
        Rule(template, None)


def test_a_replacement_must_use_fields_of_its_pattern() -> None:
    with pytest.raises(ConfigError, match="field 'j'"):
        Rule("a.{i}", "b.{j}")


def test_first_rule_wins_and_drops_are_recorded() -> None:
    table = KeyMap(
        [
            ("_ema.{rest}", None, "moving average, only for training"),
            ("decoder.{rest}", None, "decoder, only for pre-training"),
            ("norm.{rest}", "final.{rest}"),
            Rule("{rest}", "body.{rest}"),
        ]
    )
    keys = ["norm.bias", "_ema.norm.bias", "conv.weight", "decoder.0.weight"]
    assert table.apply(keys) == {
        "norm.bias": "final.bias",
        "_ema.norm.bias": None,
        "conv.weight": "body.conv.weight",
        "decoder.0.weight": None,
    }
    assert table.dropped(keys) == {
        "_ema.norm.bias": "moving average, only for training",
        "decoder.0.weight": "decoder, only for pre-training",
    }
    assert table.rename({"norm.bias": 1, "_ema.x": 2, "y": 3}) == {"final.bias": 1, "body.y": 3}
    assert len(table) == 4
    assert next(iter(table)).pattern == "_ema.{rest}"
    assert "dropped (decoder, only for pre-training)" in repr(table)
    assert [rule.pattern for rule in table.invert()] == ["final.{rest}", "body.{rest}"]


def test_unknown_keys() -> None:
    table = KeyMap([("a.{i}", "b.{i}")])
    with pytest.raises(WeightsError, match=r"2 of the 3 keys fit no rule of the key map: 'c', 'd'\."):
        table.apply(["a.1", "c", "d"])
    assert table.apply(["a.1", "c"], strict=False) == {"a.1": "b.1", "c": "c"}
    assert table.covers(["a.1"])
    assert not table.covers(["a.1", "c"])


def test_collisions() -> None:
    table = KeyMap([("a.{rest}", "x.{rest}"), ("b.{rest}", "x.{rest}")])
    with pytest.raises(WeightsError, match=r"'a\.1' and 'b\.1' would both become 'x\.1'"):
        table.apply(["a.1", "b.1"])
    with pytest.raises(WeightsError, match="both become"):
        KeyMap([("a", "b")]).apply(["a", "b"], strict=False)


def test_rules_that_cannot_be_turned_around() -> None:
    with pytest.raises(ConfigError, match="loses the field 'i'"):
        KeyMap([("a.{i}.{rest}", "b.{rest}")]).invert()
    with pytest.raises(ConfigError, match="drops"):
        Rule("a", None).invert()


def test_a_real_layout_there_and_back() -> None:
    """All keys of a published layout (EAT on the Hub) to the names of a wrapper, and back."""
    layouts = json.loads((GOLDEN / "eat_tiny.keys.json").read_text())["layouts"]
    keys = [entry[0] for entry in layouts["hf_core"]["keys"]]
    table = KeyMap(
        [
            ("head.{rest}", "classifier.{rest}"),
            ("fc_norm.{rest}", "backbone.fc_norm.{rest}"),
            ("blocks.{i}.{rest}", "backbone.model.blocks.{i}.{rest}"),
            ("{part:local_encoder|fixed_positional_encoder|pre_norm}.{rest}", "backbone.model.{part}.{rest}"),
            ("extra_tokens", "backbone.model.extra_tokens"),
        ]
    )
    renamed = table.apply(keys)
    assert len(keys) == 46
    assert renamed["blocks.1.mlp.fc2.bias"] == "backbone.model.blocks.1.mlp.fc2.bias"
    assert renamed["head.weight"] == "classifier.weight"
    back = table.invert().apply([new for new in renamed.values() if new is not None])
    assert {new: old for old, new in renamed.items()} == back
