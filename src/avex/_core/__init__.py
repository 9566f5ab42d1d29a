"""What every layer stands on: errors, registries, optional imports. Standard library only."""
