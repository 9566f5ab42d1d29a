"""Blocks of vision transformers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.configs.settings import check_settings
from avex.models.atst_frame.config import AtstFrameConfig
from avex.models.beats.config import BeatsConfig
from avex.models.birdmae.config import BirdMaeConfig
from avex.models.eat.config import EatConfig
from avex.models.hubert.config import HubertConfig
from avex.nn.attention import attend, biased_products
from avex.nn.positions_2d import sincos_2d
from avex.nn.transformer import (
    Attention,
    Block,
    BlockStack,
    DropPath,
    Mlp,
    PatchEmbed,
    drop_path_rates,
)
from avex.nn.vit_config import find_published, join_config, read_sizes


def by_hand(attention, x, allowed):
    """Softmax attention, head by head, for a (N, N) table of who may look at whom."""
    query, key, value = attention.qkv(x).chunk(3, dim=-1)
    size = x.shape[-1] // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].mT / math.sqrt(size)
        heads.append(scores.masked_fill(~allowed, -math.inf).softmax(-1) @ value[..., part])
    return attention.proj(torch.cat(heads, -1))


def test_attention_is_softmax_attention():
    attention = Attention(12, num_heads=3)
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(attention(x), by_hand(attention, x, torch.ones(7, 7).bool()))


@settings(deadline=None, max_examples=25)
@given(tokens=st.integers(1, 12), span=st.integers(1, 12))
def test_spans_do_not_see_each_other(tokens, span):
    attention = Attention(8, num_heads=2, qkv_bias=False, span=span)
    x = torch.randn(2, tokens, 8)
    number = torch.arange(tokens) // span
    torch.testing.assert_close(attention(x), by_hand(attention, x, number[:, None] == number))


@pytest.mark.parametrize("span", [None, 4])
def test_masked_tokens_are_not_looked_at(span):
    attention = Attention(8, num_heads=2, span=span)
    x = torch.randn(2, 6, 8)
    keep = torch.tensor([[True] * 5 + [False], [True, False, True, True, True, True]])
    changed = torch.where(keep[..., None], x, torch.full_like(x, 3.0))
    torch.testing.assert_close(attention(x, keep)[keep], attention(changed, keep)[keep])
    if span is None:
        torch.testing.assert_close(attention(x, keep)[:1, :5], attention(x[:1, :5]))


@pytest.mark.parametrize("tokens", [1, 40, 600, 1300])
def test_bfloat16_attention(tokens):
    query, key, value = torch.randn(3, 2, 7, tokens, 8).bfloat16()
    fused = functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    with torch.no_grad():
        quick = attend(query, key, value)
    assert quick.shape == query.shape
    torch.testing.assert_close(quick.float(), fused, atol=0.02, rtol=0.02)
    assert attend(query.requires_grad_(), key, value).requires_grad


def test_heads_must_divide_the_token():
    with pytest.raises(ValueError, match="5 heads.*12"):
        Attention(12, num_heads=5)


def test_pre_and_post_norm():
    x = torch.randn(2, 5, 8)
    for norm in ("pre", "post"):
        block = Block(8, num_heads=2, hidden_dim=16, norm=norm, eps=1e-3)
        if norm == "pre":
            y = x + block.attn(block.norm1(x))
            want = y + block.mlp(block.norm2(y))
        else:
            y = block.norm1(x + block.attn(x))
            want = block.norm2(y + block.mlp(y))
        torch.testing.assert_close(block(x), want)
        assert block.norm1.eps == block.norm2.eps == 1e-3


def test_gelu_is_exact():
    mlp = Mlp(1, 1)
    with torch.no_grad():
        for linear in (mlp.fc1, mlp.fc2):
            linear.weight.fill_(1.0)
        x = torch.tensor([[[-1.0]], [[0.5]], [[2.0]]])
        want = torch.tensor([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (-1.0, 0.5, 2.0)])
        torch.testing.assert_close(mlp(x).flatten(), want)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), size=st.sampled_from([1, 3, 8]))
def test_patches_are_a_strided_convolution(rows, columns, size):
    patches = PatchEmbed(5, size)
    image = torch.randn(2, rows, columns)
    if rows < size or columns < size:
        assert patches(image).shape == (2, 0, 5)
        return
    convolved = functional.conv2d(image[:, None], patches.proj.weight, patches.proj.bias, stride=size)
    torch.testing.assert_close(patches(image), convolved.flatten(2).mT, atol=1e-5, rtol=1e-5)


def test_patches_start_as_a_linear_map_does():
    """As in the code of MAE and EAT; a convolution would start within 1 / 16, whatever the number of channels."""
    torch.manual_seed(0)
    weight = PatchEmbed(96, 16).proj.weight.detach()
    bound = math.sqrt(6 / (96 + 256))
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_drop_path_keeps_the_expectation():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 1, 1)
    dropped = drop(x)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)
    assert drop.eval()(x) is x
    assert "0.25" in repr(drop)
    assert not DropPath(1.0)(x).any()
    assert drop_path_rates(0.2, 5) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_rates(0.2, 1) == [0.0]


def test_a_stack_gives_every_output():
    stack = BlockStack(Block(8, num_heads=2, hidden_dim=16) for _ in range(3))
    x = torch.randn(1, 5, 8)
    outputs = list(stack.outputs(x))
    assert torch.equal(outputs[0], stack[0](x))
    assert torch.equal(outputs[-1], stack(x))
    assert sorted({name.split(".")[0] for name, _ in stack.named_parameters()}) == ["0", "1", "2"]


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_recomputing_gives_the_same_gradients(norm):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        stack = BlockStack(Block(8, 2, 16, norm=norm, drop_path=0.5) for _ in range(2))
        stack.gradient_checkpointing = recompute
        x = torch.randn(3, 5, 8, requires_grad=True)
        stack(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in stack.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), quarter=st.integers(1, 6))
def test_positions_of_a_grid(rows, columns, quarter):
    table = sincos_2d(4 * quarter, rows, columns).view(rows, columns, 2, 2, quarter)
    # Sine and cosine of one angle; the first half knows the column only, the second the row only.
    torch.testing.assert_close(table.square().sum(3), torch.ones(rows, columns, 2, quarter))
    torch.testing.assert_close(table[:, :, 0], table[:1, :, 0].expand(rows, -1, -1, -1))
    torch.testing.assert_close(table[:, :, 1], table[:, :1, 1].expand(-1, columns, -1, -1))
    assert table[rows - 1, 0, 1, 0, 0] == pytest.approx(math.sin(rows - 1), abs=1e-6)
    assert table[0, columns - 1, 0, 1, 0] == pytest.approx(math.cos(columns - 1), abs=1e-6)


def test_positions_need_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(6, 2, 2)


def test_what_is_given_wins_over_what_is_stated():
    config = join_config(EatConfig(), "EAT", {"depth": 3, "num_heads": 4}, {"depth": 2})
    assert (config.depth, config.num_heads, config.embed_dim) == (2, 4, 768)
    with pytest.raises(ConfigError, match="no setting 'detph'.*'depth'"):
        join_config(EatConfig(), "EAT", {}, {"detph": 2})
    for wrong in ({"depth": 0}, {"num_heads": 0}, {"num_heads": 5}):
        with pytest.raises(ConfigError, match=r"greater than|eat_cfg=.*num_heads"):
            join_config(EatConfig(), "EAT", {}, wrong)
    with pytest.raises(ConfigError, match="'tiny'.*checkpoint"):
        find_published("Bird", "me/Bird-Small", {"tiny": {}, "big": {}})


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        (EatConfig, "depth", 2.5),
        (EatConfig, "num_heads", None),
        (EatConfig, "mlp_ratio", math.nan),
        (AtstFrameConfig, "drop_path_rate", 1.5),
        (BirdMaeConfig, "drop_rate", "some"),
        (BeatsConfig, "encoder_layers", "twelve"),
        (HubertConfig, "encoder_num_layers", -1),
        (HubertConfig, "extractor_conv_layer_config", [[512, 10]]),
    ],
)
def test_settings_have_types_and_ranges(config, name, value):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be"):
        check_settings(config, "It", {name: value})


def test_settings_of_a_yaml_file_become_numbers():
    assert BeatsConfig.from_options({"encoder_layers": "2", "dropout": 0}).encoder_layers == 2
    assert HubertConfig.from_options({"encoder_num_layers": 3.0}).encoder_num_layers == 3
    assert EatConfig.from_options(config={"depth": "2"}).depth == 2
    with pytest.raises(ConfigError, match="names with values, not 'base'"):
        BirdMaeConfig.from_options(config="base")
    with pytest.raises(ConfigError, match="Unknown Bird-MAE model '5'"):
        BirdMaeConfig.from_options(5)


def test_sizes_of_a_state_dict():
    stack = BlockStack(Block(8, num_heads=2, hidden_dim=24) for _ in range(11))
    state = {f"backbone.blocks.{name}": value for name, value in stack.state_dict().items()}
    assert read_sizes(state) == {"depth": 11, "embed_dim": 8, "mlp_ratio": 3.0}
    assert read_sizes({"something.else": torch.zeros(1)}) == {}


def test_products_with_a_bias_are_the_fused_kernel():
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, 3, 37, 16).bfloat16() for _ in range(3))
    bias = 3 * torch.randn(2, 3, 37, 37)
    bias[1, :, :, 30:] = -torch.inf
    exact = functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=bias.double()
    )
    quick = biased_products(query, key, value, bias.clone())
    assert quick.dtype == torch.bfloat16
    # Eight bits of mantissa: half a step of the scores (below 8), of the weights and of the result.
    assert (quick.double() - exact).abs().max() < 0.03 * exact.abs().max()
    assert torch.equal(biased_products(query[1:], key[1:], value[1:], bias[1:].clone()), quick[1:])
