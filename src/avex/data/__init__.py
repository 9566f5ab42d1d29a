"""Clips, their labels and splits: what models learn from and are judged by.

Manifests and published layouts become `Clip`s, transformations change them, `LabelEncoder` numbers their labels,
`ClipDataset` reads their audio (the only part that needs torch), and `open_task` puts all of it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.data.adapters.alp import clips_from_alp
    from avex.data.adapters.hf import clips_from_hf
    from avex.data.building import Shares, build_benchmark
    from avex.data.cards import benchmark_card, benchmark_names, find_benchmark, task_card, task_names
    from avex.data.clips import Clip
    from avex.data.concatenation import concatenate
    from avex.data.dataset import ClipDataset, collate
    from avex.data.encoder import LabelEncoder
    from avex.data.grouping import check_parts, group_numbers, hold_out
    from avex.data.importers import import_clips, register_importer
    from avex.data.labels import LabelTable
    from avex.data.loading import LoadedClips, load_clips
    from avex.data.manifest import read_manifest
    from avex.data.splits import Split, check_leakage, make_folds, make_split, split_from_column
    from avex.data.tasks import Round, Task, open_task
    from avex.data.taxonomy import Taxon, Taxonomy
    from avex.data.transforms import TransformResult, apply_transforms, register_transform
    from avex.data.windows import windows_from_events
    from avex.data.writing import write_manifest

_HOMES = {
    "adapters.alp": ("clips_from_alp",),
    "adapters.hf": ("clips_from_hf",),
    "building": ("Shares", "build_benchmark"),
    "cards": ("benchmark_card", "benchmark_names", "find_benchmark", "task_card", "task_names"),
    "clips": ("Clip",),
    "concatenation": ("concatenate",),
    "dataset": ("ClipDataset", "collate"),
    "encoder": ("LabelEncoder",),
    "grouping": ("check_parts", "group_numbers", "hold_out"),
    "importers": ("import_clips", "register_importer"),
    "labels": ("LabelTable",),
    "loading": ("LoadedClips", "load_clips"),
    "manifest": ("read_manifest",),
    "splits": ("Split", "check_leakage", "make_folds", "make_split", "split_from_column"),
    "tasks": ("Round", "Task", "open_task"),
    "taxonomy": ("Taxon", "Taxonomy"),
    "transforms": ("TransformResult", "apply_transforms", "register_transform"),
    "windows": ("windows_from_events",),
    "writing": ("write_manifest",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Clip",
    "ClipDataset",
    "LabelEncoder",
    "LabelTable",
    "LoadedClips",
    "Round",
    "Shares",
    "Split",
    "Task",
    "Taxon",
    "Taxonomy",
    "TransformResult",
    "apply_transforms",
    "benchmark_card",
    "benchmark_names",
    "build_benchmark",
    "check_leakage",
    "check_parts",
    "clips_from_alp",
    "clips_from_hf",
    "collate",
    "concatenate",
    "find_benchmark",
    "group_numbers",
    "hold_out",
    "import_clips",
    "load_clips",
    "make_folds",
    "make_split",
    "open_task",
    "read_manifest",
    "register_importer",
    "register_transform",
    "split_from_column",
    "task_card",
    "task_names",
    "windows_from_events",
    "write_manifest",
]


__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
