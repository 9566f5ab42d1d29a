"""From a waveform to a network's input; each front end is an `nn.Module` and runs on whole batches.

Everything here needs torch and loads with its first use; importing the package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.frontends.atst import AtstFrontEnd
    from avex.frontends.base import FrontEnd
    from avex.frontends.beats import BeatsFrontEnd
    from avex.frontends.birdmae import BirdMaeFrontEnd
    from avex.frontends.eat import EatFrontEnd
    from avex.frontends.effnet import EfficientNetFrontEnd
    from avex.frontends.kaldi import KaldiFbank
    from avex.frontends.resnet import ResNetFrontEnd
    from avex.frontends.spectrogram import SpectrogramFrontEnd

_LAZY = {
    "AtstFrontEnd": "atst",
    "BeatsFrontEnd": "beats",
    "BirdMaeFrontEnd": "birdmae",
    "EatFrontEnd": "eat",
    "EfficientNetFrontEnd": "effnet",
    "FrontEnd": "base",
    "KaldiFbank": "kaldi",
    "ResNetFrontEnd": "resnet",
    "SpectrogramFrontEnd": "spectrogram",
}

__all__ = [
    "AtstFrontEnd",
    "BeatsFrontEnd",
    "BirdMaeFrontEnd",
    "EatFrontEnd",
    "EfficientNetFrontEnd",
    "FrontEnd",
    "KaldiFbank",
    "ResNetFrontEnd",
    "SpectrogramFrontEnd",
]


__getattr__ = lazy_names(__name__, _LAZY)
