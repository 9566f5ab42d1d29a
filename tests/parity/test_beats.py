"""BEATs against values of the published programs, through real files of every published layout."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import avex
from avex.models.beats.relative_position import relative_buckets
from avex.models.layers import tap_layers
from avex.models.utils.registry import resolve

_SPEC = importlib.util.spec_from_file_location("published", Path(__file__).with_name("published.py"))
published = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)
clip, batch, error = published.clip, published.batch, published.error

TOLERANCE = 1e-4
TINY, BASE = published.Published("beats", "beats_tiny"), published.Published("beats", "beats_base")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def load_tiny(folder, layout, **options):
    path = TINY.write(layout, folder, **({"cfg": TINY.config} if layout == "microsoft_pt" else {}))
    # A file without `cfg` does not say how far its positions reach.
    settings = {} if layout == "microsoft_pt" else {"init_config": TINY.config}
    return avex.load_model("beats", checkpoint_path=path, device="cpu", **settings, **options)


def tapped(model, x, mask=None):
    names = model.get_model_layers()
    with tap_layers(model, names) as taps:
        model.forward_features(x, mask)
    return [taps[name] for name in names]


@pytest.mark.parametrize("layout", TINY.layouts)
def test_tiny(layout, tmp_path):
    model = load_tiny(tmp_path, layout)
    x, mask = batch(clip("golden_d", 2), clip("golden_c", 1))
    features, masked = model.forward_features(x), model.forward_features(x, mask)
    assert torch.equal(model(x), features.values)
    assert error(features.values, TINY["features"]) < TOLERANCE
    assert error(masked.values, TINY["masked_features"]) < TOLERANCE
    assert torch.equal(masked.padding_mask, TINY["masked_token_mask"])
    assert error(model.forward_predictor(features), TINY["predictor_logits"]) < TOLERANCE
    assert error(model.forward_predictor(masked), TINY["predictor_logits_masked"]) < TOLERANCE
    outputs = torch.stack(tapped(model, x)[1:], dim=1)
    assert error(outputs[:, :, ::4], TINY["layers"]) < TOLERANCE


def test_predictor_as_classifier(tmp_path):
    model = load_tiny(tmp_path, "microsoft_pt", checkpoint_format="microsoft_audioset")
    x, mask = batch(clip("golden_d", 2), clip("golden_c", 1))
    assert error(model(x), TINY["predictor_logits"]) < TOLERANCE
    assert error(model(x, mask), TINY["predictor_logits_masked"]) < TOLERANCE


def test_buckets():
    got = relative_buckets(torch.arange(-1200, 1201), num_buckets=320, max_distance=800)
    assert torch.equal(got.int(), BASE["bucket_of_relpos"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beats")
    path = BASE.write("avex_sl_beats_safetensors", folder)
    settings = resolve("esp_aves2_sl_beats_all").model_spec.init_config
    model = avex.load_model("beats", checkpoint_path=path, init_config=settings)
    path.unlink()
    return model


@pytest.mark.slow
class TestBase:
    def test_features(self, base):
        x, mask = batch(clip("golden_b", 10), clip("golden_a", 5))
        features = base.forward_features(x)
        assert error(features.values[:, ::24, ::2], BASE["features"]) < TOLERANCE
        assert error(published.row_statistics(features.values), BASE["features.rowstats"]) < TOLERANCE
        assert error(base.forward_predictor(features), BASE["predictor_logits"]) < TOLERANCE
        masked = base.forward_features(x, mask)
        assert torch.equal(masked.padding_mask, BASE["masked_token_mask"])
        assert error(masked.values[:, ::24, ::2], BASE["masked_features"]) < TOLERANCE
        assert error(published.row_statistics(masked.values), BASE["masked_features.rowstats"]) < TOLERANCE
        assert error(base.forward_predictor(masked), BASE["predictor_logits_masked"]) < TOLERANCE

    def test_layers(self, base):
        x, mask = batch(clip("golden_b", 10), clip("golden_a", 5))
        names = ["backbone.post_extract_proj", "backbone.encoder.pos_conv"]
        with tap_layers(base, names) as taps:
            outputs = torch.stack([y.mean(1) for y in tapped(base, x)[1:]], dim=1)
        assert error(taps[names[0]][:, ::31, ::4], BASE["post_extract_proj"]) < TOLERANCE
        assert error(taps[names[1]][:, ::31, ::4], BASE["pos_conv"]) < TOLERANCE
        assert error(outputs, BASE["layer_mean"]) < TOLERANCE
        outputs = torch.stack([y.mean(1) for y in tapped(base, x, mask)[1:]], dim=1)
        assert error(outputs, BASE["masked_layer_mean"]) < TOLERANCE

    def test_classifier_and_older_layers(self, base):
        x, mask = batch(clip("golden_b", 10), clip("golden_a", 5))
        assert error(base(x), BASE["logits"]) < TOLERANCE
        assert error(base(x, mask), BASE["masked_logits"]) < TOLERANCE
        older = base.embed(x, layers=BASE.meta["avex_all_layers"])
        assert error(older[:, ::3], BASE["avex_extract_all_mean"]) < TOLERANCE

    def test_one_second(self, base):
        x = clip("golden_c", 1)[None]
        assert error(base.forward_features(x).values[0], BASE["features_1s"]) < TOLERANCE
        assert (
            error(torch.stack([y[0].mean(0) for y in tapped(base, x)[1:]]), BASE["layer_mean_1s"]) < TOLERANCE
        )
        plain = base.forward_features(8 * x).values[0]
        assert error(plain[::4, ::4], BASE["plain_features_1s_x8"]) < TOLERANCE

    @pytest.mark.parametrize("layout", BASE.layouts)
    def test_every_layout(self, layout, base, tmp_path):
        extra = {"cfg": {**BASE.config, "finetuned_model": "finetuned" in layout}}
        if layout == "avex_1.4_wrapper":  # what its state dict holds beside parameters
            extra = {
                "backbone.fbank.window": torch.zeros(400),
                "backbone.fbank.mel_fb": torch.zeros(257, 128),
            }
        if layout == "microsoft_pt_finetuned":
            extra["label_dict"] = {0: "/m/09x0r"}
        path = BASE.write(layout, tmp_path, **extra)
        natural = layout == "avex_naturelm_safetensors"
        card = "beats_naturelm" if natural else "beats"
        model = avex.load_model(card, checkpoint_path=path, device="cpu", return_features_only=True)
        path.unlink()
        x = clip("golden_c", 1)[None]
        assert torch.equal(model(x), base.forward_features(x).values)
        if natural:
            assert error(model(8 * x)[0, ::2], BASE["naturelm_features_1s_x8"]) < TOLERANCE

    def test_lower_precision(self, base):
        x = torch.stack([clip(name, 10) for name in ("golden_b", "golden_e")])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = base.embed(x)
        cosine = torch.cosine_similarity(low.float(), base.embed(x))
        assert cosine.min() > 0.999
