"""Folding batch norm into convolutions: the same numbers, never out of date, never in the way."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avex.nn.checkpointing import run_checkpointed
from avex.nn.convolution import ConvNormAct, FoldableConv2d, conv_norm, merge_equal_channels


def with_statistics(module, seed=0):
    """Batch norms as training leaves them: no parameter at its start."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator))
            norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.2)
            norm.weight.data = torch.randn(norm.num_features, generator=generator)
            norm.bias.data = torch.randn(norm.num_features, generator=generator)
    return module.eval()


def reference(block, x):
    """The parts one after the other, as PyTorch runs them."""
    y = nn.functional.batch_norm(
        nn.functional.conv2d(x, block[0].weight, None, block[0].stride, block[0].padding, 1, block[0].groups),
        block[1].running_mean,
        block[1].running_var,
        block[1].weight,
        block[1].bias,
        eps=block[1].eps,
    )
    return block[2](y) if len(block) == 3 else y


@pytest.fixture
def block():
    torch.manual_seed(0)
    return with_statistics(ConvNormAct(3, 8, 3, stride=2, activation=nn.SiLU()))


@pytest.fixture
def x():
    return torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(1))


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2, 4]),
    activation=st.sampled_from([None, nn.SiLU(), nn.ReLU(), nn.GELU()]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)
def test_folded_is_what_the_parts_give(kernel, stride, groups, activation, size):
    block = with_statistics(ConvNormAct(4, 8, kernel, stride, groups, activation))
    batch, height, width = size
    x = torch.randn(batch, 4, height, width)
    with torch.no_grad():
        assert block.folded(x) is not None
        torch.testing.assert_close(block(x), reference(block, x), rtol=1e-4, atol=1e-5)


def test_a_shortcut_is_added_before_the_activation(x):
    conv, norm, relu = FoldableConv2d(3, 3, 1), with_statistics(nn.BatchNorm2d(3)), nn.ReLU()
    with torch.no_grad():
        got = conv_norm(x, conv, norm, relu, add=x)
        torch.testing.assert_close(got, relu(norm(nn.Conv2d.forward(conv, x)) + x), rtol=1e-5, atol=1e-6)
        assert got.data_ptr() != x.data_ptr()


def test_one_channel_stands_for_equal_ones(block):
    picture = torch.randn(2, 1, 9, 12)
    colour = picture.expand(-1, 3, -1, -1)
    assert merge_equal_channels(colour).shape == picture.shape
    assert merge_equal_channels(colour.contiguous()).shape == colour.shape
    torch.testing.assert_close(block(picture), block(colour.contiguous()))
    with torch.no_grad():
        torch.testing.assert_close(block(picture), block(colour.contiguous()), rtol=1e-5, atol=1e-6)


def test_a_folded_copy_is_made_once(block, x):
    with torch.no_grad():
        assert block.folded(x).weight is block.folded(x).weight
        assert block.eval().folded(x).weight is block.folded(x).weight


def _optimise(block):
    optimiser = torch.optim.SGD(block.parameters(), lr=0.5)
    block(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimiser.step()


def _optimise_fused(block):
    """In eval mode throughout; fused optimisers do not count what they change."""
    optimiser = torch.optim.AdamW(block.parameters(), lr=0.5, fused=True)
    block(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimiser.step()


def _train(block):
    with torch.no_grad():
        block.train()(torch.randn(4, 3, 8, 8) * 5 + 3)
    block.eval()


def _replace(block):
    block[0].weight.data = block[0].weight.data * 2


def _write(block):
    with torch.no_grad():
        block[1].running_var.mul_(3)


def _assign(block):
    state = {k: v * 2 if v.is_floating_point() else v for k, v in block.state_dict().items()}
    block.load_state_dict(state, assign=True)


def _load(block):
    block.load_state_dict({k: v + 1 for k, v in block.state_dict().items()})


def _through_data_between_trainings(block):
    block.train()
    block[0].weight.data.mul_(2)
    block.eval()


def _through_data(block):
    block[0].weight.data.mul_(2)


def _scale_through_data(block):
    block[1].weight.data.mul_(2)


def _vector(block):
    vector = nn.utils.parameters_to_vector(block.parameters()).detach()
    nn.utils.vector_to_parameters(vector * 1.5, block.parameters())


def _precision(block):
    block.double()
    block[0].weight.data += 1e-3
    block.float()


@pytest.mark.parametrize(
    "change",
    [
        _optimise,
        _optimise_fused,
        _train,
        _replace,
        _write,
        _assign,
        _load,
        _through_data_between_trainings,
        _through_data,
        _scale_through_data,
        _vector,
        _precision,
    ],
)
def test_changes_of_parameters_are_noticed(block, x, change):
    with torch.no_grad():
        before = block(x)
    change(block)
    with torch.no_grad():
        after = block(x)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, reference(block, x), rtol=1e-4, atol=1e-5)


def test_the_state_dict_stays_the_published_one(block, x):
    before = {key: value.clone() for key, value in block.state_dict().items()}
    with torch.inference_mode():
        block(x)
    after = block.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_whoever_listens_to_a_part_hears_it(block, x):
    heard = []
    for part in block:
        part.register_forward_hook(lambda module, _, output: heard.append((type(module), output.clone())))
    with torch.no_grad():
        got = block(x)
    assert [kind for kind, _ in heard] == [FoldableConv2d, nn.BatchNorm2d, nn.SiLU]
    torch.testing.assert_close(heard[0][1], nn.functional.conv2d(x, block[0].weight, None, 2, 1))
    assert torch.equal(heard[-1][1], got)


def test_gradients_take_the_plain_path(block, x):
    assert block.folded(x) is None
    block(x).sum().backward()
    assert block[1].weight.grad.abs().sum() > 0
    block.requires_grad_(False)
    assert block.folded(x) is not None, "nothing to differentiate"
    assert block.folded(x.requires_grad_()) is None
    assert block.train().folded(x.detach()) is None


def test_modules_of_other_kinds_take_the_plain_path(block, x):
    with torch.no_grad():
        block[1] = nn.GroupNorm(2, 8)
        assert block.folded(x) is None
        assert block(x).shape == (2, 8, 5, 6)
        block[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()
        assert block.folded(x) is None


def test_ensembles_by_vmap(block, x):
    stacked = {key: torch.stack([value, value * 2]) for key, value in block.state_dict().items()}
    with torch.no_grad():
        block(x)
        got = torch.vmap(lambda state: torch.func.functional_call(block, state, x))(stacked)
        torch.testing.assert_close(got[0], reference(block, x), rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_carry_no_folded_copy(block, x):
    with torch.no_grad():
        expected = block(x)
        for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert other[0]._cache is None
            other[0].weight.mul_(1.0)
            torch.testing.assert_close(other(x), expected)


def test_folding_inside_inference_mode_serves_outside(block, x):
    with torch.inference_mode():
        expected = block(x)
    with torch.no_grad():
        assert torch.equal(block(x), expected)
    block.requires_grad_(False)
    assert torch.equal(block(x), expected)


def test_half_precision(block, x):
    with torch.no_grad():
        expected = block(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = block(x)
            assert block.folded(x).weight.dtype == torch.bfloat16
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)
        assert torch.equal(block(x), expected), "float32 again"


def test_checkpointing_changes_neither_gradients_nor_statistics():
    torch.manual_seed(0)
    plain = nn.Sequential(ConvNormAct(3, 4, 3, activation=nn.SiLU()), ConvNormAct(4, 4, 3)).train()
    frugal = copy.deepcopy(plain)
    x = torch.randn(4, 3, 6, 6)
    plain(x).square().sum().backward()
    run_checkpointed(frugal, x, frugal).square().sum().backward()
    for a, b in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for (name, a), b in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert frugal[0][1].momentum == 0.1
