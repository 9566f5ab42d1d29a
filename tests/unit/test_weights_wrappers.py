"""What training programs put before the names of a checkpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avex.weights.wrappers import strip_wrappers, unwrappings

NAMES = ("backbone.encoder.weight", "backbone.norm.bias", "classifier.weight")
keys = st.sets(
    st.from_regex(r"[a-z]{1,6}(\.[a-z]{1,6}){0,3}", fullmatch=True), min_size=1, max_size=6
).filter(lambda names: not any("module" in n or "_orig_mod" in n for n in names))


@given(keys=keys, wrappers=st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=4))
def test_any_nesting_comes_off(keys, wrappers):
    prefix = "".join(wrappers)
    names, removed = strip_wrappers(prefix + key for key in keys)
    assert names == {prefix + key: key for key in keys}
    assert set(removed) == set(wrappers)


def test_a_compiled_part_of_a_network():
    names, removed = strip_wrappers(["backbone._orig_mod.a.weight", "head.bias"])
    assert list(names.values()) == ["backbone.a.weight", "head.bias"]
    assert removed == ("_orig_mod.",)


@pytest.mark.parametrize("keys", [["module.a", "b"], ["a._orig_mod.b", "a.b"], []])
def test_names_that_are_left_alone(keys):
    assert strip_wrappers(keys) == ({key: key for key in keys}, ())


def test_holders_come_off_one_by_one_and_last():
    state = {f"module.state_dict.model.{name}": index for index, name in enumerate(NAMES)}
    found = list(unwrappings(state))
    assert [next(iter(names)) for names, _ in found] == [
        "state_dict.model.backbone.encoder.weight",
        "model.backbone.encoder.weight",
        "backbone.encoder.weight",
    ]
    assert list(found[-1][0].values()) == [0, 1, 2]
    assert found[-1][1] == ("'module.', 'state_dict.', 'model.' removed from the names in the file",)
    assert list(unwrappings({})) == [({}, ())]
