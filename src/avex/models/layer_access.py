"""Naming, choosing and reading the layers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from avex.models.autocast import in_precision
from avex.models.batches import waveform_and_mask
from avex.models.compiled import without_compiler
from avex.models.features import Features
from avex.models.layers import OWN_OUTPUT, LayerError, ModuleNames, select_layers
from avex.models.tapped import LayerAggregation, join_layers, read_layers

if TYPE_CHECKING:
    from avex.models.base_model import ModelBase


class LayerAccess(nn.Module):
    """The part of `ModelBase` that is about layers. Nothing is hooked but while layers are being read.

    Attributes:
        head_prefixes: How the names of the classifier's parameters begin.
    """

    head_prefixes: ClassVar[tuple[str, ...]] = ("classifier.",)
    _selected_layers: Sequence[str | int] = ()

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Unpooled features of a waveform (B, S)."""
        raise NotImplementedError

    def _head_name(self) -> str | None:
        raise NotImplementedError

    def get_model_layers(self) -> list[str]:
        """Names of the layers that can be selected, in order; the classifier is not one of them."""
        head = self._head_name()
        return [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear) and name != head and not name.startswith(self.head_prefixes)
        ]

    def get_model_layer_map(self) -> dict[int, str]:
        """The same layers by number."""
        return dict(enumerate(self.get_model_layers()))

    def resolve_layers(self, layers: Sequence[str | int]) -> list[str]:
        """Turn layer selectors into names (`avex.models.layers.select_layers`)."""
        return select_layers(layers, self.get_model_layers(), ModuleNames(self))

    def layer_keys(self, layers: Sequence[str | int]) -> list[str]:
        """Names under which `layer_features` returns a selection.

        Real names of modules, except for `last_layer` and its other name `backbone`: they mean the model's own
        output, which some families make of more than their last layer, and have the name `last_layer`.

        Raises:
            LayerError: A selector fits nothing.
        """
        keys: list[str] = []
        listed = set(self.get_model_layers())
        for layer in layers:
            if layer in (OWN_OUTPUT, "backbone"):
                keys.append(OWN_OUTPUT)
            else:
                keys += [str(layer)] if layer in listed else self.resolve_layers([layer])
        if not keys:
            raise LayerError("No layers are selected. Name some, or 'last_layer'.")
        return list(dict.fromkeys(keys))

    @in_precision
    def layer_features(
        self,
        x: Tensor | Mapping[str, Tensor],
        layers: Sequence[str | int] = (OWN_OUTPUT,),
        padding_mask: Tensor | None = None,
    ) -> dict[str, Features]:
        """Features of any layers, from one forward pass.

        Each layer has the meaning of its own axes: token layers the model's, with its prefix tokens and its mask;
        maps of convolutions (B, C, F, T) their own frame rate. Gradients flow unless they are switched off.

        A module whose output has three axes and is not one of a family's token layers is taken for (B, T, C),
        except `nn.Conv1d` and its norms and pools (B, C, T). Outputs (T, B, C) cannot be told from that when T
        equals B: put batches first.

        Args:
            x: (B, S) waveform, or a mapping with `raw_wav` and optionally `padding_mask`.
            layers: Selectors, as in `layer_keys`.
            padding_mask: (B, S) bool, True where padded.

        Returns:
            `Features` by the names of `layer_keys`, in that order.

        Raises:
            LayerError: A selector fits nothing, or a layer that did not run in this pass.
            ValueError: A layer whose output is not batch first, or has no 2 to 4 axes.

        Example:
            >>> model.layer_features(audio, ["layer_6", "last_layer"])["last_layer"].sequence()  # doctest: +SKIP
        """
        waveform, mask = waveform_and_mask(x, padding_mask)
        keys = self.layer_keys(layers)
        if keys == [OWN_OUTPUT]:
            return {OWN_OUTPUT: self.forward_features(waveform, mask)}
        return without_compiler(read_layers)(cast("ModelBase", self), keys, waveform, mask)

    def register_hooks_for_layers(self, layer_names: Sequence[str | int]) -> list[str]:
        """Remember a selection of layers for `extract_embeddings`; nothing is hooked.

        Returns:
            The names of the layers.
        """
        names = self.resolve_layers(layer_names)
        self._selected_layers = list(layer_names)
        return names

    @in_precision
    def extract_embeddings(
        self,
        x: Tensor | Mapping[str, Tensor],
        *,
        layers: Sequence[str | int] | None = None,
        padding_mask: Tensor | None = None,
        aggregation: LayerAggregation = "none",
        return_layers: type[dict] | type[list] | None = None,
        freeze_backbone: bool = False,
    ) -> Tensor | list[Tensor] | dict[str, Tensor]:
        """Embeddings of layers.

        Args:
            x: (B, S) waveform, or a mapping with `raw_wav` and optionally `padding_mask`.
            layers: Selectors; None takes what was chosen with `register_hooks_for_layers`.
            padding_mask: (B, S) bool, True where padded.
            aggregation: `mean`, `max`, `cls_token`: one vector per layer. `none`: the layer's output as it is.
                `concat`: one sequence (B, N, sum of C) of all layers, without prefix tokens.
            return_layers: `dict` for tensors by name, `list` for one tensor per layer.
            freeze_backbone: Compute without gradients.

        Returns:
            One layer: its tensor. Several: vectors side by side (B, sum of D); with `none` a list in order.

        Raises:
            ValueError: No layers were chosen, or the input is None or empty, or `concat` with layers of different
                lengths.
            LayerError: A selector fits nothing.

        Example:
            >>> model.extract_embeddings(audio, layers=["all"], return_layers=dict)     # doctest: +SKIP
        """
        waveform, mask = waveform_and_mask(x, padding_mask)
        if layers is None:
            layers = self._selected_layers
        if not layers:
            raise ValueError(
                "No layers are selected. Pass layers=['last_layer'], or call "
                "register_hooks_for_layers(['last_layer']) first."
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_backbone):
            features = self.layer_features(waveform, layers, mask)
        return join_layers(features, aggregation, return_layers)
