"""`avex doctor` says what is here."""

from __future__ import annotations

import json

import torch
from typer.testing import CliRunner

import avex
from avex.cli import app


def test_doctor(tmp_path):
    places = {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_CACHE": None,
        "AVEX_CACHE": str(tmp_path / "downloads"),
    }
    done = CliRunner().invoke(app, ["doctor", "--json"], env={**places, "AVEX_OFFLINE": "1"})
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["Versions"]["avex"] == avex.__version__
    assert facts["Versions"]["torch"] == torch.__version__
    assert facts["Files"]["hub cache"] == str(tmp_path / "hf" / "hub")
    assert facts["Files"]["cache"] == str(tmp_path / "downloads")
    assert facts["Files"]["network"].startswith("off")
    shown = CliRunner().invoke(app, ["doctor"], env=places).stdout
    assert f"  hub cache         {tmp_path / 'hf' / 'hub'}\n" in shown
