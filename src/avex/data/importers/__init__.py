"""Readers of published layouts: a folder or table of a dataset to clips."""

from __future__ import annotations

from avex.data.importers.registry import IMPORTERS, Importer, import_clips, register_importer

__all__ = ["IMPORTERS", "Importer", "import_clips", "register_importer"]
