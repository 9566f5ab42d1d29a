"""Freed memory stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Page faults of taking and filling 64 MB again and again, after the first time.
PROGRAM = """
import resource, sys
import numpy as np
from avex.models.runtime.memory import keep_freed_memory

print(keep_freed_memory())
for _ in range(2):
    np.ones(1 << 24, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(1 << 24, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


def run(**environment: str) -> tuple[bool, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | environment, capture_output=True, text=True, check=True
    )
    made, faults = result.stdout.split()
    return made == "True", int(faults)


def test_blocks_are_used_again_without_asking_the_system():
    made, faults = run()
    assert made
    # 10 times 64 MB are 160,000 pages of 4 KB.
    assert faults < 2_000


def test_what_the_environment_says_stays():
    made, faults = run(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072")
    assert not made
    assert faults > 200
