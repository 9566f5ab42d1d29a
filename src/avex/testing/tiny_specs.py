"""Small sizes of every family, as fields of a `ModelSpec`."""

from __future__ import annotations

from typing import Any

from avex.models.birdnet.config import BirdNetConfig, SpectrogramConfig, StageConfig

_VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}


def _raw(sample_rate: int, seconds: float) -> dict[str, Any]:
    return {
        "sample_rate": sample_rate,
        "representation": "raw",
        "normalize": False,
        "target_length_seconds": seconds,
    }


_PICTURE = {
    "sample_rate": 16000,
    "n_fft": 512,
    "hop_length": 160,
    "n_mels": 64,
    "target_length_seconds": 1,
}

# Fields of the spec; image networks have published sizes only, so their picture is small instead.
TINY_SPECS: dict[str, dict[str, Any]] = {
    "beats": {
        "audio_config": _raw(16000, 1),
        "init_config": {
            "embed_dim": 16,
            "encoder_layers": 2,
            "encoder_embed_dim": 24,
            "encoder_ffn_embed_dim": 32,
            "encoder_attention_heads": 3,
            "conv_pos": 8,
            "conv_pos_groups": 4,
            "num_buckets": 16,
            "max_distance": 20,
        },
    },
    "eat_hf": {"audio_config": _raw(16000, 1), "eat_cfg": {**_VIT, "target_length": 128, "max_length": 16}},
    "hubert": {
        "audio_config": _raw(16000, 1),
        "init_config": {
            "extractor_conv_layer_config": [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2],
            "encoder_embed_dim": 16,
            "encoder_num_layers": 2,
            "encoder_num_heads": 4,
            "encoder_ff_interm_features": 24,
            "encoder_pos_conv_kernel": 6,
            "encoder_pos_conv_groups": 2,
        },
    },
    "birdmae": {"audio_config": _raw(32000, 1), "extra_config": {"config": _VIT}},
    "atst_frame": {"audio_config": _raw(16000, 1), "extra_config": {"config": {**_VIT, "n_blocks": 2}}},
    "efficientnet": {"audio_config": _PICTURE},
    "resnet18": {"audio_config": _PICTURE},
    "resnet50": {"audio_config": _PICTURE},
    "resnet152": {"audio_config": _PICTURE},
    "clip": {"audio_config": _PICTURE, "projection_dim": 16},
    "perch": {"audio_config": _raw(32000, 5)},
    "perch2": {"audio_config": _raw(32000, 5)},
    "birdnet": {
        "audio_config": _raw(8000, 0.512),
        "extra_config": {
            "backend": "native",
            "config": BirdNetConfig(
                sample_rate=8000,
                window_samples=4096,
                num_mels=32,
                spectrograms=(SpectrogramConfig(256, 32, 0, 1000), SpectrogramConfig(128, 33, 200, 3000)),
                stem_channels=4,
                stages=(StageConfig(8, 6, 2, None), StageConfig(12, 8, 2, 3)),
                embedding_dim=16,
                num_classes=3,
            ),
        },
    },
}
