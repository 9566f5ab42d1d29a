"""Rules about the state of a model: modes, gradients, state dicts, copies, threads."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from avex.testing.subject import SAME, Subject, difference, flags, preserved, snapshot


def repeatable(subject: Subject) -> Iterator[str]:
    """In eval mode the same clip gives the same embedding, and nothing of the model changes."""
    model, x = subject.model, subject.clips(2)
    before = snapshot(model)
    first = subject.embed(x)
    if (off := difference(subject.embed(x), first)) > SAME:
        yield f"in eval mode a second call differs by {off:.2g} (relative): dropout or other chance is at work"
    after = snapshot(model)
    if any(not _same(a, b) for a, b in zip(before, after, strict=True)):
        yield "embedding in eval mode changes parameters or buffers"


def gradients(subject: Subject) -> Iterator[str]:
    """In training mode gradients reach the parameters, through `embed` and through `forward`."""
    model = subject.model
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return
    for what, call in (("embed", model.embed), ("forward", model)):
        with preserved(model):
            torch.manual_seed(0)
            model.train()
            model.zero_grad(set_to_none=True)
            values = call(subject.clips(2))
            if not values.requires_grad:
                yield from (
                    [] if _only_head(model) else [f"{what} is cut off from the parameters in training mode"]
                )
                continue
            # Weighted at random: the plain sum of what a norm puts out has no gradient.
            (values * torch.randn(values.shape).to(values)).sum().backward()
            yield from _reached(model, what)


def _only_head(model: nn.Module) -> bool:
    """Whether all that can be trained is a classifier on a frozen graph."""
    prefixes = getattr(model, "head_prefixes", ())
    return all(name.startswith(tuple(prefixes)) for name, _ in model.named_parameters())


def _reached(model: nn.Module, what: str) -> Iterator[str]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = [parameter.grad for parameter in trained if parameter.grad is not None]
    if any(not grad.isfinite().all() for grad in grads):
        yield f"gradients through {what} are not finite"
    reached = sum(bool(grad.any()) for grad in grads)
    if 2 * reached < len(trained) - _head_size(model):
        yield f"gradients through {what} reach only {reached} of {len(trained)} parameters"


def _head_size(model: nn.Module) -> int:
    prefixes = tuple(getattr(model, "head_prefixes", ()))
    return sum(name.startswith(prefixes) for name, _ in model.named_parameters()) if prefixes else 0


def modes(subject: Subject) -> Iterator[str]:
    """`embed`, `forward` and `get_embedding_dim` leave training and gradient mode as they found them."""
    model, x = subject.model, subject.clips(2)
    calls: dict[str, Any] = {
        "embed": lambda: model.embed(x),
        "forward": lambda: model(x),
        "get_embedding_dim": model.get_embedding_dim,
    }
    for name, call in calls.items():
        for training in (True, False):
            with preserved(model), torch.set_grad_enabled(training):
                model.train(training)
                before = flags(model)
                call()
                mode = "training" if training else "eval"
                if flags(model) != before:
                    yield f"{name} does not restore the {mode} mode of the model"
                if torch.is_grad_enabled() != training:
                    yield f"{name} switches gradients {'off' if training else 'on'} for the caller"


def state_dict(subject: Subject) -> Iterator[str]:
    """Saving and loading the state dict brings every value back, and it holds nothing but tensors."""
    model, x = subject.model, subject.clips(2)
    expected = subject.embed(x)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, map_location=model.device, weights_only=True)
    with preserved(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        model.load_state_dict(saved)
        restored = model.state_dict()
        if wrong := [name for name in saved if not _same(restored[name], saved[name])]:
            yield f"load_state_dict does not bring back: {', '.join(wrong[:5])}"
        if (off := difference(subject.embed(x), expected)) > SAME:
            yield (
                f"after load_state_dict(state_dict()) embeddings differ by {off:.2g} (relative): "
                "something that matters is not in the state dict"
            )


def copies(subject: Subject) -> Iterator[str]:
    """`copy.deepcopy` and `pickle` work and give a model with the same embeddings."""
    expected = subject.embed(subject.clips(2))
    ways: dict[str, Any] = {
        "copy.deepcopy": copy.deepcopy,
        "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    }
    for name, way in ways.items():
        try:
            twin = way(subject.model)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a finding
            yield f"{name} fails with {type(error).__name__}: {error}"
            continue
        with torch.no_grad():
            off = difference(twin.embed(subject.clips(2)), expected)
        if off > SAME:
            yield f"a copy made with {name} gives other embeddings, by {off:.2g} (relative)"


def threads(subject: Subject, repeats: int = 3) -> Iterator[str]:
    """Two threads that embed with one model at the same time get what each gets alone."""
    layer = subject.model.get_model_layers()[:1]
    # Other lengths, where possible, find caches that are shared.
    jobs = [subject.clips(2, seed=1), subject.clips(2, _other_length(subject), seed=2)]
    ways: dict[str, dict[str, Any]] = {"embed": {}}
    if layer:
        ways["embed with layers"] = {"layers": layer}
    for what, options in ways.items():
        alone = [subject.embed(x, **options) for x in jobs]
        results = _together(subject, jobs, options, layer, repeats)
        errors = [result for result in results if isinstance(result, Exception)]
        if errors:
            yield f"{what} from two threads at once raised {type(errors[0]).__name__}: {errors[0]}"
            continue
        tensors = [result for result in results if isinstance(result, Tensor)]
        off = max(difference(result, alone[index % 2]) for index, result in enumerate(tensors))
        if off > subject.rtol:
            yield f"{what} from two threads at once differs from each alone by {off:.2g} (relative)"


def _other_length(subject: Subject) -> int:
    shorter = round(0.7 * subject.samples)
    try:
        subject.embed(subject.clips(1, shorter))
    except ValueError:
        return subject.samples
    return shorter


def _together(
    subject: Subject, jobs: list[Tensor], options: dict[str, Any], meet_at: list[str], repeats: int
) -> list[Tensor | Exception]:
    """Results of both jobs in turn; the threads wait for each other before a layer, so that they do overlap."""
    results: list[Tensor | Exception] = [RuntimeError("a thread did not finish")] * (2 * repeats)
    start, meeting = threading.Barrier(2), threading.Barrier(2)

    def meet(*_: object) -> None:
        # A model that lets one thread in at a time never meets the other: that is fine too.
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=1.0)

    def work(which: int) -> None:
        for turn in range(repeats):
            start.wait(timeout=600.0)
            try:
                results[2 * turn + which] = subject.embed(jobs[which], **options)
            except Exception as error:  # noqa: BLE001 - carried to the caller's thread
                results[2 * turn + which] = error

    modules = dict(subject.model.named_modules())
    handles = [modules[name].register_forward_pre_hook(meet) for name in meet_at]
    workers = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for handle in handles:
            handle.remove()
    return results


def _same(first: Tensor, second: Tensor) -> bool:
    """Equal bit by bit; NaN equals NaN."""
    if first.is_floating_point():
        first, second = first.nan_to_num(), second.nan_to_num()
    return torch.equal(first, second)
