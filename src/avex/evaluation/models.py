"""Which model an experiment means, before and after it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avex._core.errors import ConfigError
from avex.configs import ModelCard, ModelSpec
from avex.configs.evaluation import ExperimentConfig
from avex.io import sha256_of
from avex.models.base_model import ModelBase
from avex.models.template.cards import TEMPLATE_MODEL, read_template
from avex.models.utils.factory import pick_device
from avex.models.utils.load import LoadRequest, load_card
from avex.models.utils.registry import resolve

# What a card says about itself, without any part in the numbers.
_PROSE = {"description", "license", "license_note", "paper", "citation", "aliases", "fingerprint"}


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded.

    Attributes:
        card: The card, with the experiment's changes.
        checkpoint_path: Weights instead of the card's.
        device: Where to put it.
        seed: Of weights that no checkpoint gives.
    """

    card: ModelCard
    checkpoint_path: str | None
    device: str
    seed: int

    @classmethod
    def of(cls, experiment: ExperimentConfig, device: str, seed: int) -> ModelSource:
        """The model of an experiment.

        Args:
            experiment: The experiment; a device in its own `model_spec` wins.
            device: Where to put the model otherwise.
            seed: See the class.

        Raises:
            UnknownModelError: There is no such model.
        """
        spec = experiment.spec()
        card = resolve(experiment.model) if spec is None else resolve(spec)  # type: ignore[arg-type]
        if spec is None and experiment.model_spec:
            changed = {**card.model_spec.model_dump(exclude_unset=True), **experiment.model_spec}
            card = card.model_copy(update={"model_spec": ModelSpec.model_validate(changed)})
        if not experiment.pretrained and experiment.checkpoint_path is None:
            plain = card.model_spec.model_copy(update={"pretrained": False})
            nothing = {"checkpoint_path": None, "sha256": None, "model_spec": plain}
            card = card.model_copy(update=nothing)
        own = (experiment.model_spec or {}).get("device")
        return cls(card, experiment.checkpoint_path, str(own or device), seed)

    def describe(self) -> dict[str, Any]:
        """All that determines the model, as JSON values, without loading it: part of the identity of results.

        A local checkpoint counts by its content, so does a JSON template; a card's by its address and checksum.
        """
        card = self.card.model_dump(mode="json", exclude=_PROSE)
        if self.card.model_spec.name == TEMPLATE_MODEL:
            card["template"] = dict(read_template((self.card.model_spec.extra_config or {})["template"]))
        path = self.checkpoint_path or self.card.checkpoint_path
        local = path is not None and "://" not in path and Path(path).is_file()
        content = sha256_of(path) if local and path is not None else None
        random = {"seed": self.seed} if path is None else {}
        return {"card": card, "checkpoint_path": None if content else path, "sha256": content, **random}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the network and of what comes before it, as JSON values: all but weights and device."""
        spec = self.card.model_spec.model_dump(
            mode="json", exclude={"device", "pretrained"}, exclude_none=True
        )
        return {**spec, "checkpoint_format": self.card.checkpoint_format}

    def load(self) -> ModelBase:
        """Load it, in eval mode, on its device.

        Raises:
            ConfigError: The model cannot be evaluated, or the device is not there.
        """
        pick_device(self.device)  # before weights are fetched
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            request = LoadRequest(
                device=self.device, checkpoint_path=self.checkpoint_path, return_features_only=True
            )
            model = load_card(self.card, request)
        if not isinstance(model, ModelBase):
            raise ConfigError(
                f"Model '{self.card.name}' is a {type(model).__name__}; to evaluate it, derive it from "
                "avex.models.base_model.ModelBase."
            )
        return model.eval()
