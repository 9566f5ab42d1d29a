"""Schemas of everything a user configures. Pydantic only: importing this costs no torch and no numpy."""

from avex.configs.audio import AudioConfig
from avex.configs.base import BaseCLIConfig
from avex.configs.cards import BenchmarkCard, DataLayout, TaskCard
from avex.configs.data import (
    BenchmarkEvaluationConfig,
    DatasetCollectionConfig,
    DatasetConfig,
    EvaluationSet,
)
from avex.configs.evaluation import EvaluateConfig, ExperimentConfig, FewShotConfig, OfflineEmbeddingsConfig
from avex.configs.model import ModelCard, ModelSpec, OutputFingerprint
from avex.configs.probe import PROBE_CONFIGS, ProbeConfig
from avex.configs.training import (
    ClusteringEvalConfig,
    MixupAugment,
    NoiseAugment,
    RunConfig,
    SchedulerConfig,
    TrainingParams,
)
from avex.configs.yaml_files import apply_patches, read_yaml

__all__ = [
    "PROBE_CONFIGS",
    "AudioConfig",
    "BaseCLIConfig",
    "BenchmarkCard",
    "BenchmarkEvaluationConfig",
    "ClusteringEvalConfig",
    "DataLayout",
    "DatasetCollectionConfig",
    "DatasetConfig",
    "EvaluateConfig",
    "EvaluationSet",
    "ExperimentConfig",
    "FewShotConfig",
    "MixupAugment",
    "ModelCard",
    "ModelSpec",
    "NoiseAugment",
    "OfflineEmbeddingsConfig",
    "OutputFingerprint",
    "ProbeConfig",
    "RunConfig",
    "SchedulerConfig",
    "TaskCard",
    "TrainingParams",
    "apply_patches",
    "read_yaml",
]
