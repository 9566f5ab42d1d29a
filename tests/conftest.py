"""Fixtures shared by all tests: real recordings, small signals, clean registries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

REPO = Path(__file__).resolve().parents[1]
DEMO = REPO / "examples" / "audio"

# Nothing in the tests may reach for a network, whatever the machine.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One worker per processor: threads of one that wait for those of another take ten times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# `make test` tries the same examples each time, so that what passes once passes on every machine; `make fuzz`
# looks for new ones, this many times as many.
FUZZ = int(os.environ.get("AVEX_FUZZ", "0"))
settings.register_profile("avex", derandomize=not FUZZ)
settings.load_profile("avex")


def pytest_collection_modifyitems(items):
    """Under `make fuzz`, only property tests are left, each with many more examples."""
    if not FUZZ:
        return
    items[:] = [item for item in items if hasattr(getattr(item, "obj", None), "hypothesis")]
    for test in {getattr(item.obj, "__func__", item.obj) for item in items}:
        own = test._hypothesis_internal_use_settings
        test._hypothesis_internal_use_settings = settings(
            own, max_examples=FUZZ * own.max_examples, deadline=None
        )


@pytest.fixture(scope="session")
def demo_audio() -> Path:
    """Folder of the bundled recordings."""
    return DEMO


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """Folder of the larger labelled recordings, if they are here."""
    folder = Path(os.environ.get("AVEX_TEST_DATA", REPO.parent / "shared" / "audio"))
    if not (folder / "birds10" / "manifest.csv").exists():
        pytest.skip(f"no labelled recordings in {folder}: set AVEX_TEST_DATA to a folder that holds them")
    return folder


@pytest.fixture(autouse=True)
def trust_ends_with_the_test():
    """What a test trusts holds for its process, which is that of the next test as well."""
    yield
    if module := sys.modules.get("avex.models.template.trust"):
        module._trusted.clear()


@pytest.fixture
def wav(tmp_path):
    """Write a recording: `wav("a.wav", seconds=7.5)`; returns its path."""

    def write(name="a.wav", seconds=5.0, sample_rate=48_000, channels=1, seed=0, data=None, **kwargs) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            rng = np.random.default_rng(seed)
            data = 0.1 * rng.standard_normal((round(seconds * sample_rate), channels))
        soundfile.write(path, np.asarray(data, np.float64), sample_rate, **kwargs)
        return path

    return write


@pytest.fixture
def clean_registry():
    """Undo what a test registers."""
    from avex.models.utils import registry

    cards = set(registry.card_names())
    classes = set(registry._classes)
    yield
    for name in set(registry.card_names()) - cards:
        registry.unregister_model(name)
    for name in set(registry._classes) - classes:
        registry.unregister_model_class(name)
