"""The version, where every layer can read it without importing the package's front door."""

__version__ = "2.0.0.dev0"
