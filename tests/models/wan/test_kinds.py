"""Models are told from names and shapes, and the size of a Wan transformer is read off its tensors."""

from __future__ import annotations

import pytest

from worldsim.errors import WeightsError
from worldsim.models.wan.config import SIZES, wan_config
from worldsim.models.wan.kinds import looks_like, wan_config_of
from worldsim.models.wan.stored import wanted_shapes

Shapes = dict[str, list[int]]


def wan(dim: int = 1536, channels: int = 16, **more: list[int]) -> Shapes:
    first = {"patch_embedding.weight": [dim, channels, 1, 2, 2], "head.head.weight": [64, dim]}
    return {**first, "blocks.0.modulation": [1, 6, dim], **more}


def acting(keys: int, layers: int = 15) -> Shapes:
    names = [f"blocks.{at}.action_model.keyboard_embed.0.weight" for at in range(layers)]
    return wan(1536, 36, **{name: [128, keys] for name in names})


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (wan(), "a Wan 2.1 transformer 1.3B (1 layers, 16 channels in)"),
        (wan(5120), "a Wan 2.1 transformer 14B"),
        (wan(96), "a Wan 2.1 transformer of dim 96"),
        (wan(5120, 36, **{"img_emb.proj.1.weight": [1280, 1280]}), "a Wan 2.1 image-to-video transformer 14B"),
        (wan(5120, 36), "reads more than noise"),
        (wan(3072, 48), "a Wan 2.2 5B transformer"),
        (wan(3072, 48, **{"patch_embedding_wancamctrl.weight": [3072, 1536]}), "a Matrix-Game 3 transformer"),
        (wan(1536, 16, **{"vace_blocks.0.modulation": [1, 6, 1536]}), "VACE"),
        (wan(1536, 16, **{"blocks.0.self_attn.hsa_attention.k_proj_mat": [25, 1560]}), "WorldAttention"),
        (acting(4), "a Matrix-Game 2 transformer, universal (4 keys), of the world matrix-game-2-universal"),
        (acting(2), "a Matrix-Game 2 transformer, gta (2 keys), of the world matrix-game-2-gta"),
        (acting(7), "a Matrix-Game 2 transformer, templerun (7 keys), of the world matrix-game-2-templerun"),
        (acting(4, 30), "universal (4 keys, the model before distillation)"),
        ({"decoder.conv1.weight": [384, 16, 3, 3, 3], "conv2.weight": [16, 16, 1, 1, 1]}, "a VAE (16 latent"),
        ({"decoder.conv_in.weight": [1], "post_quant_conv.weight": [48, 48, 1, 1, 1]}, "a VAE (48 latent"),
        ({"encoder.0.weight": [64, 3, 3, 3], "decoder.1.weight": [256, 16, 3, 3]}, "TAEHV"),
        ({"token_embedding.weight": [9, 4], "blocks.0.pos_embedding.embedding.weight": [32, 2]}, "published with Wan"),
        ({"shared.weight": [9, 4], "encoder.block.0.layer.0.layer_norm.weight": [4]}, "transformers stores it"),
        ({"visual.cls_embedding": [1, 1, 1280]}, "a CLIP image encoder"),
        ({"blocks.0.ffn.0.lora_A.weight": [4, 9], "blocks.0.ffn.0.lora_B.weight": [9, 4]}, "a LoRA"),
        ({"encoder.conv.weight": [1]}, "of another kind"),
        ({"fc.weight": [1]}, "no model known here; its tensors begin with fc.weight"),
        ({}, "nothing"),
    ],
)
def test_a_model_is_told_from_names_and_shapes(shapes: Shapes, words: str) -> None:
    assert words in looks_like(shapes)


@pytest.mark.parametrize("size", ["1.3b", "14b"])
def test_the_size_of_a_published_backbone_is_read_off_its_tensors(size: str) -> None:
    config = wan_config(size)
    shapes = wanted_shapes(config)
    assert wan_config_of(shapes, "here") == config
    assert (len(shapes), looks_like(shapes).split(" (")[0]) == {
        "1.3b": (825, "a Wan 2.1 transformer 1.3B"),
        "14b": (1095, "a Wan 2.1 transformer 14B"),
    }[size]


def test_what_is_no_wan_transformer_has_no_size() -> None:
    with pytest.raises(WeightsError, match=r"here is no transformer of the Wan family; it looks like a Matrix-Game 2"):
        wan_config_of(acting(4), "here")
    for keys, layers, fits in (
        (2, 15, "as the world matrix-game-2-gta"),
        (2, 30, "self_forcing_dmd.pt"),
        (3, 15, ".pt"),
    ):
        with pytest.raises(WeightsError, match=rf"such as gdhe17/Self-Forcing:checkpoints/.*{fits}$"):
            wan_config_of(acting(keys, layers), "here")
    with pytest.raises(WeightsError, match=r"looks like a Wan 2\.1 transformer 1\.3B .*self_forcing_dmd\.pt$"):
        wan_config_of(wan(), "here")
    assert SIZES["tiny"]["dim"] % 128
    with pytest.raises(WeightsError, match="heads of 128 and square patches"):
        wan_config_of(wanted_shapes(wan_config("tiny")), "here")
