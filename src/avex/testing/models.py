"""`check_model`: does a model do what the pipelines, probes and stores of avex rely on?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from avex.configs import ModelCard, ModelSpec
from avex.models.base_model import ModelBase
from avex.models.utils.load import load_model
from avex.models.utils.registry import resolve
from avex.testing import model_outputs, model_padding, model_state
from avex.testing.report import ConformanceError, Rule, run_rules
from avex.testing.subject import Subject, preserved

MODEL_RULES: dict[str, Rule[Subject]] = {
    "facts": model_outputs.facts,
    "card": model_outputs.card,
    "forward": model_outputs.forward,
    "embed": model_outputs.embed,
    "hears": model_outputs.hears,
    "repeatable": model_state.repeatable,
    "batch": model_outputs.batch,
    "layers": model_outputs.layers,
    "pooling": model_outputs.pooling,
    "extremes": model_outputs.extremes,
    "short": model_outputs.short,
    "padding": model_padding.padding,
    "gradients": model_state.gradients,
    "modes": model_state.modes,
    "state_dict": model_state.state_dict,
    "copies": model_state.copies,
    "threads": model_state.threads,
}
"""All rules by name; the docstring of each says what it demands."""


def check_model(
    model: ModelBase | str | Path | ModelCard | ModelSpec,
    *,
    seconds: float | None = None,
    batch_invariance_rtol: float = 1e-4,
    device: str = "cpu",
    rules: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Check a model against every rule and report all that it breaks.

    The model is left as it was: mode, parameters, buffers, gradients. It must be able to run (weights may be
    random). Expect some seventy forward passes of up to five clips, and three times the memory of the weights.

    Args:
        model: A model, or anything that `avex.load_model` takes.
        seconds: Length of the clips to test with; None takes the model's window, or one second.
        batch_invariance_rtol: How far an embedding may change with the other clips of its batch, relative to its
            root mean square.
        device: Where to load a model that is given by name.
        rules: Names of rules (`MODEL_RULES`) to check; None checks all.
        skip: Names of rules to leave out.

    Raises:
        ConformanceError: Rules are broken; the message lists each in words, `violations` holds them.
        UnknownNameError: No such rule or model.

    Example:
        >>> from avex.testing import tiny_model
        >>> check_model(tiny_model("eat"))
    """
    card = None
    if not isinstance(model, ModelBase):
        card = resolve(model) if isinstance(model, (str, Path, ModelCard, ModelSpec)) else None
        loaded = load_model(card, device=device) if card else model
        if not isinstance(loaded, ModelBase):
            text = (
                f"a {type(loaded).__name__} is no ModelBase: derive it from avex.models.base_model.ModelBase"
            )
            raise ConformanceError("The model", [("facts", text)], 1)
        model = loaded
    checked = model
    length = round((seconds or checked.window_seconds or 1.0) * checked.sample_rate)

    def subject() -> Subject:
        # Each rule begins alike, whatever the model did to its mode or to autograd before.
        checked.eval()
        torch.set_grad_enabled(True)
        return Subject(checked, length, batch_invariance_rtol, card)

    with preserved(checked), torch.enable_grad():
        name = f"'{card.name}' ({type(checked).__name__})" if card else type(checked).__name__
        run_rules(f"Model {name}", MODEL_RULES, subject, rules, skip)
