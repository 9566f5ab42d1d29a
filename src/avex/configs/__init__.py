"""Schemas of everything a user configures. Pydantic only: importing this costs no torch and no numpy."""

from avex.configs.audio import AudioConfig
from avex.configs.model import ModelCard, ModelSpec, OutputFingerprint
from avex.configs.probe import PROBE_CONFIGS, ProbeConfig
from avex.configs.yaml_files import apply_patches, read_yaml

__all__ = [
    "PROBE_CONFIGS",
    "AudioConfig",
    "ModelCard",
    "ModelSpec",
    "OutputFingerprint",
    "ProbeConfig",
    "apply_patches",
    "read_yaml",
]
