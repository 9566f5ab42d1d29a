"""What there is to do: every experiment on every task in every mode, and what is done already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from avex._core.errors import AvexError, ConfigError
from avex.configs import ProbeConfig
from avex.configs.evaluation import EvaluateConfig, ExperimentConfig
from avex.data.cards import find_benchmark
from avex.data.tasks import open_task
from avex.evaluation.cache import EMBEDDINGS, RECORDINGS
from avex.evaluation.cache import SCHEMA as CACHE_SCHEMA
from avex.evaluation.contents import FileContents
from avex.evaluation.encoder import Pooling
from avex.evaluation.models import ModelSource
from avex.evaluation.modes import not_applicable
from avex.evaluation.results import SCHEMA, identity, result_path
from avex.evaluation.scoring import check_metrics
from avex.evaluation.tasks import Task

Status = Literal["run", "done", "skip", "blocked"]

# Settings of the evaluation that a mode's result depends on, besides model, task and seed.
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "probe": ("training_params", "bootstrap_samples"),
    "finetune": ("training_params", "bootstrap_samples"),
    "retrieval": ("retrieval_k", "retrieval_max_queries", "bootstrap_samples"),
    "clustering": ("clustering_scaling", "bootstrap_samples"),
    "fewshot": ("few_shot",),
    "knn": ("knn_neighbors", "bootstrap_samples"),
}
# Of training_params, what has no part in the numbers.
_NO_PART = {"log_steps"}


@dataclass(frozen=True, eq=False)
class Job:
    """One result to be.

    Attributes:
        experiment: The experiment.
        source: Its model.
        probe: Its probe, as the mode needs it.
        task: Name of the task.
        opened: The task; None if its data are not there.
        mode: What to do.
        status: `run`, `done` (the result is there), `skip` (makes no sense) or `blocked` (something is missing).
        reason: Why it is not run.
        settings: All that determines the result.
        digest: Of the task, see `Task.digest`.
        path: Where the result is, or will be; None if it is blocked.
        pooling: How embeddings are pooled for this job.
    """

    experiment: ExperimentConfig
    source: ModelSource
    probe: ProbeConfig
    task: str
    opened: Task | None
    mode: str
    status: Status
    reason: str = ""
    settings: Mapping[str, Any] | None = None
    digest: str = ""
    path: Path | None = None
    pooling: Pooling = "mean"

    @property
    def online(self) -> bool:
        """Whether the model itself is needed in training, rather than its embeddings."""
        return self.mode == "finetune" or (self.mode == "probe" and self.probe.get_training_mode())


def plan_jobs(config: EvaluateConfig, contents: FileContents | None = None) -> list[Job]:
    """List all jobs of an evaluation, experiment by experiment; no model is loaded.

    Tasks go by the content of their recordings: a file that was not read before is read once.

    Args:
        config: What to evaluate.
        contents: What is known of recordings. None takes the table in `save_dir`, and leaves it as it is.

    Raises:
        ConfigError: The configuration contradicts itself, or results are there under `overwrite: never`.
        UnknownNameError: There is no such model, task or benchmark.
    """
    benchmark = find_benchmark(config.dataset_config)
    if contents is None:
        contents = FileContents(Path(config.save_dir) / EMBEDDINGS / RECORDINGS, read_only=True)
    opened = [_open(item, config, contents) for item in benchmark.evaluation_sets]
    jobs = []
    for experiment in config.experiments:
        source = ModelSource.of(experiment, config.device, config.seed)
        described = source.describe()
        for name, task, problem, digest in opened:
            for mode in config.eval_modes:
                job = Job(experiment, source, _probe(experiment, mode), name, task, mode, "blocked", problem)
                job = replace(job, pooling=_pooling(job, config.offline_embeddings.probe_storage_aggregation))
                jobs.append(job if task is None else _settled(job, task, digest, config, described))
    _check_overwrite(config, jobs)
    return jobs


class _Opened(NamedTuple):
    """A task and its digest, or why there is none."""

    name: str
    task: Task | None
    problem: str = ""
    digest: str = ""


def _open(item: Any, config: EvaluateConfig, contents: FileContents) -> _Opened:
    """Open a task: one that is missing must not hide the others."""
    try:
        task = Task.of(open_task(item, config.data_root, seed=config.seed))
        check_metrics(task.metrics, task.multi_label, len(task.classes))
        return _Opened(item.name, task, digest=task.digest(contents))
    except AvexError as error:
        return _Opened(item.name, None, str(error))


def _probe(experiment: ExperimentConfig, mode: str) -> ProbeConfig:
    probe = experiment.get_probe_config()
    if mode == "finetune":
        return probe.model_copy(update={"freeze_backbone": False, "online_training": True})
    return probe


def _pooling(job: Job, stored: Pooling) -> Pooling:
    """How embeddings of a job are pooled: as its probe reads them, and as the evaluation stores them."""
    if job.mode == "probe" and job.probe.reads_sequences:
        if stored != "none" and not job.online:
            raise ConfigError(
                f"Experiment '{job.experiment.run_name}': a '{job.probe.probe_type}' probe reads sequences, "
                f"but offline_embeddings.probe_storage_aggregation is '{stored}'. Set it to 'none', or use "
                "a probe that reads vectors."
            )
        return "none"
    own = cast(Pooling, job.probe.aggregation) if job.probe.aggregation in ("max", "cls_token") else "mean"
    if job.online or stored in ("none", own):
        return own
    if "aggregation" in job.probe.model_fields_set:
        raise ConfigError(
            f"Experiment '{job.experiment.run_name}': its probe has aggregation '{job.probe.aggregation}', but "
            f"offline_embeddings.probe_storage_aggregation is '{stored}'. Give one of them only."
        )
    return stored


def _settled(job: Job, task: Task, digest: str, config: EvaluateConfig, model: Mapping[str, Any]) -> Job:
    reason = not_applicable(job.mode, task)
    if reason is not None:
        return replace(job, status="skip", reason=reason)
    chosen = config.model_dump(mode="json", include=set(_SETTINGS[job.mode]))
    if "training_params" in chosen:
        chosen["training_params"] = {k: v for k, v in chosen["training_params"].items() if k not in _NO_PART}
    settings = {
        "schema": [SCHEMA, CACHE_SCHEMA],
        "model": model,
        "probe": job.probe.model_dump(mode="json"),
        "pooling": job.pooling,
        "task": [task.name, task.version, digest, task.metrics, task.retrieval_mode],
        "max_seconds": task.max_seconds,
        "mode": job.mode,
        "seed": config.seed,
        "device": job.source.device.partition(":")[0],
        **chosen,
    }
    path = result_path(
        Path(config.save_dir), task.name, job.experiment.run_name, job.mode, identity(settings)
    )
    done = path.is_file() and config.overwrite != "always"
    status: Status = "done" if done else "run"
    reason = "the result is there" if done else ""
    return replace(job, status=status, reason=reason, settings=settings, path=path, digest=digest)


def _check_overwrite(config: EvaluateConfig, jobs: list[Job]) -> None:
    done = [job for job in jobs if job.status == "done"]
    if config.overwrite == "never" and done:
        raise ConfigError(
            f"{len(done)} of {len(jobs)} results are there already, the first is '{done[0].path}'. Choose another "
            "save_dir, or overwrite: only-missing (keep them) or always (make them anew)."
        )
