"""Names are told back from whatever wrapped them, and diffusers' names are those of its own converter."""

from __future__ import annotations

import re

import pytest
import torch

from worldsim.errors import WeightsError
from worldsim.models.wan.keymap import bare, is_diffusers, public_name, renamed, text_name


@pytest.mark.parametrize(
    ("name", "plain", "found"),
    [
        ("blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.weight", ()),
        ("model.head.modulation", "head.modulation", ("model.",)),
        ("model._fsdp_wrapped_module.head.head.bias", "head.head.bias", ("_fsdp_wrapped_module.", "model.")),
        (
            "_orig_mod.model.blocks.3._fsdp_wrapped_module._checkpoint_wrapped_module.ffn.0.bias",
            "blocks.3.ffn.0.bias",
            ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "model."),
        ),
        ("model.diffusion_model.blocks.1.modulation", "blocks.1.modulation", ("model.", "diffusion_model.")),
    ],
)
def test_what_wrappers_put_into_a_name_is_taken_out_and_told(name: str, plain: str, found: tuple[str, ...]) -> None:
    assert bare(name) == (plain, found)


@pytest.mark.parametrize("image", [False, True])
def test_diffusers_names_are_mapped_as_its_own_converter_maps_them_back(image: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    more = {"image_dim": 10, "added_kv_proj_dim": 24} if image else {}
    with torch.device("meta"):
        model = diffusers.WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, text_dim=8, freq_dim=16, ffn_dim=20, num_layers=2, **more
        )
    theirs = model.state_dict()
    ours = {public_name(name): tensor for name, tensor in theirs.items()}
    assert len(ours) == len(theirs)
    assert is_diffusers(theirs)
    assert not is_diffusers(ours)
    assert public_name("proj_out.weight") == "head.head.weight"
    back = convert_wan_transformer_to_diffusers(dict(ours))
    assert {name: tensor.shape for name, tensor in back.items()} == {n: tensor.shape for n, tensor in theirs.items()}
    for name, tensor in back.items():
        assert tensor is theirs[name], name


def test_a_name_that_diffusers_does_not_have_stays() -> None:
    names = ["blocks.0.self_attn.q.weight", "proj_out", "proj_out.scale", "blocks.0.attn1.to_q.lora_A.weight", "other"]
    assert [public_name(name) for name in names[2:]] == names[2:]
    assert public_name(names[0]) == names[0]


def test_the_text_encoders_names_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.UMT5EncoderModel(
            transformers.UMT5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=20, num_layers=2, num_heads=3)
        )
    block = ["attn.q", "attn.k", "attn.v", "attn.o", "pos_embedding.embedding", "norm1", "norm2"]
    block += ["ffn.gate.0", "ffn.fc1", "ffn.fc2"]
    public = ["token_embedding.weight", "norm.weight"]
    public += [f"blocks.{layer}.{part}.weight" for layer in range(2) for part in block]
    assert {text_name(name) for name in public} == model.state_dict().keys() - {"encoder.embed_tokens.weight"}
    assert text_name("blocks.0.cross.weight") == "blocks.0.cross.weight"


def test_two_tensors_of_one_name_are_refused() -> None:
    assert renamed([("a", "model.a"), ("b", "b")], "x.pt") == {"a": "model.a", "b": "b"}
    with pytest.raises(WeightsError, match=re.escape("x.pt holds a twice, as a and as model.a; keep one")):
        renamed([("a", "a"), ("a", "model.a")], "x.pt")
