"""What is peculiar to EAT, Bird-MAE and ATST-Frame one by one: pooling, padding, constants, chunks."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import avex
from avex._core.errors import ConfigError, UnknownNameError
from avex.models.atst_frame.model import AtstFrame
from avex.models.birdmae.model import BirdMae
from avex.models.eat.checkpoint import config_of, export_state
from avex.models.eat.config import EatConfig
from avex.models.eat.model import Eat
from avex.models.utils.registry import find_card

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2}
SHORT = {**TINY, "target_length": 128, "max_length": 16}


def noise(batch, samples, seed=0):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def eat(**options):
    torch.manual_seed(0)
    return Eat(eat_cfg={**SHORT, **options.pop("eat_cfg", {})}, **options).eval()


@torch.no_grad()
def test_pooling_of_the_classifier():
    wave = noise(2, 16000)
    for pooling in ("cls", "mean"):
        model = eat(num_classes=3, pooling=pooling)
        tokens = model.forward_features(wave).values
        pooled = tokens[:, 0] if pooling == "cls" else tokens.mean(1)
        torch.testing.assert_close(model(wave), model.classifier(pooled))
    with pytest.raises(ConfigError, match="'max'"):
        eat(pooling="max")


@torch.no_grad()
def test_the_norm_before_the_head_stays_out_of_the_features():
    wave = noise(1, 16000)
    model = eat(num_classes=3, eat_cfg={"head_norm": True})
    torch.nn.init.constant_(model.backbone.fc_norm.weight, 2.0)
    tokens = model.forward_features(wave).values
    torch.testing.assert_close(model(wave), model.classifier(model.backbone.fc_norm(tokens[:, 0])))
    assert model.backbone.fc_norm.eps == 1e-5
    torch.testing.assert_close(eat(return_features_only=True)(wave).shape, tokens.shape)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mask_padding", "handle_padding"])
def test_masked_padding_is_as_if_it_were_not_there(name):
    model = eat(num_classes=3, pooling="mean", **{name: True})
    clip = noise(1, 9000)
    batch = torch.cat([torch.nn.functional.pad(clip, (0, 7000), value=0.3), noise(1, 16000, seed=1)])
    mask = torch.zeros(batch.shape, dtype=torch.bool)
    mask[0, 9000:] = True
    alone, together = model.forward_features(clip), model.forward_features(batch, mask)
    steps = -(-(1 + (9000 - 400) // 160) // 16)
    assert (~together.padding_mask[0]).sum() == steps * 8
    torch.testing.assert_close(together.values[0, : 1 + steps * 8], alone.values[0, : 1 + steps * 8])
    torch.testing.assert_close(together.pooled()[0], alone.pooled()[0])
    torch.testing.assert_close(model(batch, mask)[0], model(clip)[0])
    # The CLS token counts in the head's mean, as it does without a mask.
    kept = together.values[0, : 1 + steps * 8]
    torch.testing.assert_close(model(batch, mask)[0], model.classifier(kept.mean(0)))


@torch.no_grad()
def test_masking_changes_nothing_where_nothing_is_padded():
    plain, masking = eat(num_classes=3), eat(num_classes=3, mask_padding=True)
    masking.load_state_dict(plain.state_dict())
    clip = noise(2, 400 + 160 * (plain.config.target_length - 1))
    got = masking.forward_features(clip, torch.zeros_like(clip, dtype=torch.bool))
    assert not got.padding_mask.any()
    torch.testing.assert_close(got.values, plain.forward_features(clip).values, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_clip_that_is_padding_throughout_is_finite():
    model = eat(num_classes=3, mask_padding=True)
    assert model(torch.zeros(1, 16000), torch.ones(1, 16000).bool()).isfinite().all()


def test_constants_of_a_card_reach_the_front_end():
    for name, mean, std in (
        ("esp_aves2_eat_all", -5.553, 4.606),
        ("esp_aves2_eat_bio", -5.553, 4.606),
        ("esp_aves2_sl_eat_all_ssl_all", -5.553, 4.606),
        ("esp_aves2_sl_eat_bio_ssl_all", -5.553, 4.606),
        ("eat_base_pretrain", -4.268, 4.569),
        ("eat_base_finetune_as2m", -4.268, 4.569),
    ):
        model = avex.build_model(name, device="cpu", eat_cfg=SHORT)
        assert (model.frontend.norm_mean, model.frontend.norm_std) == (mean, std)
    own = avex.build_model("esp_aves2_eat_all", device="cpu", eat_cfg=SHORT, eat_norm_mean=-7.343)
    assert (own.frontend.norm_mean, own.frontend.norm_std) == (-7.343, 4.606)


def test_settings_of_eat():
    assert EatConfig.from_options(model_id="worstchan/EAT-base_epoch30_pretrain") == EatConfig()
    with pytest.raises(ConfigError, match="target_length"):
        Eat(eat_cfg=SHORT, target_length=100)
    with pytest.raises(ConfigError, match="target_length"):
        Eat(eat_cfg=SHORT, target_length=272)
    with pytest.raises(ConfigError, match="pretraining_mode"):
        Eat(eat_cfg=SHORT, pretraining_mode=True)


def test_heads_that_a_fairseq_checkpoint_states(tmp_path):
    model = eat(return_features_only=True)
    state = export_state(model.state_dict(), "fairseq")
    state["modality_encoders.IMAGE.decoder.proj.weight"] = torch.ones(2)
    saved = {"cfg": {"model": {"num_heads": 2}}, "model": {**state, "_ema": {"blocks.0.x": torch.ones(1)}}}
    torch.save(saved, tmp_path / "eat.pt")
    loaded = avex.load_model("eat", checkpoint_path=tmp_path / "eat.pt", target_length=128)
    with torch.no_grad():
        assert torch.equal(loaded(noise(1, 16000)), model(noise(1, 16000)))
    assert set(loaded.load_report.ignored) == {
        "_ema.blocks.0.x",
        "modality_encoders.IMAGE.decoder.proj.weight",
    }
    assert config_of({"cfg": {"model": {"num_heads": "many"}}}, {}) == {"head_norm": False}
    with pytest.raises(UnknownNameError, match="fairseq_finetuned"):
        avex.load_model("eat", checkpoint_path=tmp_path / "eat.pt", checkpoint_format="fairsek")


def test_a_fine_tuned_checkpoint_brings_its_norm(tmp_path):
    model = eat(num_classes=5, eat_cfg={"head_norm": True})
    save_file(export_state(model.state_dict(), "huggingface"), tmp_path / "eat.safetensors")
    options = {"eat_cfg": {"num_heads": 2, "target_length": 128}}
    path = tmp_path / "eat.safetensors"
    loaded = avex.load_model("eat", checkpoint_path=path, **options)
    wave = noise(1, 16000)
    with torch.no_grad():
        assert torch.equal(loaded(wave), model(wave))
        features = avex.load_model("eat", checkpoint_path=path, return_features_only=True, **options)
        assert torch.equal(features(wave), model.forward_features(wave).values)


def test_a_card_that_names_a_published_model_lets_the_file_say_whether_it_has_a_norm():
    card = find_card("eat_base_finetune_as2m")
    stated = {"embed_dim": 8, "head_norm": True}  # a file of another size must not fit, one with a norm must
    config = EatConfig.from_options(card.model_spec.model_id, stated)
    assert (config.embed_dim, config.head_norm) == (768, True)
    assert not EatConfig.from_options(card.model_spec.model_id, {"head_norm": False}).head_norm
    assert not EatConfig.from_options(card.model_spec.model_id).head_norm


@torch.no_grad()
def test_eat_always_gives_513_tokens():
    model = Eat(eat_cfg=TINY, return_features_only=True).eval()
    for seconds in (1, 5, 12):
        assert model(noise(1, 16000 * seconds)).shape == (1, 513, 16)
    features = model.forward_features(noise(1, 80000))
    assert features.sequence().shape == (1, 64, 128)
    assert features.frame_times()[1] == pytest.approx(0.16)


@torch.no_grad()
def test_bird_mae_reads_five_seconds():
    model = BirdMae(config=TINY, return_features_only=True).eval()
    wave = noise(1, 200_000)
    torch.testing.assert_close(model(wave), model(wave[:, :160_000]))
    short = wave[:, :50_000]
    torch.testing.assert_close(model(short), model(torch.nn.functional.pad(short, (0, 110_000))))
    tokens = model.forward_tokens(wave)
    assert tokens.values.shape == (1, 257, 16)
    assert tokens.sequence().shape == (1, 32, 128)
    torch.testing.assert_close(model.embed(wave, aggregation="none"), model(wave))


@torch.no_grad()
def test_atst_chunks_are_seen_one_by_one():
    torch.manual_seed(0)
    model = AtstFrame(config=TINY, return_features_only=True).eval()
    mel = torch.randn(2, 64, 2 * 1001 + 503)
    parts = [model.backbone(part) for part in mel.split(1001, dim=-1)]
    assert [part.shape[1] for part in parts] == [250, 250, 125]
    torch.testing.assert_close(model.backbone(mel), torch.cat(parts, 1))
    # Three frames behind the last chunk fill no patch.
    assert model.backbone(mel[..., : 1001 + 3]).shape[1] == 250


@torch.no_grad()
def test_atst_embeddings():
    torch.manual_seed(0)
    model = AtstFrame(config={**TINY, "depth": 3, "n_blocks": 2}, return_features_only=True).eval()
    wave = noise(2, 16000 * 12)
    features = model.forward_features(wave)
    assert features.values.shape == (2, 300, 32)
    assert features.frame_times()[1] == pytest.approx(0.04)
    torch.testing.assert_close(model(wave), features.values.mean(1))
    torch.testing.assert_close(model.embed(wave, aggregation="none"), features.values)
    chunks = (features.values[:, :250].mean(1) + features.values[:, 250:].mean(1)) / 2
    torch.testing.assert_close(model.scene_embedding(wave), chunks)
    last = model.backbone.norm_frame(model.embed(wave, ["layer_3"], aggregation="none"))
    torch.testing.assert_close(features.values[..., 16:], last)


@pytest.mark.parametrize(
    ("name", "sample_rate", "dim"),
    [
        ("eat_base_pretrain", 16000, 768),
        ("eat_base_finetune_as2m", 16000, 768),
        ("birdmae_base", 32000, 768),
        ("birdmae_large", 32000, 1024),
        ("birdmae_huge", 32000, 1280),
        ("atst_frame_small", 16000, 4608),
        ("atst_frame_base", 16000, 9216),
    ],
)
def test_cards(name, sample_rate, dim):
    card = find_card(name)
    assert card.embedding_dim == dim
    assert card.model_spec.audio_config.sample_rate == sample_rate
    assert all([card.license, card.paper, card.citation])
    assert card.checkpoint_path is not None or "checkpoint_path" in card.description
