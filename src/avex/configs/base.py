"""Configurations read from YAML files: references between files, patches from a command line, clear errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from avex._core.errors import ConfigError
from avex.configs.yaml_files import apply_patches, read_yaml

YAML_SUFFIXES = (".yml", ".yaml")
_ANCHOR_PREFIXES = ("x-", ".")
_CARD_LISTS = frozenset({"tasks", "evaluation_sets"})
_INPUTS = frozenset(
    {"data_root", "noise_dirs", "checkpoint_path", "resume_from_checkpoint", "fairseq_weights_path"}
)


class BaseCLIConfig(BaseModel):
    """A configuration that a YAML file and `key.sub[0]=value` patches make together.

    In a file, the fields named in `file_fields` may hold the path of another YAML file instead of a mapping. What
    is read (these files, `data_root`, `noise_dirs`, `checkpoint_path`, `resume_from_checkpoint`,
    `fairseq_weights_path`, the card files of `tasks` and `evaluation_sets`) is looked for from the file's folder,
    then from where the user stands; what is written (`output_dir`, `save_dir`), and everything in a patch, starts
    from where the user stands. Top-level keys that begin with `x-` or `.` hold YAML anchors and are left out.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())

    file_fields: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_sources(cls, yaml_file: str | Path, cli_args: Iterable[str] = (), **fields: Any) -> Self:
        """Read a file and change single values of it.

        Args:
            yaml_file: The YAML file.
            cli_args: Patches such as `experiments[0].model_spec.device=cuda`; they reach into files that this
                one names.
            **fields: Values of top-level fields, as they are; None leaves what the file says.

        Raises:
            ConfigError: A file is missing or is not YAML, a patch leads nowhere, or a value is wrong.

        Example:
            >>> RunConfig.from_sources("run.yml", ["training_params.lr=1e-4"])  # doctest: +SKIP
        """
        patches = [patch.removeprefix("--") for patch in cli_args]
        data = apply_patches(load_tree(yaml_file, cls.file_fields), patches)
        data |= {name: value for name, value in fields.items() if value is not None}
        return validated(cls, data, str(yaml_file))


def validated(cls: type[Any], data: Any, source: str) -> Any:
    """Validate data against a model; what is wrong is said in one `ConfigError` with the places.

    Raises:
        ConfigError: A field is unknown, missing or has a wrong value.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{place(item['loc']) or 'file'}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"Config '{source}' is not valid: {problems}.") from error


def place(loc: Iterable[str | int]) -> str:
    """Write a place in a config as patches do.

    Example:
        >>> place(("experiments", 0, "model_spec", "device"))
        'experiments[0].model_spec.device'
    """
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def is_yaml_path(value: Any) -> bool:
    """Whether a value is the name of a YAML file."""
    return isinstance(value, str) and value.lower().endswith(YAML_SUFFIXES)


def load_tree(path: str | Path, file_fields: Iterable[str] = ()) -> dict[str, Any]:
    """Read a YAML file, and the files that it names in `file_fields` at any depth.

    Raises:
        ConfigError: A file is missing or is not YAML.
    """
    return _read(Path(path), frozenset(file_fields), ())


def _read(path: Path, fields: frozenset[str], above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ConfigError(f"Config file '{path}' names itself, through {len(above)} file(s).")
    data = {key: value for key, value in read_yaml(path).items() if not _is_anchor(key)}
    expanded: dict[str, Any] = _expand(data, path.parent, fields, (*above, path.resolve()))
    return expanded


def _is_anchor(key: Any) -> bool:
    return isinstance(key, str) and key.startswith(_ANCHOR_PREFIXES)


def _expand(value: Any, folder: Path, fields: frozenset[str], above: tuple[Path, ...]) -> Any:
    if isinstance(value, list):
        return [_expand(item, folder, fields, above) for item in value]
    if not isinstance(value, Mapping):
        return value
    result: dict[Any, Any] = {}
    for key, item in value.items():
        if key in fields and is_yaml_path(item):
            result[key] = _read(_beside(folder, item), fields, above)
        elif key in _INPUTS and item is not None:
            names = [_input(folder, name) for name in (item if isinstance(item, list) else [item])]
            result[key] = names if isinstance(item, list) else names[0]
        elif key in _CARD_LISTS and isinstance(item, list):
            result[key] = [
                str(_beside(folder, entry)) if is_yaml_path(entry) else _expand(entry, folder, fields, above)
                for entry in item
            ]
        else:
            result[key] = _expand(item, folder, fields, above)
    return result


def _input(folder: Path, name: Any) -> Any:
    """What a file says is to be read, as it is found from anywhere; addresses and what is no text stay."""
    if not isinstance(name, str) or name == "None" or "://" in name:
        return name
    return str(_beside(folder, name).absolute())


def _beside(folder: Path, name: str) -> Path:
    """What a file names: in its folder, else from where the user stands."""
    path = Path(name).expanduser()
    inside = folder / path
    return inside if inside.exists() or not path.exists() else path
