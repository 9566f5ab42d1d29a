"""Running an evaluation: job by job, each result written as soon as it is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from avex._core.errors import AudioError, ConfigError
from avex.configs.evaluation import EvaluateConfig
from avex.data.cards import find_benchmark
from avex.evaluation.cache import EMBEDDINGS, CacheEntry, EmbeddingCache
from avex.evaluation.encoder import ClipEncoder
from avex.evaluation.jobs import Job, plan_jobs
from avex.evaluation.modes import Context, Outcome, run_mode
from avex.evaluation.results import Result, environment, json_scores, read_result, write_result
from avex.evaluation.summary import append_table, write_summary
from avex.evaluation.tasks import Task
from avex.models.base_model import ModelBase

logger = logging.getLogger(__name__)
Tell = Callable[[str], None]


@dataclass
class EvaluationReport:
    """What came of an evaluation.

    Attributes:
        jobs: All jobs as they were planned.
        results: Results of the jobs that are done now, in the order of the jobs.
        ran: How many of them this run made.
        computed: Clips that went through a model.
        seconds: Time by stage: `load`, `embed`, and each mode.
    """

    jobs: list[Job]
    results: list[Result] = field(default_factory=list)
    ran: int = 0
    computed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def blocked(self) -> list[Job]:
        """Jobs whose data are missing."""
        return [job for job in self.jobs if job.status == "blocked"]

    def spent(self, stage: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def evaluate(
    config: EvaluateConfig, *, config_file: str | None = None, on_progress: Tell | None = None
) -> EvaluationReport:
    """Run all jobs of an evaluation that are not done.

    Results are in `save_dir/results`, one JSON each; embeddings in `save_dir/embeddings`, shared by all
    experiments; `save_dir/summary.csv` and `.jsonl` have a line per experiment, task and seed. A run that was
    stopped at any point goes on where it was, and gives the same numbers.

    Args:
        config: What to evaluate.
        config_file: Where the config is from, for the tables.
        on_progress: Told what is being done.

    Raises:
        ConfigError: The configuration contradicts itself or the models.
        AudioError: A recording cannot be read.

    Example:
        >>> report = evaluate(EvaluateConfig.from_sources("birdnet.yml"))             # doctest: +SKIP
        >>> report.results[0].main                                                    # doctest: +SKIP
        (0.93, 0.905, 0.952)
    """
    offline = config.offline_embeddings
    cache = EmbeddingCache(
        Path(config.save_dir) / EMBEDDINGS,
        mapped=offline.use_streaming_embeddings,
        anew=offline.overwrite_embeddings,
    )
    report = EvaluationReport(plan_jobs(config, cache.contents))
    tell = logger.info if on_progress is None or config.disable_tqdm else on_progress
    runner = _Runner(config, report, cache, tell)
    for job in report.jobs:
        if job.status == "run":
            runner.run(job)
            report.ran += 1
        if job.path is not None and job.path.is_file():
            report.results.append(read_result(job.path))
    if report.results:
        write_summary(Path(config.save_dir))
        if config.results_csv_path:
            append_table(Path(config.results_csv_path), report.results, config_file, config.save_dir)
    return report


class _Runner:
    """One model in memory at a time."""

    def __init__(
        self, config: EvaluateConfig, report: EvaluationReport, cache: EmbeddingCache, tell: Tell
    ) -> None:
        self._config = config
        self._report = report
        self._tell = tell
        self._benchmark = find_benchmark(config.dataset_config).benchmark_name
        self._cache = cache
        self._entry: CacheEntry | None = None
        self._loaded: tuple[Any, ModelBase] | None = None

    def run(self, job: Job) -> None:
        """Make one result."""
        task, settings, path = job.opened, job.settings, job.path
        assert task is not None
        assert settings is not None
        assert path is not None
        self._tell(f"{job.experiment.run_name} · {task.name} · {job.mode}")
        seconds: dict[str, float] = {}
        model = self._model(job, seconds)
        card = job.source.card
        encoder = ClipEncoder(model, card.name, card.resampler, job.pooling, settings=job.source.settings)
        layers = encoder.layer_names(job.probe.target_layers)
        online = job.online
        if job.pooling == "none" and len(layers) > 1 and not online:
            # A weighted sum of sequences needs all of them at once, which no disk wants to hold.
            self._tell(
                f"{job.experiment.run_name}: sequences of {len(layers)} layers are read from the model"
            )
            online = True
        entry = None if online else self._embed(job, task, encoder, seconds)
        context = Context(
            task=task,
            embeddings=entry,
            layers=tuple(layers),
            probe=job.probe,
            config=self._config,
            device=job.source.device,
            seed=self._config.seed,
            load_model=job.source.load,
            resampler=card.resampler,
        )
        started = time.perf_counter()
        outcome = run_mode(job.mode, context)
        seconds[job.mode] = time.perf_counter() - started
        for stage, value in seconds.items():
            self._report.spent(stage, value)
        if task.digest(self._cache.contents) != job.digest:
            raise AudioError(f"Recordings of task '{task.name}' were changed meanwhile. Evaluate again.")
        result = self._result(job, task, encoder, layers, outcome, seconds)
        write_result(path, result, outcome.saved)

    def _model(self, job: Job, seconds: dict[str, float]) -> ModelBase:
        described = _model_of(job)
        if self._loaded is None or self._loaded[0] != described:
            self._loaded = None  # the old one goes before the new one comes
            started = time.perf_counter()
            self._loaded = (described, job.source.load())
            seconds["load"] = time.perf_counter() - started
        return self._loaded[1]

    def _embed(self, job: Job, task: Task, encoder: ClipEncoder, seconds: dict[str, float]) -> CacheEntry:
        started = time.perf_counter()
        entry = self._cache.entry(encoder.plan, task)
        if self._entry is not None and (self._entry.folder, self._entry.task) == (entry.folder, task):
            entry = self._entry  # it knows already what is where
        self._entry = entry
        read = encoder.layer_names(job.probe.target_layers)

        def tell(done: int, total: int) -> None:
            self._tell(f"{task.name}: {done} of {total} clips have embeddings")
            self._check_memory(entry, read)

        use = entry.ensure(encoder, self._wanted(job, encoder), on_progress=tell)
        self._check_memory(entry, read)
        self._report.computed += use.computed
        seconds["embed"] = time.perf_counter() - started
        return entry

    def _check_memory(self, entry: CacheEntry, layers: list[str]) -> None:
        """Refuse as soon as the first clips tell that all of them will be too much."""
        offline = self._config.offline_embeddings
        if offline.use_streaming_embeddings and entry.plan.pooling == "none":
            return
        size = sum(entry.nbytes(layer) for layer in layers) / 1e9
        if size > offline.memory_limit_gb:
            raise ConfigError(
                f"The embeddings of {len(layers)} layers take {size:.1f} GB, more than "
                f"offline_embeddings.memory_limit_gb ({offline.memory_limit_gb:g}). Read fewer layers, raise the "
                "limit, or set use_streaming_embeddings: true for probes that read sequences."
            )

    def _wanted(self, job: Job, encoder: ClipEncoder) -> list[str]:
        """Layers that any job reads of this model with this pooling: all of them come from one pass."""
        found: list[str] = []
        for other in self._report.jobs:
            same = other.task == job.task and other.pooling == job.pooling and not other.online
            if same and other.status != "done" and _model_of(other) == _model_of(job):
                found += encoder.layer_names(other.probe.target_layers)
        return list(dict.fromkeys(found))

    def _result(
        self,
        job: Job,
        task: Task,
        encoder: ClipEncoder,
        layers: list[str],
        outcome: Outcome,
        seconds: dict[str, float],
    ) -> Result:
        return Result(
            benchmark=self._benchmark,
            task=task.name,
            task_version=task.version,
            task_digest=job.digest,
            experiment=job.experiment.run_name,
            mode=job.mode,
            seed=self._config.seed,
            model={**vars(encoder.plan), "layers": layers},
            settings=job.settings or {},
            main_metric=outcome.main_metric,
            scores=json_scores(outcome.scores),
            clips={name: len(task.indices(name)) for name in task.part_names()},
            classes=len(task.classes),
            details=outcome.details,
            seconds=seconds,
            environment=environment(job.source.device),
            finished_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


def _model_of(job: Job) -> Any:
    """What says which model a job has; None if it is blocked."""
    return (job.settings or {}).get("model")
