"""Where a model's weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avex.io import fetch


@dataclass(frozen=True)
class WeightSource:
    """A weights file, wherever it is.

    Attributes:
        uri: Local path or any URI that `avex.io.fetch` understands.
        format: How to read it (`"safetensors"`, `"torch"`, `"fairseq"`); None finds out from its content.
        sha256: What the file must hash to, in hexadecimal; None if unknown.

    Example:
        >>> WeightSource("hf://org/repo/weights.safetensors").format is None
        True
    """

    uri: str
    format: str | None = None
    sha256: str | None = None

    def fetch(self, offline: bool | None = None) -> Path:
        """Return the local file, downloaded if needed and checked against `sha256` if that is known.

        Args:
            offline: Whether the network is forbidden; None asks the environment.

        Raises:
            FileNotFoundError: There is no such file.
            OfflineError: It is not cached, and the network may not or cannot be used.
            ChecksumError: It is another file than expected.
        """
        return fetch(self.uri, sha256=self.sha256, offline=offline)
