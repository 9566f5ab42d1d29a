"""Settings of the documentation: `make docs`."""

from __future__ import annotations

from pathlib import Path

_scope: dict[str, str] = {}
exec((Path(__file__).parents[1] / "src/avex/_core/version.py").read_text(encoding="utf-8"), _scope)

project = "avex"
author = "The avex authors"
release = version = _scope["__version__"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
master_doc = "index"
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"avex {release}"
