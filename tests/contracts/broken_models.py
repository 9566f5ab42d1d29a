"""A model that keeps every rule of `check_model`, and models that break one rule each."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import nn

from avex.configs import AudioConfig
from avex.models.base_model import ModelBase
from avex.models.features import Features, TokenLayout

HOP = 80


class Good(ModelBase):
    """Ten milliseconds to a token, twice."""

    layout = TokenLayout("tokens", frame_rate=100.0)

    def __init__(self, return_features_only=False):
        audio = AudioConfig(sample_rate=8000, representation="raw", target_length_seconds=0.5)
        super().__init__(audio_config=audio, return_features_only=return_features_only)
        self.first = nn.Linear(HOP, 6)
        self.second = nn.Linear(6, 6)
        self.classifier = nn.Linear(6, 2)

    def frames(self, x):
        if x.ndim != 2 or x.shape[1] < HOP:
            raise ValueError(f"A clip needs at least {HOP} samples, not {tuple(x.shape)}.")
        return x.unfold(1, HOP, HOP)

    def network(self, frames):
        return self.second(torch.tanh(self.first(frames)))

    def forward_features(self, x, padding_mask=None):
        return Features(self.network(self.frames(x)), self.layout)

    def get_embedding_dim(self):
        return 6

    def get_model_layers(self):
        return ["first", "second"]


class GoodMasked(Good):
    padding_rule = "masked"

    def forward_features(self, x, padding_mask=None):
        mask = None if padding_mask is None else padding_mask.unfold(1, HOP, HOP).any(-1)
        return Features(self.network(self.frames(x)), self.layout, mask)


class GoodWithBatchNorm(Good):
    """Running statistics change in training, as they should."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def network(self, frames):
        return self.norm(super().network(frames).transpose(1, 2)).transpose(1, 2)


class OnlyForward(ModelBase):
    """The least that a class of a user's own has."""

    def __init__(self, device="cpu", num_classes=3):
        super().__init__(audio_config=AudioConfig(sample_rate=8000, target_length_seconds=0.5))
        self.conv = nn.Conv1d(1, 4, HOP, HOP)
        self.middle = nn.Linear(4, 5)
        self.head = nn.Linear(5, num_classes)

    def forward(self, x):
        if x.shape[1] < HOP:
            raise ValueError(f"A clip needs at least {HOP} samples, not {x.shape[1]}.")
        return self.head(self.middle(self.conv(x.unsqueeze(1)).relu().mean(2)))


class OnlyOutput(ModelBase):
    """One linear map, which is its classifier: no layers to choose."""

    def __init__(self):
        super().__init__(audio_config=AudioConfig(sample_rate=8000, target_length_seconds=0.5))
        self.classifier = nn.Linear(HOP, 3)

    def forward(self, x, padding_mask=None):
        if x.shape[1] < HOP:
            raise ValueError(f"A clip needs at least {HOP} samples, not {x.shape[1]}.")
        return self.classifier(x.unfold(1, HOP, HOP).mean(1))


# -- one rule each -----------------------------------------------------------------------------------------


class CentredOnBatch(Good):
    def frames(self, x):
        frames = super().frames(x)
        return frames - frames.mean(0)


class ScaledByLoudestOfBatch(Good):
    def frames(self, x):
        return super().frames(x / (x.abs().amax() + 1e-6))


class WrongDim(Good):
    def get_embedding_dim(self):
        return 7


class NanOnSilence(Good):
    def frames(self, x):
        return super().frames(x) / x.std(1)[:, None, None]


class GhostLayers(Good):
    def get_model_layers(self):
        return ["first", "encoder.layers.11"]


class LeavesHooks(Good):
    def embed(self, x, layers=("last_layer",), aggregation="mean", padding_mask=None):
        self.first.register_forward_hook(lambda *_: None)
        return super().embed(x, layers, aggregation, padding_mask)

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return LeavesHooks, ()


class DropoutInEval(Good):
    def network(self, frames):
        return F.dropout(super().network(frames), 0.1, training=True)


class CountsCalls(Good):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward_features(self, x, padding_mask=None):
        self.calls += 1
        return super().forward_features(x)


class ForgetsMode(Good):
    def embed(self, x, layers=("last_layer",), aggregation="mean", padding_mask=None):
        self.eval()
        return super().embed(x, layers, aggregation, padding_mask)


class SwitchesGradientsOff(Good):
    def get_embedding_dim(self):
        torch.set_grad_enabled(False)
        return 6


class CutsGradients(Good):
    def network(self, frames):
        return super().network(frames).detach()


class TwoThirdsFrozen(Good):
    def __init__(self):
        super().__init__()
        self.unused = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))


class NotInStateDict(Good):
    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        return {key: value for key, value in state.items() if not key.startswith("second")}

    def load_state_dict(self, state, strict=True, assign=False):
        return super().load_state_dict(state, strict=False)


class HoldsLambda(Good):
    def __init__(self):
        super().__init__()
        self.activation = lambda x: x


class CopiesForget(Good):
    def __deepcopy__(self, memo):
        torch.manual_seed(1)
        return CopiesForget().eval()


class SharedScratch(Good):
    """Keeps the clip on itself while it runs."""

    def network(self, frames):
        self.current = frames
        hidden = torch.tanh(self.first(frames))
        return self.second(hidden + self.current.mean(-1, keepdim=True))


class Deaf(Good):
    def frames(self, x):
        return torch.ones_like(super().frames(x))


class DoublePrecision(Good):
    def forward_features(self, x, padding_mask=None):
        features = super().forward_features(x)
        return Features(features.values.double(), self.layout)

    def forward_head(self, features):
        return self.classifier(features.pooled().float())


class LogitsOfEveryFrame(Good):
    def forward_head(self, features):
        return self.classifier(features.values)


class MeanForMax(Good):
    def embed(self, x, layers=("last_layer",), aggregation="mean", padding_mask=None):
        return super().embed(x, layers, "mean" if aggregation == "max" else aggregation, padding_mask)


class ClaimsToMask(Good):
    padding_rule = "masked"


class MasksInSecret(GoodMasked):
    padding_rule = "none"


class UnknownPaddingRule(Good):
    padding_rule = "sometimes"


class NanWhenAllIsPadding(GoodMasked):
    padding_rule = "leaks"

    def forward_features(self, x, padding_mask=None):
        values = self.network(self.frames(x))
        if padding_mask is not None:
            keep = (~padding_mask).unfold(1, HOP, HOP).all(-1, keepdim=True)
            values = (values * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True)
        return Features(values, self.layout)


class CrashesOnShort(Good):
    def frames(self, x):
        return x.unfold(1, HOP, HOP)


class StatesWrongMinimum(Good):
    def frames(self, x):
        if x.shape[1] < HOP:
            raise ValueError("A clip needs at least 30 samples.")
        return x.unfold(1, HOP, HOP)


class TwoAnswers(Good):
    def embed_and_classify(self, x, padding_mask=None, aggregation="mean"):
        embedding, logits = super().embed_and_classify(x, padding_mask, aggregation)
        return embedding, logits.softmax(-1)


class OneAtATime(Good):
    """A lock is a clumsy but correct way to be safe with threads."""

    def __init__(self):
        super().__init__()
        self.__dict__["_lock"] = threading.Lock()

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.__dict__["_lock"] = threading.Lock()

    def network(self, frames):
        with self.__dict__["_lock"]:
            return super().network(frames)
