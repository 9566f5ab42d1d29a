"""The convolutional position embedding, against PyTorch's own weight norm."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from avex.nn.position import ConvPositionEmbedding


def pair(dim=12, taps=6, groups=3):
    """Ours, and the same from PyTorch's parts."""
    torch.manual_seed(taps)
    ours = ConvPositionEmbedding(dim, taps, groups)
    nn.init.normal_(ours.bias)
    nn.init.uniform_(ours.weight_g, 0.5, 2.0)
    theirs = nn.Conv1d(dim, dim, taps, padding=taps // 2, groups=groups)
    theirs = nn.utils.parametrizations.weight_norm(theirs, dim=2)
    theirs.load_state_dict(
        {
            "bias": ours.bias,
            "parametrizations.weight.original0": ours.weight_g,
            "parametrizations.weight.original1": ours.weight_v,
        }
    )
    return ours, theirs


@pytest.mark.parametrize("taps", [1, 5, 6])
@pytest.mark.parametrize("steps", [1, 4, 17])
def test_values_and_gradients(taps, steps):
    ours, theirs = pair(taps=taps)
    x = torch.randn(2, steps, 12)
    wanted = nn.functional.gelu(theirs(x.transpose(1, 2)).transpose(1, 2)[:, :steps])
    torch.testing.assert_close(ours(x), wanted)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), wanted)
    ours(x).square().sum().backward()
    wanted.square().sum().backward()
    original = theirs.parametrizations.weight
    torch.testing.assert_close(ours.weight_g.grad, original.original0.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.weight_v.grad, original.original1.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-5)


def step_of_an_optimizer(module, fused=False):
    module(torch.ones(1, 40, 12)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0, fused=fused).step()


def take_the_same_memory(module):
    """Assign until a tensor gets the memory that the first one left."""
    old = module.weight_v.data_ptr()
    for _ in range(20):
        module.weight_v.data = torch.randn_like(module.weight_v)
        if module.weight_v.data_ptr() == old:
            break


@pytest.mark.parametrize("taps", [32, 33, 48])
@pytest.mark.parametrize("steps", [24, 32, 33, 150])
def test_long_kernels_by_their_spectrum(taps, steps):
    ours, theirs = pair(taps=taps)
    x = torch.randn(3, steps, 12)
    wanted = nn.functional.gelu(
        theirs.double()(x.double().transpose(1, 2)).transpose(1, 2)[:, :steps]
    ).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), wanted, rtol=0, atol=1e-5)
        assert ours._kept.form[0] == "spectrum"
        short = ours(x[:, : taps // 2 - 1])  # too short: by products
        assert ours._kept.form[0] == "kernel"
    torch.testing.assert_close(ours(x[:, : taps // 2 - 1]), short)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ours(x)
    assert counter.get_total_flops() == 2 * 3 * (steps + 1 - taps % 2) * 12 * 4 * taps
    torch.testing.assert_close(ours(x), wanted, rtol=0, atol=1e-5)  # with gradients


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_element_types(dtype):
    ours, _ = pair(taps=32)
    x = torch.randn(2, 50, 12)
    with torch.no_grad():
        wanted = ours(x)
        low = ours.to(dtype)(x.to(dtype))
        assert low.dtype == dtype
        torch.testing.assert_close(low.float(), wanted, rtol=0.02, atol=0.05)
        if dtype == torch.bfloat16:
            ours.float()
            with torch.autocast("cpu", dtype):
                assert ours(x).dtype == dtype


CHANGES = {
    "optimizer": step_of_an_optimizer,
    "in place": lambda module: nn.init.normal_(module.weight_v),
    "load": lambda module: module.load_state_dict(pair(taps=module.weight_v.shape[2])[0].state_dict()),
    "data": lambda module: setattr(module.weight_v, "data", torch.randn_like(module.weight_v)),
    "data in place": lambda module: module.weight_v.data.normal_(),
    "data again and again": take_the_same_memory,
    "numpy": lambda module: np.negative(array := module.weight_g.detach().numpy(), out=array),
    "fused optimizer": lambda module: step_of_an_optimizer(module, fused=True),
    "precision": lambda module: module.to(torch.bfloat16).to(torch.float32),
}


@pytest.mark.parametrize("taps", [6, 32])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_follows_the_parameters(change, taps):
    module = ConvPositionEmbedding(12, taps, 3).eval()
    x = torch.randn(1, 40, 12)
    with torch.no_grad():
        before = module(x)
        assert torch.equal(module(x), before)
    CHANGES[change](module)
    wanted = module(x)  # with gradients nothing is kept
    assert not torch.allclose(wanted, before, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(module(x), wanted, rtol=1e-5, atol=1e-4)


def test_threads_do_not_disturb_each_other():
    module = ConvPositionEmbedding(12, 32, 3).eval()
    long, short = torch.randn(1, 20, 12), torch.randn(1, 8, 12)  # by the spectrum and by the kernel
    with torch.inference_mode():
        wanted = [module(long), module(short)]

    def run(number):
        with torch.inference_mode():
            return module((long, short)[number % 2])

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(run, range(400))):
            assert torch.equal(found, wanted[number % 2])


def test_copies_keep_nothing_of_the_original():
    module = ConvPositionEmbedding(12, 6, 3).eval()
    x = torch.randn(1, 8, 12)
    with torch.inference_mode():
        wanted = module(x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with torch.no_grad():
            assert torch.equal(twin(x), wanted)
            nn.init.normal_(twin.weight_g)
            assert not torch.equal(twin(x), wanted)
    module(x).sum().backward()  # what inference mode left behind does not hinder training
    assert list(module.state_dict()) == ["weight_g", "weight_v", "bias"]


def test_parameters_made_in_inference_mode():
    with torch.inference_mode():
        module = ConvPositionEmbedding(12, 6, 3)
        assert module(torch.zeros(1, 4, 12)).shape == (1, 4, 12)


def test_groups_must_fit():
    with pytest.raises(ValueError, match="5 groups do not divide"):
        ConvPositionEmbedding(12, 6, 5)
