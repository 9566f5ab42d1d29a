"""`python -m avex.run_evaluate`: the older door of `avex evaluate`, with its most important options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avex._core.errors import AvexError, ConfigError, UnknownNameError

if TYPE_CHECKING:
    from avex.configs.evaluation import EvaluateConfig

_FAILURE, _USAGE, _PARTIAL = 1, 2, 3


def main(config_path: str | Path | None = None, patches: Sequence[str] = ()) -> int:
    """Run the evaluation that a YAML file describes.

    Args:
        config_path: The file; None reads the arguments of this process.
        patches: Values to change, as `experiments[0].model_spec.device=cuda`.

    Returns:
        0 if all was evaluated, 3 if data of some tasks are missing.

    Raises:
        ConfigError: The file is wrong.

    Example:
        >>> main("birdnet.yml", ["seed=7"])     # doctest: +SKIP
        0
    """
    from avex.configs.evaluation import EvaluateConfig

    if config_path is not None:
        return _run(EvaluateConfig.from_sources(config_path, patches), str(config_path), dry_run=False)
    given = _parser().parse_args()
    changes = {key: value for key, value in vars(given).items() if key in _SETTINGS}
    config = EvaluateConfig.from_sources(given.config, given.patch, **changes)
    return _run(config, str(given.config), dry_run=given.dry_run)


_SETTINGS = ("overwrite", "data_root", "save_dir")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m avex.run_evaluate", description="Evaluate models on tasks.")
    parser.add_argument("-c", "--config", required=True, type=Path, help="YAML file of the evaluation")
    parser.add_argument("--patch", action="append", default=[], metavar="KEY=VALUE", help="change a value")
    parser.add_argument("--dry-run", action="store_true", help="list what would be done, and stop")
    parser.add_argument(
        "--overwrite", choices=["never", "always", "only-missing"], help="what becomes of results"
    )
    parser.add_argument("--data", dest="data_root", metavar="FOLDER", help="folder of the datasets")
    parser.add_argument("-o", "--output", dest="save_dir", metavar="FOLDER", help="folder for results")
    return parser


def _run(config: EvaluateConfig, source: str, *, dry_run: bool) -> int:
    from avex.evaluation.jobs import plan_jobs
    from avex.evaluation.reporting import blocked_text, plan_text, results_text
    from avex.evaluation.runner import evaluate

    if dry_run:
        sys.stdout.write(plan_text(plan_jobs(config)) + "\n")
        return 0
    report = evaluate(config, config_file=source, on_progress=_tell)
    sys.stdout.write(results_text(report, config.save_dir) + "\n")
    if not report.blocked:
        return 0
    sys.stderr.write(blocked_text(report.blocked) + "\n")
    return _PARTIAL


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def _door() -> int:
    """`main` for a shell: errors that avex raises on purpose become one message and an exit code."""
    try:
        return main()
    except (AvexError, OSError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return _USAGE if isinstance(error, (ConfigError, UnknownNameError)) else _FAILURE


if __name__ == "__main__":
    sys.exit(_door())
