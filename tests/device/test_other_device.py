"""Everything that runs on a GPU runs on a stand-in for one; see `standin.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("cases", sorted(path.name for path in HERE.glob("cases_*.py")))
def test_cases_pass_on_a_device_that_is_not_the_cpu(cases, tmp_path):
    """In a process of its own, since a device cannot be taken out of torch again."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "python_files=cases_*.py",
        "-p",
        "no:cacheprovider",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "AVEX_FUZZ"))}
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'cases'}", str(HERE / cases)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
