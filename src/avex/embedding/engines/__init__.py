"""What runs a model on batches of windows: LiteRT sessions, or torch on any device."""

from avex.embedding.engines.base import Engine, EngineInfo, EngineOptions, EngineOutput, EngineSession
from avex.embedding.engines.loading import load_engine

__all__ = ["Engine", "EngineInfo", "EngineOptions", "EngineOutput", "EngineSession", "load_engine"]
