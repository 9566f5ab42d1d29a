"""Probes against the numbers of avex 1.4.0, from the state dicts that it saves.

Settings that it reads otherwise than we do are given here as what it makes of them: heads that do not divide the
width, an LSTM that is wider than stated, and whole clips as one vector.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avex.configs import ProbeConfig
from avex.models.probes import build_probe_from_config

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_SPEC = importlib.util.spec_from_file_location("synthetic_weights", GOLDEN / "synthetic_weights.py")
RECIPE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(RECIPE)

with np.load(GOLDEN / "probes" / "probes.npz") as arrays:
    ARRAYS = {name: arrays[name] for name in arrays.files}
CASES = json.loads(str(ARRAYS["meta"]))["cases"]
KEYS = json.loads((GOLDEN / "probes" / "probes.keys.json").read_text())["layouts"]
TOLERANCE = 1e-5

MEANT = {
    "linear_3d_flatten": {"input_processing": "flatten"},
    "linear_4d_flatten": {"input_processing": "flatten"},
    "lstm_bi_pos": {"lstm_hidden_size": 20},  # at least a quarter of max_sequence_length
    # A vector of 24 becomes 24 steps of one number there; here it has to be given so.
    "lstm_2d_input": {"aggregation": "none", "input_processing": "sequence"},
    "transformer_heads_adjusted": {"num_heads": 6},  # 7 does not divide 24
}
SHAPES = {"lstm_2d_input": [[24, 1]]}


def state_of(case):
    return {
        key: torch.from_numpy(np.array(RECIPE.fill(fill_name, shape, *gain)))
        for key, shape, _, fill_name, *gain in KEYS[case]["keys"]
    }


def inputs_of(case):
    """(2, *shape) for each layer, as the reference got them."""
    return [
        torch.from_numpy(RECIPE.fill(f"probe.{case}.x{i}", (2, *shape)) * np.float32(np.sqrt(np.prod(shape))))
        for i, shape in enumerate(CASES[case]["shapes"])
    ]


def build(case):
    """A probe of that case, with its weights."""
    about, shapes = CASES[case], SHAPES.get(case, CASES[case]["shapes"])
    names = [f"l{i}" for i in range(len(shapes))]
    several = {"aggregation": "none"} if len(names) > 1 else {}
    options = {**several, **about["config"], **MEANT.get(case, {})}
    config = ProbeConfig(probe_type=about["probe_type"], target_layers=names, **options)
    sizes = [tuple(shape) for shape in shapes]
    probe = build_probe_from_config(config, num_classes=7, input_dim=sizes if len(sizes) > 1 else sizes[0])
    missing, unexpected = probe.load_state_dict(state_of(case), strict=False)
    assert not unexpected
    assert set(missing) <= {"pos_encoding"}, "of sines, which are computed"
    return probe.eval()


def error(got, wanted):
    return float((got - wanted).abs().max() / wanted.square().mean().sqrt())


def wanted(case, what="logits"):
    return torch.from_numpy(ARRAYS[f"{case}.{what}"])


# Its projector for a layer of the same width and another length has no place here: lengths are no part of a probe.
ELSEWHERE = {"attention_list_mixed"}


@pytest.mark.parametrize("case", [case for case in CASES if case not in ELSEWHERE])
@torch.no_grad()
def test_logits(case):
    probe, layers = build(case), inputs_of(case)
    if case in SHAPES:
        layers = [x.reshape(2, *shape) for x, shape in zip(layers, SHAPES[case], strict=True)]
    x = layers[0] if len(layers) == 1 else {f"l{i}": x for i, x in enumerate(layers)}
    assert error(probe(x), wanted(case)) < TOLERANCE


def test_all_cases_are_here():
    assert set(CASES) == set(KEYS) == {name.partition(".")[0] for name in ARRAYS} - {"meta"}
    assert set(CASES) > ELSEWHERE


def test_a_projector_of_avex_1_without_a_place_is_refused():
    with pytest.raises(AssertionError, match=r"embedding_projectors\.1"):
        build("attention_list_mixed")


@torch.no_grad()
def test_shares_of_layers():
    shares = build("linear_list_same").learned_weights()
    assert list(shares.values()) == pytest.approx(
        wanted("linear_list_same", "softmax_weights").tolist(), abs=1e-6
    )


def test_sines():
    assert error(build("attention_pos").pos_encoding[0], wanted("attention_pos", "pos_encoding")) < TOLERANCE


@pytest.mark.parametrize("case", ["attention_3d", "transformer_3d"])
@pytest.mark.parametrize("gradients", [False, True])
def test_masks(case, gradients):
    """A clip without padding is as there; of one with padding our mean leaves the padding out, theirs does not."""
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[1, 6:] = True
    probe, x = build(case), inputs_of(case)[0]
    kind = "logits_masked_gradmode" if gradients else "logits_masked"
    with torch.set_grad_enabled(gradients):
        got = probe(x, mask).detach()
        short = probe(x[1:, :6]).detach()
    assert error(got[0], wanted(case, kind)[0]) < TOLERANCE
    assert error(got[1], short[0]) < TOLERANCE
    assert error(got[1], wanted(case, kind)[1]) > 0.1
