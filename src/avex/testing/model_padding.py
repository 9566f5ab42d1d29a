"""The rule about padding masks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch

from avex.testing.subject import Subject, difference


def padding(subject: Subject) -> Iterator[str]:
    """A mask does what `padding_rule` says, changes nothing where it marks nothing, and never gives NaN."""
    model = subject.model
    if "padding_mask" not in inspect.signature(model.embed).parameters:
        yield "embed takes no padding_mask"
        return
    clips = subject.clips(3)
    nothing = torch.zeros(clips.shape, dtype=torch.bool, device=clips.device)
    off = difference(subject.embed(clips, padding_mask=nothing), subject.embed(clips))
    if off > subject.rtol:
        yield f"a mask that marks nothing changes embeddings by {off:.2g} (relative)"
    lengths = [subject.samples, round(0.6 * subject.samples), round(0.35 * subject.samples)]
    mask = (
        torch.arange(subject.samples, device=clips.device)
        >= torch.tensor(lengths, device=clips.device)[:, None]
    )
    padded = clips.masked_fill(mask, 0.0)
    masked = subject.embed(padded, padding_mask=mask)
    if not subject.embed(padded, padding_mask=torch.ones_like(mask)).isfinite().all():
        yield "clips that are padding throughout give values that are not finite"
    if (off := difference(masked[:1], subject.embed(clips[:1]))) > subject.rtol:
        yield f"a clip without padding changes by {off:.2g} (relative) when others in the batch are padded"
    if model.padding_rule == "none":
        if (off := difference(masked, subject.embed(padded))) > subject.rtol:
            yield f"padding_rule is 'none', but a mask changes embeddings by {off:.2g} (relative)"
    elif model.padding_rule == "masked":
        for row, length in enumerate(lengths):
            alone = subject.embed(clips[row : row + 1, :length])
            if (off := difference(masked[row : row + 1], alone)) > subject.rtol:
                yield (
                    "padding_rule is 'masked', but padding changes the embedding of a clip by "
                    f"{off:.2g} (relative)"
                )
                return
    elif not masked.isfinite().all():
        yield "padded clips give values that are not finite"
