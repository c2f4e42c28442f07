"""Which model a set of tensors looks like, told from names and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worldsim.errors import WeightsError
from worldsim.models.wan.config import WanConfig, wan_config
from worldsim.models.wan.lora import is_lora

Shapes = Mapping[str, Sequence[int]]
HEAD_DIM = 128
"""Numbers in a head, in every published size of the family; no tensor tells it."""
SIZES: Mapping[int, str] = {1536: "1.3B", 5120: "14B"}
KEYBOARDS: Mapping[int, str] = {4: "universal", 2: "gta", 7: "templerun"}
FOUNDATION_LAYERS = 30
"""Layers with actions in the model that the distilled ones of Matrix-Game 2 come from; those have 15."""
EXAMPLE = "gdhe17/Self-Forcing:checkpoints/self_forcing_dmd.pt"
"""Weights of a text-driven transformer, of which a world is made."""
EMBEDDING = "patch_embedding.weight"
KEYBOARD = "blocks.0.action_model.keyboard_embed.0.weight"


def looks_like(shapes: Shapes) -> str:
    """What these tensors look like, in words that follow "it looks like ".

    Args:
        shapes: by bare names, of transformers in the public layout.
    """
    if not shapes:
        return "nothing: it holds no tensors"
    if is_lora(list(shapes)):
        return "a LoRA, which changes a model and is none"
    if EMBEDDING in shapes and len(shapes[EMBEDDING]) == 5 and "head.head.weight" in shapes:
        return _transformer(shapes)
    return _other(shapes)


def world_like(shapes: Shapes) -> str:
    """The name of a world that transformers such as these are loaded as; empty if there is none."""
    if KEYBOARD in shapes:
        keys, acting = _keyboard(shapes)
        return f"matrix-game-2-{KEYBOARDS[keys]}" if keys in KEYBOARDS and acting < FOUNDATION_LAYERS else ""
    return "self-forcing" if looks_like(shapes).startswith("a Wan 2.1 transformer") else ""


def wan_config_of(shapes: Shapes, source: object) -> WanConfig:
    """The size of the Wan transformer whose tensors these are, for videos of 480 x 832 pixels in blocks of 3 frames.

    Args:
        shapes: by public names.
        source: where they are from, for the message.

    Raises:
        WeightsError: they are not of a text-driven transformer of the family.
    """
    needed = ("head.head.weight", "text_embedding.0.weight", "time_embedding.0.weight", "blocks.0.ffn.0.weight")
    if any(len(shapes.get(name, ())) != 2 for name in needed) or len(shapes.get(EMBEDDING, ())) != 5:
        raise WeightsError(
            f"{source} is no transformer of the Wan family; it looks like {looks_like(shapes)}; give one that is "
            f"told in words, such as {EXAMPLE}{or_as(shapes, family='self-forcing')}"
        )
    embedding, (answers, _) = shapes[EMBEDDING], shapes["head.head.weight"]
    dim, channels, frames, patch = embedding[:4]
    if dim % HEAD_DIM or not patch or frames != 1 or answers % (patch * patch):
        raise WeightsError(
            f"{source} has a patch embedding of {list(embedding)} and answers with {answers} numbers a token; the "
            f"family has heads of {HEAD_DIM} and square patches of one frame"
        )
    small = wan_config("1.3b")
    return WanConfig(
        dim=dim,
        ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
        layers=_layers(shapes),
        heads=dim // HEAD_DIM,
        height=small.height,
        width=small.width,
        freq_dim=shapes["time_embedding.0.weight"][1],
        channels=channels,
        out_channels=answers // (patch * patch),
        patch=patch,
        text_dim=shapes["text_embedding.0.weight"][1],
    )


def or_as(shapes: Shapes, *, family: str) -> str:
    """That these may be loaded as a world of another family, in words behind what should be given; empty if not.

    Args:
        shapes: by public names.
        family: how the names begin of the worlds that they were given to.
    """
    world = world_like(shapes)
    return "" if not world or world.startswith(family) else f", or load this one, as published, as the world {world}"


def _layers(shapes: Shapes) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})


def _transformer(shapes: Shapes) -> str:
    dim, channels = shapes[EMBEDDING][:2]
    if "patch_embedding_wancamctrl.weight" in shapes:
        return "a Matrix-Game 3 transformer"
    if KEYBOARD in shapes:
        return _matrix_game(shapes)
    if channels == 48:
        return "a Wan 2.2 5B transformer"
    if any(name.startswith("vace_blocks.") for name in shapes):
        return f"a Wan 2.1 VACE transformer, which is steered by videos (dim {dim})"
    size = SIZES.get(dim, f"of dim {dim}")
    parts = f"{_layers(shapes)} layers, {channels} channels in"
    if any(name.startswith("img_emb.") for name in shapes):
        return f"a Wan 2.1 image-to-video transformer {size} ({parts})"
    if channels != 16:
        return f"a transformer like Wan's {size} that reads more than noise, such as Wan 2.2's from images ({parts})"
    if any(".hsa_attention." in name for name in shapes):
        return f"a WorldAttention transformer {size}, whose sparse attention has weights of its own ({parts})"
    return f"a Wan 2.1 transformer {size} ({parts})"


def _matrix_game(shapes: Shapes) -> str:
    keys, acting = _keyboard(shapes)
    kind = KEYBOARDS.get(keys, "of another keyboard")
    grown = ", the model before distillation" if acting >= FOUNDATION_LAYERS else ""
    world = world_like(shapes)
    return f"a Matrix-Game 2 transformer, {kind} ({keys} keys{grown}){f', of the world {world}' if world else ''}"


def _keyboard(shapes: Shapes) -> tuple[int, int]:
    """How many keys a Matrix-Game 2 transformer hears, and in how many layers."""
    return [0, *shapes[KEYBOARD]][-1], sum(name.endswith("action_model.keyboard_embed.0.weight") for name in shapes)


def _other(shapes: Shapes) -> str:
    names = shapes.keys()
    if {"decoder.conv1.weight", "conv2.weight"} <= names or {
        "decoder.conv_in.weight",
        "post_quant_conv.weight",
    } <= names:
        wide = [*shapes.get("conv2.weight", shapes.get("post_quant_conv.weight", ())), 0][0]
        return f"a VAE ({wide} latent channels)"
    if any(name.startswith("decoder.1.") for name in names) and any(name.startswith("encoder.0.") for name in names):
        return "a small VAE such as TAEHV"
    if "token_embedding.weight" in names and any(".pos_embedding." in name for name in names):
        return "a T5 text encoder, as published with Wan"
    if "shared.weight" in names and any(name.startswith("encoder.block.") for name in names):
        return "a T5 text encoder, as transformers stores it"
    if any(name.startswith("visual.") for name in names) or any(name.startswith("vision_model.") for name in names):
        return "a CLIP image encoder"
    if any(name.startswith(("encoder.", "decoder.")) for name in names):
        return "an encoder or decoder of another kind"
    return f"no model known here; its tensors begin with {', '.join(sorted(names)[:3])}"
