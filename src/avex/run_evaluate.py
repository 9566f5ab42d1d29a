"""`python -m avex.run_evaluate`: the older door of `avex evaluate`, with the same options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avex.evaluation.runner import EvaluationReport


def run_evaluation(config_path: str | Path, patches: Sequence[str] = ()) -> EvaluationReport:
    """Run the evaluation that a YAML file describes.

    Args:
        config_path: The file.
        patches: Values to change, as `experiments[0].model_spec.device=cuda`.

    Raises:
        ConfigError: The file is wrong.

    Example:
        >>> run_evaluation("birdnet.yml", ["seed=7"]).ran     # doctest: +SKIP
        5
    """
    from avex.configs.evaluation import EvaluateConfig
    from avex.evaluation.runner import evaluate

    return evaluate(EvaluateConfig.from_sources(config_path, patches), config_file=str(config_path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `avex evaluate` with the arguments of this process, or those given."""
    from avex.cli import main as avex_main

    given = sys.argv[1:] if arguments is None else list(arguments)
    before, sys.argv = sys.argv, ["avex", "evaluate", *given]
    try:
        avex_main()
    finally:
        sys.argv = before


if __name__ == "__main__":
    main()
