"""The documented way to train: `main(config_path, patches)`, or `python -m avex.run_train --config run.yml`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avex.training.run import TrainingResult


def main(config_path: str | Path, patches: Iterable[str] | None = None) -> TrainingResult:
    """Train a model.

    Args:
        config_path: YAML file of the run.
        patches: Changes of single values, such as `training_params.lr=0.001`.

    Returns:
        Where everything is, and how good it is.

    Raises:
        ConfigError: The file is wrong, or the training cannot start.

    Example:
        >>> main("configs/run_configs/run.yml", ("training_params.lr=0.001",))     # doctest: +SKIP
    """
    from avex.configs import RunConfig
    from avex.training.run import train

    return train(RunConfig.from_sources(config_path, patches or ()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a model. See also: avex train --help")
    parser.add_argument("-c", "--config", required=True, help="YAML file of the run")
    parser.add_argument(
        "-p", "--patch", action="append", metavar="KEY=VALUE", help="change a value; may be repeated"
    )
    arguments = parser.parse_args()
    main(arguments.config, arguments.patch)
