"""Rules about what a model gives: shapes, layers, pooling, and its answers to strange recordings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import torch
from torch import Tensor

from avex.models.features import Features, PaddingRule, TokenLayout
from avex.testing.report import refuses
from avex.testing.subject import SAME, Subject, difference


def facts(subject: Subject) -> Iterator[str]:
    """Sample rate, embedding length, window, layout and padding rule are stated, and possible."""
    model = subject.model
    if not isinstance(model.sample_rate, int) or model.sample_rate < 1:
        yield f"sample_rate must be a positive int (Hz), not {model.sample_rate!r}"
    if not isinstance(model.embedding_dim, int) or model.embedding_dim < 1:
        yield f"embedding_dim must be a positive int, not {model.embedding_dim!r}"
    if model.window_seconds is not None and not model.window_seconds > 0:
        yield f"window_seconds must be positive or None, not {model.window_seconds!r}"
    if not isinstance(model.layout, TokenLayout):
        yield f"layout must be a TokenLayout, not {type(model.layout).__name__}"
    if model.padding_rule not in get_args(PaddingRule):
        yield f"padding_rule must be one of {', '.join(get_args(PaddingRule))}, not {model.padding_rule!r}"


def card(subject: Subject) -> Iterator[str]:
    """What the card says of the model is so."""
    if subject.card is None:
        return
    stated, model = subject.card, subject.model
    audio = stated.model_spec.audio_config
    if audio is not None and audio.sample_rate != model.sample_rate:
        yield f"the card says {audio.sample_rate} Hz, the model takes {model.sample_rate} Hz"
    if stated.embedding_dim not in (None, model.embedding_dim):
        yield f"the card says embedding_dim {stated.embedding_dim}, the model has {model.embedding_dim}"
    if stated.num_classes is not None and not model.return_features_only:
        classes = subject.output(subject.clips(1)).shape[-1]
        if classes != stated.num_classes:
            yield f"the card says {stated.num_classes} classes, the model has {classes}"


def forward(subject: Subject) -> Iterator[str]:
    """`forward` gives logits (B, C), or features that begin with B; `embed_and_classify` gives the same."""
    model, x = subject.model, subject.clips(2)
    output = subject.output(x)
    if not isinstance(output, Tensor):
        yield f"forward must return a tensor, not {type(output).__name__}"
        return
    allowed = (2, 3, 4) if model.return_features_only else (2,)
    if output.ndim not in allowed or len(output) != len(x):
        expected = "features (B, ...)" if model.return_features_only else "logits (B, C)"
        yield f"forward of 2 clips must return {expected}, not {tuple(output.shape)}"
        return
    if not output.isfinite().all():
        yield "forward returns values that are not finite"
    labels = getattr(model, "label_mapping", None)
    if labels is not None and labels.num_classes != output.shape[-1]:
        yield f"there are {labels.num_classes} labels, but {output.shape[-1]} logits"
    if model.return_features_only:
        return
    try:
        with torch.no_grad():
            embedding, logits = model.embed_and_classify(x)
    except ValueError as error:
        if "no classifier" not in str(error):
            raise
        return
    for name, got, wanted in (("embedding", embedding, subject.embed(x)), ("logits", logits, output)):
        if (off := difference(got, wanted)) > SAME:
            yield f"the {name} of embed_and_classify differs from that of a call of its own by {off:.2g} (relative)"


def embed(subject: Subject) -> Iterator[str]:
    """`embed` gives (B, embedding_dim), float32, finite."""
    values = subject.embed(subject.clips(3))
    wanted = (3, subject.model.embedding_dim)
    if tuple(values.shape) != wanted:
        yield f"embed of 3 clips must return (B, embedding_dim) = {wanted}, not {tuple(values.shape)}"
    if values.dtype != torch.float32:
        yield f"embeddings must be float32, not {values.dtype}"
    if not values.isfinite().all():
        yield "embeddings of ordinary noise are not finite"
    if values.requires_grad:
        yield "embeddings under torch.no_grad() must not require gradients"


def hears(subject: Subject) -> Iterator[str]:
    """Different clips have different embeddings."""
    first, second = subject.embed(subject.clips(2))
    if torch.equal(first, second):
        yield "two different clips have the same embedding: the audio does not reach it"


def batch(subject: Subject) -> Iterator[str]:
    """A clip's embedding does not depend on the other clips of its batch, nor on its place among them."""
    clips = subject.clips(3)
    # A silent and a very loud neighbour find what is scaled or cut by the extremes of a batch.
    together = subject.embed(torch.cat([clips, torch.zeros_like(clips[:1]), clips[:1].sign()]))
    turned = subject.embed(clips.flip(0)).flip(0)
    for index in range(3):
        alone = subject.embed(clips[index : index + 1])
        off = max(difference(other[index : index + 1], alone) for other in (together, turned))
        if off > subject.rtol:
            yield (
                f"the embedding of a clip changes by {off:.2g} (relative) with its neighbours in the batch; "
                f"at most {subject.rtol:g} is allowed"
            )
            return


def layers(subject: Subject) -> Iterator[str]:
    """Listed layers exist, can be chosen in all ways, and give finite values."""
    model = subject.model
    names = model.get_model_layers()
    modules = {name for name, _ in model.named_modules()}
    if not names:
        return  # a class may have nothing but its output
    if len(set(names)) != len(names):
        yield "get_model_layers() lists a layer twice"
    if absent := [name for name in names if name not in modules]:
        yield f"listed layers are not modules of the model: {', '.join(absent[:5])}"
        return
    ways: list[tuple[str | int, list[str]]] = [
        ("layer_0", names[:1]),
        (-1, names[-1:]),
        (0, names[:1]),
        ("all", names),
        ("last_layer", names[-1:]),
        (names[0], names[:1]),
    ]
    for way, wanted in ways:
        if model.resolve_layers([way]) != wanted:
            yield f"the selector {way!r} must choose {wanted}, not {model.resolve_layers([way])}"
    for way in ("no_such_layer", f"layer_{len(names)}"):
        yield from refuses(lambda way=way: model.resolve_layers([way]), ValueError, f"the layer '{way}'")  # type: ignore[misc]
    yield from _tapped(subject, names)


def _tapped(subject: Subject, names: list[str]) -> Iterator[str]:
    x = subject.clips(2)
    hooks = _num_hooks(subject)
    everything = subject.embed(x, layers=["all"])
    if everything.ndim != 2 or len(everything) != 2:
        yield f"embed(layers=['all']) of 2 clips must return (B, D), not {tuple(everything.shape)}"
        return
    for name in names if not everything.isfinite().all() else []:
        if not subject.embed(x, layers=[name]).isfinite().all():
            yield f"layer '{name}' gives values that are not finite"
    first = subject.embed(x, layers=[names[0]])
    if difference(everything[:, : first.shape[1]], first) > SAME:
        yield f"embed(layers=['all']) does not begin with the layer '{names[0]}'"
    if _num_hooks(subject) != hooks:
        yield "embed with layers leaves hooks behind"


def _num_hooks(subject: Subject) -> int:
    return sum(len(module._forward_hooks) for module in subject.model.modules())


def pooling(subject: Subject) -> Iterator[str]:
    """`mean`, `max`, `none` and `cls_token` are what they say; what is impossible is refused."""
    model, x = subject.model, subject.clips(2)
    with torch.no_grad():
        features = model.forward_features(x)
    if not isinstance(features, Features):
        yield f"forward_features must return Features, not {type(features).__name__}"
        return
    values, prefix = features.values, features.layout.num_prefix_tokens
    expected: dict[str, Tensor] = {"none": values, "mean": values, "max": values}
    if features.layout.kind == "tokens":
        expected |= {"mean": values[:, prefix:].mean(1), "max": values[:, prefix:].amax(1)}
        if prefix:
            expected["cls_token"] = values[:, 0]
    elif features.layout.kind == "map":
        expected |= {"mean": values.mean((2, 3)), "max": values.amax((2, 3))}
    for way, wanted in expected.items():
        if (off := difference(subject.embed(x, aggregation=way), wanted)) > SAME:
            yield f"aggregation='{way}' differs from the {way} of forward_features by {off:.2g} (relative)"
    impossible = ["average"] if "cls_token" in expected else ["average", "cls_token"]
    for way in impossible:
        call: Any = lambda way=way: subject.embed(x, aggregation=way)  # noqa: E731
        yield from refuses(call, ValueError, f"aggregation='{way}'")


def extremes(subject: Subject) -> Iterator[str]:
    """Silence, full-scale square waves, offsets, clicks and near silence give finite values."""
    samples = subject.samples
    silence = torch.zeros(1, samples, device=subject.model.device)
    click = silence.clone()
    click[0, samples // 2] = 1.0
    square = torch.where(torch.arange(samples, device=silence.device) // 50 % 2 == 0, 1.0, -1.0)
    signals = {
        "silence": silence,
        "a full-scale square wave": square.unsqueeze(0),
        "a constant offset of 1": silence + 1.0,
        "a single click": click,
        "noise at -140 dB": 1e-7 * subject.clips(1),
    }
    for name, x in signals.items():
        for what, values in (("embedding", subject.embed(x)), ("forward", subject.output(x))):
            if not values.isfinite().all():
                yield f"{name} gives values that are not finite ({what})"


def short(subject: Subject) -> Iterator[str]:
    """Clips of any length give finite values, or a `ValueError` that states a length that works."""
    for samples in (1, 16, 160, 400, 512, 800, 2048):
        if samples > subject.samples:
            break
        try:
            values = subject.embed(subject.clips(1, samples))
        except ValueError as error:
            if not _states_minimum(subject, str(error), samples):
                yield f"a clip of {samples} samples is refused without the least number that works: {error}"
                return
            continue
        except Exception as error:  # noqa: BLE001 - the wrong error is a finding
            yield f"a clip of {samples} samples must work or raise ValueError, not {type(error).__name__}: {error}"
            return
        if not values.isfinite().all():
            yield f"a clip of {samples} samples gives values that are not finite"
    empty = torch.zeros(1, 0, device=subject.model.device)
    yield from refuses(lambda: subject.embed(empty), ValueError, "a clip without samples")


def _states_minimum(subject: Subject, message: str, samples: int) -> bool:
    for number in map(int, re.findall(r"\d+", message)):
        if samples < number <= subject.samples:
            try:
                return bool(subject.embed(subject.clips(1, number)).isfinite().all())
            except ValueError:
                continue
    return False
