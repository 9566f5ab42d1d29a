"""From a JSON template to a model card. No torch, and nothing of the template runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avex._core.errors import AvexError, ConfigError
from avex.configs import AudioConfig, ModelCard, ModelSpec
from deep_audio_embedding import (
    CommandError,
    EntryError,
    InputShapeError,
    MissingResultError,
    ModelDict,
    TemplateFormatError,
    TemplateNotFoundError,
    load_model_dict,
    printable,
)

TEMPLATE_MODEL = "json_template"
"""What a template's card says as `model_spec.name`."""


class TemplateRunError(AvexError, RuntimeError):
    """A step of a template failed, or gave something that is no embedding."""


@contextmanager
def avex_errors() -> Iterator[None]:
    """Turn the errors of `deep_audio_embedding` into those of avex, with the originals as their causes.

    Raises:
        ConfigError: There is no such template, or it is not valid.
        TemplateRunError: One of its steps failed.
    """
    try:
        yield
    except (TemplateNotFoundError, TemplateFormatError, InputShapeError) as error:
        raise ConfigError(str(error)) from error
    except (CommandError, EntryError, MissingResultError) as error:
        raise TemplateRunError(f"{error}{_advice(error)}") from error


def _advice(error: BaseException) -> str:
    if not isinstance(error.__cause__, ModuleNotFoundError) or isinstance(error, EntryError):
        return ""
    return (
        ". A package that it needs is not installed: `avex template validate` lists its install commands, "
        "`avex template run --trust --install` runs them"
    )


def is_template_name(name: str) -> bool:
    """Whether a model's name is that of a JSON template.

    Example:
        >>> is_template_name("speech/hubert.json")
        True
    """
    return name.lower().endswith(".json")


def read_template(path: str | Path) -> ModelDict:
    """Read and check a template, as `deep_audio_embedding.load_model_dict` does.

    Raises:
        ConfigError: There is no such file, or it is not a template.
    """
    with avex_errors():
        return load_model_dict(path)


def template_card(path: str | Path) -> ModelCard:
    """Make a card that says about a template's model what avex must know to run it.

    Args:
        path: A file, or the name of a packaged template.

    Returns:
        A card with the name of the file, whose model is a `TemplateModel`.

    Raises:
        ConfigError: There is no such file, or it is not a template.

    Example:
        >>> template_card("general_purpose/log_mel_statistics.json").model_spec.audio_config.sample_rate
        16000
    """
    template = read_template(path)
    audio = AudioConfig(
        sample_rate=template["sample_rate"],
        representation="raw",
        normalize=False,
        target_length_seconds=template.get("window_seconds"),
    )
    spec = ModelSpec(
        name=TEMPLATE_MODEL,
        pretrained=False,
        device="cpu",
        audio_config=audio,
        extra_config={"template": template.file},
    )
    return ModelCard(
        name=Path(template.file).stem,
        model_spec=spec,
        description=printable(f"JSON template: {', '.join(template['downstream_tasks'])}"),
        license=printable(template["license"]) if "license" in template else None,
        paper=printable(template["references"][0]),
        citation=printable(f"{', '.join(template['authors'])}. {' '.join(template['references'])}"),
    )
