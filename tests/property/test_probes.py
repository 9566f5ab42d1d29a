"""Probes, whatever the number of layers, their widths, lengths and masks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avex.configs import ProbeConfig
from avex.models.features import Features, TokenLayout
from avex.models.probes import build_probe_from_config

SETTINGS = {
    "linear": {},
    "mlp": {"hidden_dims": [3]},
    "lstm": {"lstm_hidden_size": 3, "num_layers": 2, "bidirectional": True},
    "attention": {"num_heads": 2, "attention_dim": 3},
    "transformer": {"num_heads": 2, "attention_dim": 3, "num_layers": 2},
    "attention_pooling": {"num_heads": 2},
}
SEQUENCES = [name for name in SETTINGS if name not in ("linear", "mlp")]
kinds = st.sampled_from(list(SETTINGS))
# Heads must divide the width that the layers come to.
widths = st.integers(1, 4).map(lambda n: 2 * n)


def build(probe_type, dims, aggregation):
    torch.manual_seed(0)
    config = ProbeConfig(
        probe_type=probe_type, target_layers=["all"], aggregation=aggregation, **SETTINGS[probe_type]
    )
    return build_probe_from_config(config, 3, input_dim=list(dims)).eval()


@settings(deadline=None, max_examples=60)
@given(
    probe_type=kinds,
    dims=st.lists(widths, min_size=1, max_size=4),
    aggregation=st.sampled_from(["none", "concat"]),
    batch=st.integers(1, 3),
    steps=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_any_layers_give_logits(probe_type, dims, aggregation, batch, steps, seed):
    probe = build(probe_type, dims, aggregation)
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(batch, steps, dim, generator=generator) for dim in dims]
    logits = probe(layers)
    assert logits.shape == (batch, 3)
    assert logits.isfinite().all()
    # Clips of a batch do not know of each other.
    torch.testing.assert_close(probe([layer[:1] for layer in layers]), logits[:1], rtol=1e-4, atol=1e-5)
    assert len(probe.learned_weights()) == (len(dims) if len(dims) > 1 and aggregation == "none" else 0)


@settings(deadline=None, max_examples=60)
@given(
    probe_type=kinds,
    dims=st.lists(widths, min_size=1, max_size=3),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    extra=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_padded_clips_score_as_they_do_alone(probe_type, dims, lengths, extra, seed):
    probe = build(probe_type, dims, "none")
    generator = torch.Generator().manual_seed(seed)
    steps = max(lengths) + extra
    layers = [10 * torch.randn(len(lengths), steps, dim, generator=generator) for dim in dims]
    mask = torch.arange(steps) >= torch.tensor(lengths)[:, None]
    together = probe(layers, mask)
    for i, length in enumerate(lengths):
        alone = probe([layer[i : i + 1, :length] for layer in layers])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    probe_type=st.sampled_from(SEQUENCES),
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    batch=st.integers(1, 3),
    value=st.floats(-3, 3),
)
def test_layers_of_any_lengths_meet(probe_type, lengths, batch, value):
    """What is constant in time stays so, however many steps each layer has and wherever it is padded."""
    probe = build(probe_type, [4] * len(lengths), "none")
    layers = []
    for steps in lengths:
        values = torch.full((batch, steps, 4), value)
        mask = torch.zeros(batch, steps, dtype=torch.bool)
        mask[:, (steps + 1) // 2 :] = True
        layers.append(Features(values.masked_fill(mask.unsqueeze(-1), 1e6), TokenLayout("tokens"), mask))
    values, mask = probe.head_input(layers)
    assert values.shape == (batch, min(lengths), 4)
    torch.testing.assert_close(values[~mask], torch.full_like(values[~mask], value), rtol=1e-4, atol=1e-4)
    assert probe(layers).isfinite().all()


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 4).map(lambda n: 2 * n),
    bands=st.integers(1, 3),
    steps=st.integers(1, 5),
    probe_type=kinds,
)
def test_maps_are_read_by_one_rule(channels, bands, steps, probe_type):
    config = ProbeConfig(
        probe_type=probe_type, target_layers=["x"], aggregation="none", **SETTINGS[probe_type]
    )
    torch.manual_seed(0)
    probe = build_probe_from_config(config, 3, input_dim=(channels, bands, 9)).eval()
    maps = torch.randn(2, channels, bands, steps)
    features = Features(maps, TokenLayout("map"))
    expected = features.sequence() if probe.kind == "sequence" else maps.mean((2, 3))
    torch.testing.assert_close(probe(maps), probe(expected), rtol=1e-4, atol=1e-5)
