"""`check_frontend`: does a front end do what models and pipelines rely on?"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from avex.frontends.base import FrontEnd
from avex.testing.report import ConformanceError, Rule, refuses, run_rules
from avex.testing.subject import SAME, difference


@dataclass(frozen=True)
class FrontEndSubject:
    """A front end under test.

    Attributes:
        frontend: The front end.
        samples: Length of the clips to test with.
        rtol: How far a clip's values may change with its neighbours, relative to their root mean square.
    """

    frontend: FrontEnd
    samples: int
    rtol: float

    def clips(self, count: int) -> Tensor:
        """(count, samples) noise of falling level; the same on every call."""
        noise = torch.randn(count, self.samples, generator=torch.Generator().manual_seed(0))
        return 0.2 * noise / (1 + torch.arange(count).unsqueeze(1))

    def run(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What `forward` returns, without gradients."""
        with torch.no_grad():
            return self.frontend(x, mask)


def _facts(subject: FrontEndSubject) -> Iterator[str]:
    """Sample rate, hop and shortest clip are positive; the frame rate follows from them."""
    frontend = subject.frontend
    for name in ("sample_rate", "hop_length", "min_samples"):
        value = getattr(frontend, name)
        if not isinstance(value, int) or value < 1:
            yield f"{name} must be a positive int, not {value!r}"
    if abs(frontend.frame_rate - frontend.sample_rate / frontend.hop_length) > 1e-9:
        yield "frame_rate must be sample_rate / hop_length"


def _output(subject: FrontEndSubject) -> Iterator[str]:
    """(input, mask): float32, finite, batch first, with as many frames as `num_frames` says."""
    frontend = subject.frontend
    lengths = sorted({frontend.min_samples, frontend.min_samples + 1, subject.samples // 2, subject.samples})
    for samples in (length for length in lengths if length >= frontend.min_samples):
        values, mask = subject.run(subject.clips(2)[:, :samples])
        heard = 1 + (samples - frontend.min_samples) // frontend.hop_length
        if mask is not None and mask[:, :heard].any():
            yield "without a mask only frames that the front end itself added may be masked"
        if values.dtype != torch.float32 or len(values) != 2:
            yield f"the input must be float32 with the batch first, not {values.dtype} {tuple(values.shape)}"
        if frontend.num_frames(samples) not in values.shape[1:]:
            yield (
                f"num_frames({samples}) says {frontend.num_frames(samples)}, but the input is {tuple(values.shape)}"
            )
        if not values.isfinite().all():
            yield f"noise of {samples} samples gives values that are not finite"


def _mask(subject: FrontEndSubject) -> Iterator[str]:
    """A mask in gives (B, frames) bool or None out; what is not padding stays unmasked."""
    x = subject.clips(2)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask[1, subject.samples // 2 :] = True
    frames = subject.run(x, mask)[1]
    if frames is None:
        return
    if frames.dtype != torch.bool or tuple(frames.shape) != (2, subject.frontend.num_frames(subject.samples)):
        yield f"the frame mask must be (B, frames) bool, not {tuple(frames.shape)} {frames.dtype}"
        return
    if not frames[1].sum() > frames[0].sum():
        yield "a clip whose second half is padding must have more masked frames than one without padding"
    if frames[1, 0]:
        yield "the first frame of a clip that begins with audio must not be masked"


def _batch(subject: FrontEndSubject) -> Iterator[str]:
    """A clip's values do not depend on the other clips of its batch."""
    clips = subject.clips(2)
    together = subject.run(torch.cat([clips, torch.zeros_like(clips[:1]), clips[:1].sign()]))[0]
    for index in range(2):
        off = difference(together[index : index + 1], subject.run(clips[index : index + 1])[0])
        if off > subject.rtol:
            yield f"a clip changes by {off:.2g} (relative) with its neighbours; at most {subject.rtol:g} is allowed"
            return


def _extremes(subject: FrontEndSubject) -> Iterator[str]:
    """Silence, offsets and full-scale square waves give finite values."""
    silence = torch.zeros(1, subject.samples)
    square = torch.where(torch.arange(subject.samples) // 50 % 2 == 0, 1.0, -1.0).unsqueeze(0)
    for name, x in (("silence", silence), ("a constant offset of 1", silence + 1), ("a square wave", square)):
        if not subject.run(x)[0].isfinite().all():
            yield f"{name} gives values that are not finite"


def _precision(subject: FrontEndSubject) -> Iterator[str]:
    """Everything is computed in float32: in a half-precision model, under autocast, on half-precision audio."""
    x = subject.clips(2)
    expected = subject.run(x)[0]
    twin = FrontEndSubject(copy.deepcopy(subject.frontend).to(torch.bfloat16), subject.samples, subject.rtol)
    if difference(twin.run(x)[0].float(), expected) > SAME:
        yield "converting it to bfloat16 changes its values: keep constants in avex.frontends.base.Constant"
    with torch.autocast("cpu", torch.bfloat16):
        if difference(subject.run(x)[0].float(), expected) > SAME:
            yield "autocast changes its values"
    if subject.run(x.to(torch.bfloat16))[0].dtype != torch.float32:
        yield "bfloat16 audio must give float32 values"


def _state(subject: FrontEndSubject) -> Iterator[str]:
    """It repeats itself, a copy does the same, and constants stay out of the state dict."""
    x = subject.clips(2)
    expected = subject.run(x)[0]
    if difference(subject.run(x)[0], expected) > SAME:
        yield "a second call gives other values"
    if difference(copy.deepcopy(subject.frontend)(x)[0].detach(), expected) > SAME:
        yield "a copy made with copy.deepcopy gives other values"
    fixed = [name for name, _ in subject.frontend.named_buffers() if name in subject.frontend.state_dict()]
    if fixed:
        yield f"constants are in the state dict, so published weights would not fit: {', '.join(fixed[:5])}"


def _refusals(subject: FrontEndSubject) -> Iterator[str]:
    """Wrong shapes, integers, short clips and masks that do not fit are refused."""
    frontend, x = subject.frontend, subject.clips(1)
    yield from refuses(lambda: frontend(x[0]), ValueError, "a waveform without a batch axis")
    yield from refuses(lambda: frontend(x.long()), TypeError, "an integer waveform")
    yield from (
        refuses(
            lambda: frontend(x[:, : frontend.min_samples - 1]),
            ValueError,
            "a clip shorter than min_samples",
            [str(frontend.min_samples)],
        )
        if frontend.min_samples > 1
        else ()
    )
    yield from refuses(lambda: frontend(x, x), TypeError, "a mask that is not bool")
    yield from refuses(lambda: frontend(x, x[:, 1:] > 0), ValueError, "a mask of another shape")


FRONTEND_RULES: dict[str, Rule[FrontEndSubject]] = {
    "facts": _facts,
    "output": _output,
    "mask": _mask,
    "batch": _batch,
    "extremes": _extremes,
    "precision": _precision,
    "state": _state,
    "refusals": _refusals,
}
"""All rules by name; the docstring of each says what it demands."""


def check_frontend(
    frontend: FrontEnd,
    *,
    seconds: float = 1.0,
    rtol: float = 1e-5,
    rules: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Check a front end against every rule and report all that it breaks.

    Args:
        frontend: The front end, on the CPU.
        seconds: Length of the clips to test with.
        rtol: How far a clip's values may change with its neighbours, relative to their root mean square.
        rules: Names of rules (`FRONTEND_RULES`) to check; None checks all.
        skip: Names of rules to leave out.

    Raises:
        ConformanceError: Rules are broken; the message lists each in words.
        UnknownNameError: No such rule.

    Example:
        >>> from avex.frontends import EatFrontEnd
        >>> check_frontend(EatFrontEnd())
    """
    name = type(frontend).__name__
    if not isinstance(frontend, FrontEnd):
        text = f"{name} is not derived from avex.frontends.FrontEnd"
        raise ConformanceError("The front end", [("facts", text)], 1)
    samples = max(round(seconds * frontend.sample_rate), 2 * frontend.min_samples)
    run_rules(
        f"Front end {name}", FRONTEND_RULES, lambda: FrontEndSubject(frontend, samples, rtol), rules, skip
    )
