"""A JSON template as a model: what its commands compute, behind the methods of `ModelBase`."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.models.base_model import ModelBase
from avex.models.features import Features
from avex.models.template.cards import TEMPLATE_MODEL, TemplateRunError, avex_errors, read_template
from avex.models.template.outputs import as_features
from avex.models.template.trust import check_entry, require_trust
from avex.weights.fingerprint import set_weights_identity, state_fingerprint
from avex.weights.report import LoadReport
from deep_audio_embedding import (
    Namespace,
    compute_embedding,
    describe_template,
    import_pkgs,
    model_init,
    pre_proc,
)


class _Names(Namespace):
    """The names that a template defined. A copy has its own `model` if that is a module, and shares all else."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Names:
        copied = _Names(self)
        copied.search_path = self.search_path
        if isinstance(self["model"], nn.Module):
            copied["model"] = copy.deepcopy(self["model"], memo)
        return copied

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(
            "A model made by a template cannot be pickled: it holds whatever the template imported. Load the "
            "template again where it is needed, or save model.state_dict()."
        )


class TemplateModel(ModelBase):
    """The model that a JSON template describes.

    Building it runs `import_cmds` and `model_init`; every batch runs `pre_proc` and `embed_fwd`, one batch at a
    time (steps change the working directory, which belongs to the process). `install_cmds` are never run. Whether
    gradients pass depends on the template; nothing is promised. A padding mask is ignored: padding is heard as
    silence.

    Args:
        template: Path of the JSON file, or the name of a packaged one.
        device: Where the model lives, if it is an `nn.Module`.
        audio_config: Settings that the card states; the template's own sample rate must be among them.
        num_classes: Size of a fresh linear classifier on the pooled embedding; None for none.
        return_features_only: `forward` gives unpooled features.

    Attributes:
        template: The template, a dict.
        backbone: The template's `model`, if it is an `nn.Module`.

    Raises:
        TemplateTrustError: The template needs trust (`avex.models.template.trust`).
        TemplateRunError: A step of it failed.
        ConfigError: It is not valid, or the card states another sample rate.

    Example:
        >>> from avex.models.template.trust import trust_template
        >>> trust_template("general_purpose/log_mel_statistics.json")
        >>> TemplateModel("general_purpose/log_mel_statistics.json").embed(torch.zeros(2, 16000)).shape
        torch.Size([2, 128])
    """

    name = TEMPLATE_MODEL
    carries_weights: ClassVar[bool] = True

    def __init__(
        self,
        template: str,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
    ) -> None:
        content = read_template(template)
        audio = audio_config or AudioConfig(
            sample_rate=content["sample_rate"], representation="raw", normalize=False
        )
        super().__init__(device, audio, return_features_only)
        if self.sample_rate != content["sample_rate"]:
            raise ConfigError(
                f"Template '{content.file}' takes audio at {content['sample_rate']} Hz, but audio_config says "
                f"{self.sample_rate} Hz. Leave sample_rate as it is: recordings are resampled."
            )
        require_trust(content)
        self.template = content
        self._embedding_dim: int | None = None
        with avex_errors():
            describe_template(content)  # compiles every line, before the first one runs
            self._start()
        self.eval()
        if num_classes is not None and not return_features_only:
            self.classifier = nn.Linear(self.get_embedding_dim(), num_classes)
        self.to(device)

    def _start(self) -> None:
        namespace = import_pkgs(self.template)
        if "entry" in self.template:
            check_entry(self.template, namespace["entry"])
        model = model_init(self.template, namespace)
        self._names = _Names(namespace, model=model)
        self._names.search_path = namespace.search_path
        if isinstance(model, nn.Module):
            self.backbone = model
        set_weights_identity(self, _identity(self.template, model))
        tensors = model.state_dict() if isinstance(model, nn.Module) else {}
        self.__dict__["load_report"] = LoadReport(
            loaded=tuple(f"backbone.{name}" for name in tensors),
            source=self.template.file,
            num_parameters=sum(value.numel() for value in tensors.values() if isinstance(value, Tensor)),
            notes=("the template's own code filled them",),
        )

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Features of a waveform (B, S), as `embed_fwd` computes them: vectors (B, D) or steps (B, T, C).

        Raises:
            TemplateRunError: A step failed, or `y` is no embedding of this batch.
        """
        audio = x if self.template["in_shape"] == 2 else x[:, None]
        with avex_errors():
            prepared = pre_proc(self.template, audio, self._names)
            y = compute_embedding(self.template, self._names["model"], prepared, self._names)
        features = as_features(y, x, self.template.file, self.template.get("frame_rate"))
        self._check_size(features.values.shape[-1])
        self.layout = features.layout
        return features

    def _check_size(self, size: int) -> None:
        """The first batch tells the length of an embedding; all others must agree."""
        if self._embedding_dim is None:
            self._embedding_dim = size
        if size != self._embedding_dim:
            raise TemplateRunError(
                f"Template '{self.template.file}': an embedding has {size} values, but those of the first batch "
                f"had {self._embedding_dim}. If the length depends on that of the audio, average over time in "
                "embed_fwd."
            )

    def get_embedding_dim(self) -> int:
        """Length of a pooled embedding: of the first batch, else of a window of silence."""
        return super().get_embedding_dim() if self._embedding_dim is None else self._embedding_dim

    def get_model_layers(self) -> list[str]:
        """Linear layers of the template's model; none if that is no `nn.Module`."""
        return super().get_model_layers() if "backbone" in self._modules else []

    def _head_name(self) -> str | None:
        # The template's last linear layer is a layer like the others: only our own classifier is a head.
        return "classifier" if "classifier" in self._modules else None


def _identity(template: dict[str, Any], model: Any) -> str:
    """A sha256 of the template and, as far as they can be seen, of the weights."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode())
    if isinstance(model, nn.Module):
        digest.update(state_fingerprint(model).encode())
    return digest.hexdigest()
