"""How large the Matrix-Game 2 backbone is whose tensors these are, told from names and shapes alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from worldsim.errors import WeightsError
from worldsim.models.matrixgame.backbone import MatrixGameBackbone
from worldsim.models.matrixgame.config import MatrixGameConfig, matrixgame_config
from worldsim.models.wan.kinds import EMBEDDING, HEAD_DIM, KEYBOARD, Shapes, looks_like, or_as

EXAMPLE = "Skywork/Matrix-Game-2.0:base_distilled_model"
MODULE = "blocks.0.action_model."
NEEDED = (
    *("head.head.weight", "time_embedding.0.weight", "blocks.0.ffn.0.weight", "img_emb.proj.1.weight", KEYBOARD),
    *(f"{MODULE}{name}.weight" for name in ("keyboard_embed.2", "keyboard_attn_kv")),
)
"""Matrices that tell sizes."""


def matrixgame_config_of(shapes: Shapes, kind: str, source: object) -> MatrixGameConfig:
    """The size of the transformer of that kind that has these tensors, for pictures of 352 x 640 in blocks of 3 frames.

    How many keys and whether a mouse is heard is that of the kind: tensors of another one have another shape then. How
    many tokens a picture has no tensor tells; it is as many as published.

    Args:
        shapes: by public names.
        kind: one of worldsim.models.matrixgame.config.KINDS.
        source: where they are from, for the message.

    Raises:
        WeightsError: they are of no distilled Matrix-Game 2 transformer.
    """
    heads = shapes.get(f"{MODULE}key_attn_q_norm.weight", ())
    if any(len(shapes.get(name, ())) != 2 for name in NEEDED) or len(shapes.get(EMBEDDING, ())) != 5 or len(heads) != 1:
        raise WeightsError(
            f"{source} is no Matrix-Game 2 transformer; it looks like {looks_like(shapes)}; give one such as "
            f"{EXAMPLE}{or_as(shapes, family='matrix-game-2')}"
        )
    (dim, channels, frames, patch), (answers, _) = shapes[EMBEDDING][:4], shapes["head.head.weight"]
    layers = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    acting = sum(name.endswith(".action_model.keyboard_embed.0.weight") for name in shapes)
    if dim % HEAD_DIM or not patch or frames != 1 or answers % (patch * patch) or not heads[0] or acting == layers:
        raise WeightsError(
            f"{source} looks like {looks_like(shapes)}, of {acting} in {layers} layers that hear keys and a patch "
            f"embedding of {list(shapes[EMBEDDING])}; the distilled models hear them in half of their layers, have "
            f"heads of {HEAD_DIM} and square patches of one frame"
        )
    plain = matrixgame_config(kind)
    wan = replace(
        plain.wan,
        dim=dim,
        ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
        layers=layers,
        heads=dim // HEAD_DIM,
        freq_dim=shapes["time_embedding.0.weight"][1],
        channels=answers // (patch * patch),
        out_channels=answers // (patch * patch),
        patch=patch,
        text_dim=shapes["img_emb.proj.1.weight"][1],
    )
    return replace(
        plain,
        wan=wan,
        acting=acting,
        heads=shapes[f"{MODULE}keyboard_attn_kv.weight"][0] // (2 * heads[0]),
        head_dim=heads[0],
        embedding=shapes[f"{MODULE}keyboard_embed.2.weight"][0],
        seen=channels - wan.channels,
    )


def wanted_shapes(config: MatrixGameConfig) -> dict[str, list[int]]:
    """The shape of every tensor of a backbone of this size, by name; nothing is allocated."""
    with torch.device("meta"):
        backbone = MatrixGameBackbone(config)
    return {name: list(tensor.shape) for name, tensor in backbone.state_dict().items()}
