"""Names of tensors: from how files of the Wan family call them to the one layout that worldsim reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from worldsim.errors import WeightsError

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
"""What sharding, checkpointing and compiling put into a name, at any place."""
PREFIXES = ("model.", "module.", "diffusion_model.", "generator.")
"""What stands before a name where a file holds the module around the network; no tensor of a layout begins so."""
BLOCK = re.compile(r"blocks\.(\d+)\.(.+?)(\.weight|\.bias)?")
OUTSIDE: Mapping[str, str] = {
    "patch_embedding": "patch_embedding",
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
}
"""Outside the blocks, from diffusers to the public layout."""
ATTENTION: Mapping[str, str] = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
}
INSIDE: Mapping[str, str] = {
    **{f"attn1.{name}": f"self_attn.{public}" for name, public in ATTENTION.items()},
    **{f"attn2.{name}": f"cross_attn.{public}" for name, public in ATTENTION.items()},
    "scale_shift_table": "modulation",
    "norm2": "norm3",  # diffusers counts norms in the order of use, the public layout calls the affine one the third
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""Inside a block, from diffusers to the public layout."""
TEXT_OUTSIDE: Mapping[str, str] = {
    "token_embedding.weight": "shared.weight",
    "norm.weight": "encoder.final_layer_norm.weight",
}
"""Outside the blocks of the text encoder, from the public layout to that of transformers."""
TEXT_INSIDE: Mapping[str, str] = {
    **{f"attn.{each}.weight": f"layer.0.SelfAttention.{each}.weight" for each in "qkvo"},
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm1.weight": "layer.0.layer_norm.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}
"""Inside a block of the text encoder, from the public layout to that of transformers."""


def bare(name: str) -> tuple[str, tuple[str, ...]]:
    """The name without what wrappers put into it, and what those were, each once."""
    found = []
    for wrapper in WRAPPERS:
        if wrapper in name:
            found.append(wrapper)
            name = name.replace(wrapper, "")
    while prefix := next((each for each in PREFIXES if name.startswith(each)), None):
        found.append(prefix)
        name = name.removeprefix(prefix)
    return name, tuple(dict.fromkeys(found))


def is_diffusers(names: Iterable[str]) -> bool:
    """Whether bare names of a transformer are those of diffusers."""
    return any(name.startswith("condition_embedder.") or ".attn1.to_" in name for name in names)


def public_name(name: str) -> str:
    """The public name of a tensor of diffusers' WanTransformer3DModel; one that it does not have stays as it is."""
    inside = BLOCK.fullmatch(name)
    if inside is not None:
        number, part, ending = inside[1], inside[2], inside[3] or ""
        return f"blocks.{number}.{INSIDE[part]}{ending}" if part in INSIDE else name
    part, dot, ending = name.rpartition(".")
    if part in OUTSIDE and ending in ("weight", "bias"):
        return f"{OUTSIDE[part]}{dot}{ending}"
    return OUTSIDE.get(name, name)


def text_name(name: str) -> str:
    """The name that transformers' UMT5EncoderModel has for a tensor of the public layout; others stay as they are."""
    inside = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if inside is not None:
        return f"encoder.block.{inside[1]}.{TEXT_INSIDE[inside[2]]}" if inside[2] in TEXT_INSIDE else name
    return TEXT_OUTSIDE.get(name, name)


def renamed(pairs: Iterable[tuple[str, str]], source: object) -> dict[str, str]:
    """From new names to the old ones, of pairs (new, old).

    Args:
        source: what they are from, for the message.

    Raises:
        WeightsError: two have one new name.
    """
    found: dict[str, str] = {}
    for new, old in pairs:
        if new in found:
            raise WeightsError(f"{source} holds {new} twice, as {found[new]} and as {old}; keep one of them")
        found[new] = old
    return found
