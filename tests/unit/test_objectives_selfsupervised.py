"""Self-supervised objectives: they learn, hide what they hide, and give encoders that load_model reads."""

import copy
import math

import pytest
import torch

import avex
from avex._core.errors import ConfigError
from avex.models.beats import pretraining as beats_parts
from avex.models.birdmae import pretraining as mae_parts
from avex.models.eat import pretraining as eat_parts
from avex.models.hubert.pretraining import masked_forward
from avex.nn.masking import inverse_block_mask, random_mask, span_mask, visible_places
from avex.testing import tiny_card, tiny_model
from avex.testing.tiny_specs import TINY_SPECS
from avex.training.objectives import build_objective, save_encoder

SETTINGS = {
    "eat": {"clones": 4, "decoder_dim": 16, "decoder_groups": 4, "decoder_layers": 2, "ema_start": 0.99},
    "mae": {"decoder_dim": 32, "decoder_layers": 2, "decoder_heads": 4},
    "hubert": {"clusters": 8, "projection_dim": 16},
    "beats": {"codes": 16, "code_dim": 8, "predictor_layers": 1},
}
FAMILY = {"eat": "eat", "mae": "birdmae", "hubert": "hubert", "beats": "beats"}
OBJECTIVES = sorted(SETTINGS)


def _chirps(count: int, rate: int = 16000, seconds: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Rising and falling chirps with harmonics over faint noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * rate)) / rate
    base = 500 + 1500 * torch.rand(count, 1, generator=generator)
    slope = 1500 * (1 - 2 * (torch.arange(count).unsqueeze(1) % 2)) / seconds
    phase = 2 * math.pi * (base * time + slope * time**2 / 2)
    tone = torch.sin(phase) + 0.5 * torch.sin(2 * phase) + 0.25 * torch.sin(3 * phase)
    return 0.3 * tone + 0.01 * torch.randn(count, len(time), generator=generator)


def _build(name: str, **changes):
    torch.manual_seed(0)
    model = tiny_model(FAMILY[name], num_classes=None)
    return build_objective(name, model, {**SETTINGS[name], **changes})


def _batch(objective, count: int = 8, seed: int = 0) -> dict:
    return {"raw_wav": _chirps(count, objective.model.sample_rate, seed=seed)}


@torch.no_grad()
def _held_out(objective, key: str = "loss") -> float:
    """Mean over four masks of clips that training did not see."""
    objective.eval()
    torch.manual_seed(99)
    batch = _batch(objective, 8, seed=77)
    value = torch.stack([objective(batch).logs[key] for _ in range(4)]).mean()
    objective.train()
    return value.item()


def _train(objective, steps: int, lr: float) -> None:
    optimiser = torch.optim.AdamW(objective.parameter_groups(lr, 0.01), betas=(0.9, 0.95))
    objective.train()
    for step in range(1, steps + 1):
        loss = objective(_batch(objective, 8, seed=step)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step(step, steps)


# -- learning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eat", "mae"])
def test_the_loss_falls_on_clips_that_it_did_not_see(name):
    objective = _build(name)
    before = _held_out(objective)
    _train(objective, 20, 3e-3)
    assert _held_out(objective) < 0.7 * before


@pytest.mark.parametrize(("name", "key", "steps"), [("hubert", "masked_loss", 120), ("beats", "loss", 60)])
def test_hidden_labels_are_guessed_better_than_by_their_frequency(name, key, steps):
    objective = _build(name)
    objective.prepare([_batch(objective, 16, seed=1000)])
    before = _held_out(objective, key)
    _train(objective, steps, 3e-3)
    # Who knows how frequent the labels are pays their entropy.
    entropy = math.log(_held_out(objective, "target_perplexity"))
    assert _held_out(objective, key) < min(0.85 * before, 0.98 * entropy)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_trainable_parameter_gets_a_gradient_and_nothing_else(name):
    objective = _build(name).train()
    objective.prepare([_batch(objective, 16)])
    for module in objective.modules():  # so that no layer is left out by chance
        for chance in ("layer_drop", "layerdrop"):
            if hasattr(module, chance):
                setattr(module, chance, 0.0)
    objective(_batch(objective)).loss.backward()
    # Dividing by tokens of equal sums may leave exact zeros; None means that a parameter took no part.
    without = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    surplus = [n for n, p in objective.named_parameters() if not p.requires_grad and p.grad is not None]
    assert (without, surplus) == ([], [])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_seed_gives_the_same_loss(name):
    objective = _build(name).eval()
    objective.prepare([_batch(objective, 16)])
    batch = _batch(objective)
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(objective(batch).loss.item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bfloat16_and_recomputation_change_little_or_nothing(name):
    objective = _build(name)
    objective.prepare([_batch(objective, 16)])
    batch = _batch(objective)
    for module in objective.modules():  # dropout would be drawn anew
        for chance in ("p", "rate", "layer_drop", "layerdrop"):
            if isinstance(getattr(module, chance, None), float):
                setattr(module, chance, 0.0)
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    losses, gradients = [], []
    for low in (False, True, False):
        torch.manual_seed(0)
        objective.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = objective.train()(batch).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in objective.parameters() if p.grad is not None])
        if low:
            objective.model.enable_gradient_checkpointing()
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[2] == losses[0]
    assert all(torch.equal(a, b) for a, b in zip(gradients[0], gradients[2], strict=True))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_goes_on_from_a_state_dict(name):
    objective = _build(name)
    objective.prepare([_batch(objective, 16)])
    _train(objective, 2, 1e-2)
    again = _build(name)
    again.load_state_dict(copy.deepcopy(objective.state_dict()))
    again.prepare([])  # the targets came with the state
    batch = _batch(objective)
    losses = []
    for part in (objective.eval(), again.eval()):
        torch.manual_seed(1)
        losses.append(part(batch).loss.item())
    assert losses[0] == losses[1]


# -- out of the training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_encoders_load_in_the_published_layout(name, tmp_path):
    objective = _build(name)
    objective.prepare([_batch(objective, 16)])
    _train(objective, 2, 1e-2)
    exported = objective.export()
    path = save_encoder(exported, tmp_path / "encoder.safetensors", objective.layout)
    family = exported.name
    options = {k: v for k, v in TINY_SPECS[family].items() if k != "audio_config"}
    loaded = avex.load_model(
        family, checkpoint_path=path, return_features_only=True, device="cpu", pretrained=False, **options
    )
    assert loaded.load_report.layout == objective.layout
    audio = _chirps(3, exported.sample_rate, seed=5)
    with torch.no_grad():
        ours, theirs = exported(audio), loaded(audio)
        objective.eval()
        assert torch.equal(ours, objective.model(audio))
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not exported.training
    assert all(p.requires_grad for p in exported.parameters())


@pytest.mark.parametrize(
    ("family", "layout"),
    [("efficientnet", "torchvision"), ("resnet18", "torchvision"), ("atst_frame", "encoder")],
)
def test_encoders_without_an_objective_have_published_layouts_too(family, layout, tmp_path):
    model = tiny_model(family, num_classes=None)
    path = save_encoder(model, tmp_path / "encoder.safetensors", layout)
    loaded = avex.load_model(tiny_card(family), checkpoint_path=path, return_features_only=True, device="cpu")
    assert loaded.load_report.layout == layout
    audio = _chirps(1, model.sample_rate, seed=5)
    with torch.no_grad():
        torch.testing.assert_close(loaded(audio), model(audio), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_say_which_models_they_train(name):
    with pytest.raises(ConfigError, match="trains"):
        build_objective(name, tiny_model("atst_frame"))
    with pytest.raises(ConfigError, match="classifier"):
        build_objective(name, tiny_model(FAMILY[name], num_classes=3))


# -- hidden is hidden -------------------------------------------------------------------------------------


def _grid_mask(mask: torch.Tensor, rows: int) -> torch.Tensor:
    """Mask of patches (B, rows * 8) as a mask of the pixels of their spectrogram."""
    return mask.view(-1, rows, 8).repeat_interleave(16, 1).repeat_interleave(16, 2)


def _encoded(name: str, objective, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    backbone, places = objective.model.backbone, visible_places(mask)
    if name == "eat":
        return eat_parts.encode_visible(backbone, eat_parts.embed_patches(backbone, image), places)
    if name == "mae":
        return mae_parts.encode_visible(backbone, image, places)
    patches = beats_parts.embed_patches(backbone, image)
    return beats_parts.encode_visible(backbone.encoder, patches, mask, places)


@pytest.mark.parametrize("name", ["eat", "mae", "beats"])
def test_what_is_hidden_does_not_reach_the_encoder(name):
    objective = _build(name).eval()
    rows = {"eat": 8, "mae": 32, "beats": 6}[name]
    image = torch.randn(2, rows * 16, 128)
    mask = inverse_block_mask(2, (rows, 8), 0.3)
    hidden, shown = image.clone(), image.clone()
    hidden[_grid_mask(mask, rows)] = 100.0
    shown[_grid_mask(~mask, rows)] += 1.0
    with torch.no_grad():
        encoded = [_encoded(name, objective, x, mask) for x in (image, hidden, shown)]
    assert torch.equal(encoded[0], encoded[1])
    assert not torch.allclose(encoded[0], encoded[2], atol=1e-3)


def test_hidden_frames_do_not_reach_huberts_transformer():
    objective = _build("hubert").eval()
    features = torch.randn(2, 49, 8)
    mask = span_mask(2, 49)
    changed = torch.where(mask.unsqueeze(-1), 100.0, features)
    backbone, vector = objective.model.backbone, objective.mask_vector
    with torch.no_grad():
        first, second = (masked_forward(backbone, x, mask, vector) for x in (features, changed))
    assert torch.equal(first, second)


def test_with_nothing_hidden_pieces_give_what_the_models_give():
    for name in ("eat", "mae", "beats"):
        objective = _build(name).eval()
        backbone = objective.model.backbone
        rows = {"eat": 8, "mae": 32, "beats": 6}[name]
        image = torch.randn(2, rows * 16, 128)
        nothing = torch.zeros(2, rows * 8, dtype=torch.bool)
        with torch.no_grad():
            whole = backbone.tokens(image) if name == "mae" else backbone(image)
            assert torch.allclose(_encoded(name, objective, image, nothing), whole, atol=1e-5)
    hubert = _build("hubert").eval()
    waveform = torch.randn(2, 16000)
    backbone = hubert.model.backbone
    with torch.no_grad():
        features = backbone.feature_extractor(waveform)
        pieces = masked_forward(backbone, features, torch.zeros(2, 49, dtype=torch.bool), hubert.mask_vector)
        assert torch.allclose(pieces, backbone(waveform), atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_visible_patches_of_beats_have_their_places_in_the_clip(norm_first):
    torch.manual_seed(0)
    changes = {"layer_norm_first": norm_first, "deep_norm": not norm_first}
    model = tiny_model("beats", num_classes=None, init_config=changes)
    encoder = model.backbone.encoder
    patches, mask = torch.randn(3, 64, 24), random_mask(3, 64, 0.75)
    padding = torch.zeros(3, 64, dtype=torch.bool)
    padding[1, 40:] = True
    with torch.no_grad():
        some = beats_parts.encode_visible(encoder, patches, mask, visible_places(mask), padding)
        # The whole transformer, which takes hidden patches for padding.
        whole = encoder(patches, mask | padding)
    seen = ~padding.gather(1, visible_places(mask))
    assert torch.allclose(some[seen], whole[~mask].view(3, 16, 24)[seen], atol=1e-5)


def test_padding_changes_nothing_for_beats():
    objective = _build("beats").eval()
    clip = _chirps(2)
    mask = torch.zeros(2, 16000, dtype=torch.bool)
    mask[:, 12000:] = True
    other = clip.clone()
    other[:, 14000:] = 0.0
    losses = []
    for waveform, padding in [(clip, mask), (other, mask), (clip, None), (other, None)]:
        torch.manual_seed(0)
        losses.append(objective({"raw_wav": waveform, "padding_mask": padding}).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[2] != pytest.approx(losses[3], abs=1e-4)


# -- EAT's teacher ----------------------------------------------------------------------------------------


def test_targets_of_eat_are_normalised_means_of_its_mlps():
    objective = _build("eat").eval()
    image = torch.randn(2, 128, 128)
    backbone = objective.teacher.network
    outputs = []
    for block in backbone.blocks:
        block.mlp.register_forward_hook(lambda *args: outputs.append(args[2][:, 1:]))
    target = eat_parts.teacher_targets(backbone, image, top_k=12)
    assert len(outputs) == 2
    expected = sum(
        (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        for y in outputs
    )
    expected = torch.nn.functional.layer_norm(expected / 2, (16,))
    assert torch.allclose(target, expected, atol=1e-4)
    last = eat_parts.teacher_targets(backbone, image, top_k=1)
    assert not torch.allclose(last, target, atol=1e-2)


def test_the_teacher_follows_after_a_step_only():
    objective = _build("eat", ema_start=0.5, ema_end=0.5)
    student, teacher = objective.model.backbone, objective.teacher.network
    old = teacher.extra_tokens.clone()
    with torch.no_grad():
        student.extra_tokens.add_(1.0)
    objective(_batch(objective)).loss.backward()
    assert torch.equal(teacher.extra_tokens, old)
    assert all(p.grad is None for p in teacher.parameters())
    objective.after_step(1, 10)
    assert torch.allclose(teacher.extra_tokens, old + 0.5)


def test_a_perfect_guess_costs_nothing():
    objective = _build("eat")
    target = torch.randn(2, 64, 16)
    wide = target.repeat_interleave(4, 0)
    mask = inverse_block_mask(8, (8, 8))
    assert objective._loss(wide, wide.mean(1), target, mask).loss == 0.0
    off = torch.where(mask.unsqueeze(-1), wide, wide + 5.0)  # visible patches do not count
    assert objective._loss(off, wide.mean(1), target, mask).logs["frame_loss"] == 0.0
    assert objective._loss(wide + 2.0, wide.mean(1), target, mask).logs["frame_loss"] == pytest.approx(4.0)


# -- MAE's decoder ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 2])
def test_windows_keep_to_themselves(shift):
    torch.manual_seed(0)
    block = mae_parts.WindowedBlock(8, 2, window=4, shift=shift).eval()
    tokens = torch.randn(1, 8 * 8, 8)
    changed = tokens.clone()
    changed[0, 0, 0] += 1.0  # row 0, column 0
    with torch.no_grad():
        moved = (block(tokens, (8, 8)) - block(changed, (8, 8))).abs().sum(-1).view(8, 8) > 1e-6
    reach = 4 - shift
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:reach, :reach] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("decoder", ["local", "global"])
def test_decoders_put_guesses_where_the_patches_are(decoder):
    objective = _build("mae", decoder=decoder).eval()
    visible = torch.randn(2, 64, 16)
    places = visible_places(random_mask(2, 256, 0.75))
    guess = objective.decoder(visible, places)
    assert guess.shape == (2, 256, 256)
    changed = visible.clone()
    changed[0, 0] += 1.0
    moved = (objective.decoder(changed, places) - guess).abs().sum(-1)
    assert moved[0].argmax() == places[0, 0]
    assert moved[1].max() == 0.0


def _use(name: str, setting: dict) -> None:
    objective = _build(name, **setting)
    objective.prepare([_batch(objective)])
    objective(_batch(objective))


def test_settings_out_of_range_are_refused():
    for name, setting in [
        ("eat", {"decoder_kernel": 4}),
        ("eat", {"decoder_groups": 5}),
        ("mae", {"decoder": "swin"}),
        ("mae", {"decoder_heads": 5}),
        ("hubert", {"clusters": 1}),
        ("hubert", {"target_layer": 9}),
        ("beats", {"codes": 1}),
        ("mae", {"mask_ratio": 1.0}),
    ]:
        with pytest.raises(ConfigError):
            _use(name, setting)


def test_huberts_second_iteration_clusters_a_layer():
    objective = _build("hubert", target_layer=2)
    with pytest.raises(ConfigError, match="prepare"):
        objective(_batch(objective))
    objective.prepare([_batch(objective, 16)])
    waveform = _chirps(2)
    before = objective.targets_of(waveform)
    _train(objective, 5, 1e-2)
    # The targets are those of the model as it was.
    assert torch.equal(objective.targets_of(waveform), before)
    assert before.shape == (2, 49)
    assert len(before.unique()) > 1


def test_huberts_convolutions_learn_at_a_part_of_every_gradient():
    """As in fairseq, whose factor stands before the penalty too."""
    gradients = []
    for factor in (1.0, 0.25):
        objective = _build("hubert", feature_gradient=factor, feature_penalty=100.0).eval()
        torch.manual_seed(0)
        objective.prepare([_batch(objective, 16)])
        torch.manual_seed(0)
        objective(_batch(objective)).loss.backward()
        gradients.append([p.grad for p in objective.model.backbone.feature_extractor.parameters()])
    for whole, part in zip(*gradients, strict=True):
        assert torch.allclose(part, 0.25 * whole, rtol=1e-4, atol=1e-7)


def test_hubert_learns_the_clusters_of_a_teacher():
    teacher = tiny_model("hubert", num_classes=None)
    with torch.no_grad():  # unlike the model, which has the same seed
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
    objective = _build("hubert", target_layer=1, teacher=teacher)
    objective.prepare([_batch(objective, 16)])
    waveform = _chirps(2)
    with torch.no_grad():
        layer = []
        handle = teacher.backbone.encoder.transformer.layers[0].register_forward_hook(
            lambda *a: layer.append(a[2])
        )
        teacher.eval()(waveform)
        handle.remove()
    distances = torch.cdist(layer[0], objective.centres.expand(2, -1, -1))
    assert torch.equal(objective.targets_of(waveform), distances.argmin(-1))
    weights = [m.backbone.encoder.feature_projection.projection.weight for m in (teacher, objective.model)]
    assert not torch.equal(*weights)


def test_a_teacher_of_hubert_must_fit():
    convs = [[8, 10, 5], [8, 3, 2]]
    other = tiny_model("hubert", num_classes=None, init_config={"extractor_conv_layer_config": convs})
    with pytest.raises(ConfigError, match="frames of the model"):
        _build("hubert", target_layer=1, teacher=other)
    with pytest.raises(ConfigError, match="needs target_layer"):
        _build("hubert", teacher=tiny_model("hubert", num_classes=None))
    with pytest.raises(ConfigError, match="trains"):
        _build("hubert", target_layer=1, teacher=tiny_model("beats", num_classes=None))


def test_padded_frames_of_hubert_are_neither_clustered_nor_guessed():
    torch.manual_seed(0)
    model = tiny_model("hubert", num_classes=None, handle_padding=True)
    objective = build_objective("hubert", model, {**SETTINGS["hubert"], "feature_penalty": 0.0}).eval()
    clip = _chirps(2)
    mask = torch.zeros(2, 16000, dtype=torch.bool)
    objective.prepare([{"raw_wav": clip}])
    whole = []
    for padding in (None, mask):
        torch.manual_seed(3)
        whole.append(objective({"raw_wav": clip, "padding_mask": padding}).loss.item())
    assert whole[0] == pytest.approx(whole[1], abs=1e-5)
    mask[:, 8000:] = True
    torch.manual_seed(3)
    assert objective({"raw_wav": clip, "padding_mask": mask}).loss.item() != pytest.approx(whole[0], abs=1e-4)
