"""The console script `list-models`."""

from __future__ import annotations

from avex.models.utils.describe import list_models


def main() -> None:
    """Print the table of models."""
    list_models()


if __name__ == "__main__":
    main()
