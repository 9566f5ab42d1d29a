"""What every family says of input that it cannot take."""

import pytest
import torch

from avex.testing import tiny_families, tiny_model

FAMILIES = [name for name in tiny_families() if name not in ("resnet50", "resnet152", "perch2")]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    if request.param == "perch":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    return tiny_model(request.param, folder=tmp_path_factory.mktemp("graphs"))


def sound(model):
    samples = round(model.window_seconds * model.sample_rate)
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["embed", "forward"])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: x.numpy(), TypeError, r"this is a ndarray.*torch\.from_numpy"),
        (lambda x: (x * 32767).to(torch.int16), TypeError, r"floating-point.*/ 32768"),
        (lambda x: x[0], ValueError, r"\(batch, samples\)"),
        (lambda x: x[:, None], ValueError, r"\(batch, samples\)"),
    ],
)
def test_waveforms(model, method, wrong, error, message):
    with pytest.raises(error, match=message):
        getattr(model, method)(wrong(sound(model)))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (lambda x: torch.zeros_like(x), TypeError, "padding mask is bool"),
        (lambda x: torch.zeros(2, 7, dtype=torch.bool), ValueError, "does not fit waveforms"),
    ],
)
def test_padding_masks(model, mask, error, message):
    """Also where a mask changes nothing: it is a mistake all the same."""
    x = sound(model)
    with pytest.raises(error, match=message):
        model.embed(x, padding_mask=mask(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_are_computed_in_float32(model, dtype):
    x = sound(model).half()
    got = model.embed(x.to(dtype))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, model.embed(x.float()))


def test_arrays_that_are_not_contiguous(model):
    x = sound(model)
    torch.testing.assert_close(model.embed(x.t().contiguous().t()), model.embed(x))
