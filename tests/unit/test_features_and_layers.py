import pytest
import torch
from torch import nn

from avex.models.features import Features, TokenLayout
from avex.models.layers import LayerError, first_tensor, select_layers, tap_layers


def test_pooling_leaves_out_prefix_tokens_and_padding():
    values = torch.tensor([[[100.0], [1.0], [3.0], [50.0]]])
    mask = torch.tensor([[False, False, True]])
    features = Features(values, TokenLayout("tokens", num_prefix_tokens=1), mask)
    assert features.pooled("mean").item() == 2.0
    assert features.pooled("max").item() == 3.0
    assert features.pooled("cls_token").item() == 100.0
    assert features.pooled("none") is values


def test_a_clip_that_is_all_padding_pools_to_numbers():
    features = Features(torch.ones(1, 2, 3), TokenLayout("tokens"), torch.ones(1, 2, dtype=torch.bool))
    assert torch.isfinite(features.pooled("mean")).all()
    assert torch.isfinite(features.pooled("max")).all()


def test_maps_pool_over_both_axes():
    values = torch.arange(12.0).reshape(1, 2, 2, 3)
    features = Features(values, TokenLayout("map"))
    assert torch.equal(features.pooled("mean"), values.mean((2, 3)))
    assert torch.equal(features.pooled("max"), values.amax((2, 3)))
    masked = Features(values, TokenLayout("map"), torch.tensor([[False, False, True]]))
    assert torch.allclose(masked.pooled("mean"), values[..., :2].mean((2, 3)))


def test_vectors_are_pooled_already():
    values = torch.ones(2, 4)
    assert Features(values, TokenLayout("vector")).pooled("mean") is values


@pytest.mark.parametrize("order", ["time", "freq"])
def test_sequences_put_the_bands_of_a_step_side_by_side(order):
    steps, bins, channels = 3, 2, 4
    reference = torch.randn(1, steps, bins, channels)
    tokens = reference if order == "time" else reference.transpose(1, 2)
    features = Features(tokens.reshape(1, -1, channels), TokenLayout("tokens", freq_bins=bins, order=order))
    assert torch.equal(features.sequence(), reference.reshape(1, steps, -1))


@pytest.mark.parametrize("order", ["time", "freq"])
def test_tokens_come_by_time_and_without_prefix(order):
    steps, bins, channels = 3, 2, 4
    reference = torch.randn(1, steps, bins, channels)
    padded = torch.tensor([[[False, False], [False, True], [True, True]]])
    tokens, mask = reference, padded
    if order == "freq":
        tokens, mask = tokens.transpose(1, 2), mask.transpose(1, 2)
    values = torch.cat([torch.full((1, 2, channels), 9.0), tokens.reshape(1, -1, channels)], 1)
    layout = TokenLayout("tokens", num_prefix_tokens=2, freq_bins=bins, order=order)
    features = Features(values, layout, mask.reshape(1, -1))
    assert torch.equal(features.tokens(), reference.reshape(1, -1, channels))
    assert torch.equal(features.tokens_mask(), padded.reshape(1, -1))
    assert features.sequence_mask().tolist() == [[False, False, True]], "a step is padding if all of it is"
    # Sums of the same numbers in another order.
    torch.testing.assert_close(features.pooled("mean"), features.tokens()[:, [0, 1, 2]].mean(1))


def test_tokens_of_maps_and_vectors():
    maps = Features(torch.randn(1, 5, 2, 3), TokenLayout("map"), torch.tensor([[False, False, True]]))
    assert torch.equal(maps.tokens(), maps.sequence())
    assert maps.tokens_mask() is maps.sequence_mask() is maps.padding_mask
    vector = Features(torch.randn(2, 5), TokenLayout("vector"))
    assert vector.tokens().shape == (2, 1, 5)
    assert vector.tokens_mask() is vector.sequence_mask() is None


def test_padding_may_hold_anything():
    values = torch.tensor([[[1.0], [float("nan")]]])
    features = Features(values, TokenLayout("tokens"), torch.tensor([[False, True]]))
    assert features.pooled("mean").item() == features.pooled("max").item() == 1.0


def test_sequence_of_a_map():
    values = torch.randn(1, 5, 2, 3)
    sequence = Features(values, TokenLayout("map", frame_rate=2.0)).sequence()
    assert sequence.shape == (1, 3, 10)
    assert torch.equal(sequence[0, 1], torch.cat([values[0, :, 0, 1], values[0, :, 1, 1]])), "band by band"


def test_frame_times():
    features = Features(torch.zeros(1, 6, 4), TokenLayout("tokens", freq_bins=2, frame_rate=2.0))
    assert features.frame_times().tolist() == [0.0, 0.5, 1.0]


def test_impossible_requests():
    with pytest.raises(ValueError, match="CLS"):
        Features(torch.zeros(1, 2, 3), TokenLayout("tokens")).pooled("cls_token")
    with pytest.raises(ValueError, match="median"):
        Features(torch.zeros(1, 2, 3), TokenLayout("tokens")).pooled("median")
    with pytest.raises(ValueError, match="3 tokens"):
        Features(torch.zeros(1, 3, 3), TokenLayout("tokens", freq_bins=2)).sequence()
    with pytest.raises(ValueError, match="padding mask"):
        Features(torch.zeros(1, 3, 3), TokenLayout("tokens"), torch.zeros(1, 2, dtype=torch.bool)).pooled()


def test_taps_live_as_long_as_the_block():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with tap_layers(net, ["0"]) as outer, tap_layers(net, ["0"], inputs=True) as inner:
        net(torch.ones(1, 2))
    assert outer["0"].shape == (1, 3)
    assert inner["0"].shape == (1, 2)
    assert not net[0]._forward_hooks
    with pytest.raises(RuntimeError), tap_layers(net, ["0"]):
        raise RuntimeError
    assert not net[0]._forward_hooks, "removed after an error as well"


def test_taps_keep_gradients():
    net = nn.Sequential(nn.Linear(2, 3))
    with tap_layers(net, ["0"]) as taps:
        net(torch.ones(1, 2))
    taps["0"].sum().backward()
    assert net[0].weight.grad is not None


def test_unknown_layers_are_named():
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 1)))
    for name in ("layr", "0.0.weight", "0.1", ""):
        with pytest.raises(LayerError, match=f"no layer '{name}'"), tap_layers(net, [name]):
            pass
    with pytest.raises(LayerError, match=r"Did you mean '0.0'"), tap_layers(net, ["0.o"]):
        pass


def test_first_tensor():
    value = torch.ones(1)
    assert first_tensor((value, None)) is value
    assert first_tensor({"x": [value]}) is value
    with pytest.raises(TypeError, match="NoneType"):
        first_tensor(None)


LAYERS = ["conv", "block.0", "block.1"]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["last_layer"], ["block.1"]),
        (["backbone"], ["block.1"]),
        (["all"], LAYERS),
        (["layer_0"], ["conv"]),
        ([-1, 0], ["block.1", "conv"]),
        (["conv", "layer_0", 0], ["conv"]),
        (["block.0.fc"], ["block.0.fc"]),
    ],
)
def test_selectors(targets, expected):
    assert select_layers(targets, LAYERS, ["block.0.fc"]) == expected


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("layer_3", "Choose 0 … 2"),
        (3, "Choose 0 … 2"),
        (-4, "Choose 0 … 2"),
        ("blok.1", "Did you mean 'block.1'"),
    ],
)
def test_impossible_selectors(target, advice):
    with pytest.raises(LayerError, match=advice):
        select_layers([target], LAYERS, [])
    with pytest.raises(LayerError, match=r"0 layers\. Name a module"):
        select_layers([3], [], [])
    with pytest.raises(TypeError):
        select_layers([True], LAYERS, [])
