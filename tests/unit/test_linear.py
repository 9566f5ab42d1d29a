"""Linear maps through oneDNN give what torch's own give, and step aside where they must."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from avex.nn import linear as module
from avex.nn.linear import Linear, linear, linear_gelu

needs_onednn = pytest.mark.skipif(not module._ONEDNN, reason="oneDNN is not the faster way on this processor")


def layer(dtype=torch.float32, seed=0, bias=True):
    torch.manual_seed(seed)
    made = Linear(256, 512, bias=bias)
    if bias:
        nn.init.normal_(made.bias)
    return made.to(dtype)


def tokens(dtype=torch.float32, rows=128, seed=1):
    return torch.randn(2, rows, 256, generator=torch.Generator().manual_seed(seed)).to(dtype)


def operators(function):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_values_are_those_of_float64(dtype, tolerance, bias):
    x, made = tokens(dtype), layer(dtype, bias=bias)
    b = None if made.bias is None else made.bias.double()
    expected = functional.linear(x.double(), made.weight.double(), b)
    with torch.inference_mode():
        for got, wanted in ((made(x), expected), (linear_gelu(made, x), functional.gelu(expected))):
            assert got.dtype == dtype
            assert float((got.double() - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


@needs_onednn
def test_the_faster_way_is_taken_for_large_products_only():
    made = layer()
    with torch.inference_mode():
        assert "mkldnn::_linear_pointwise" in operators(lambda: linear_gelu(made, tokens()))
        assert "aten::gelu" not in operators(lambda: linear_gelu(made, tokens()))
        assert "mkldnn::_linear_pointwise" not in operators(lambda: made(tokens(rows=4)))


def test_forward_mode_derivatives():
    made, x, direction = layer().requires_grad_(False), tokens(), tokens(seed=2)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(made(forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close(tangent, functional.linear(direction, made.weight))


@needs_onednn
def test_a_row_does_not_depend_on_its_batch():
    made, x = layer(), tokens()
    with torch.inference_mode():
        assert torch.equal(linear_gelu(made, x.flip(0)), linear_gelu(made, x).flip(0))


def test_gradients_are_torch_s():
    made, x = layer(), tokens().requires_grad_()
    linear_gelu(made, x).square().sum().backward()
    found = made.weight.grad.clone(), x.grad.clone()
    made.zero_grad()
    x.grad = None
    functional.gelu(functional.linear(x, made.weight, made.bias)).square().sum().backward()
    assert torch.equal(found[0], made.weight.grad)
    assert torch.equal(found[1], x.grad)


def test_hooks_see_what_the_layer_gives():
    made, x, seen = layer(), tokens(), []
    made.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        result = linear_gelu(made, x)
    assert len(seen) == 1
    torch.testing.assert_close(functional.gelu(seen[0]), result)


def test_another_layer_in_its_place_is_called():
    made = nn.Sequential(layer(), nn.Tanh())
    with torch.inference_mode():
        torch.testing.assert_close(linear_gelu(made, tokens()), functional.gelu(made(tokens())))


def test_under_autocast_the_result_is_in_its_type():
    made, x = layer(torch.bfloat16), tokens()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        got = linear_gelu(made, x)
    assert got.dtype == torch.bfloat16
    expected = functional.gelu(functional.linear(x.bfloat16(), made.weight, made.bias))
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


def test_counters_and_transformations_see_torch_s_operators():
    made, x = layer(), tokens()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        linear(x, made.weight, made.bias)
    assert counter.get_total_flops() == 2 * x.numel() * 512
    with torch.no_grad():
        torch.testing.assert_close(torch.func.vmap(made)(x), made(x))
