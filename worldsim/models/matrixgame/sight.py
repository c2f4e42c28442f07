"""The image encoder of Matrix-Game 2: a picture goes in, what a backbone sees of it in place of a prompt comes out.

Source: CLIP, Radford et al. 2021 (arXiv:2103.00020), by transformers' CLIPVisionModel. The weights are the visual half
of open-clip-xlm-roberta-large-vit-huge-14, published with the image-to-video models of Wan 2.1 (arXiv:2503.20314).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from worldsim.errors import MissingDependency, WeightsError, fetching, installing
from worldsim.files import check_finite
from worldsim.models.matrixgame.condition import picture_levels
from worldsim.models.wan.files import ENDINGS, INDEX, shards
from worldsim.models.wan.keymap import renamed
from worldsim.models.wan.kinds import looks_like
from worldsim.models.wan.weights import Weights, open_tensors

Change = Callable[[Tensor], Tensor]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in [0, 1], as CLIP was trained."""
HEAD_DIM = 80
"""Numbers in a head of ViT-H, which no tensor tells; in every other published size of CLIP the width is no multiple."""
INSIDE: Mapping[str, str] = {
    "norm1": "layer_norm1",
    "attn.to_q": "self_attn.q_proj",
    "attn.to_k": "self_attn.k_proj",
    "attn.to_v": "self_attn.v_proj",
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
"""Inside a layer, from the original names to those of transformers; there to_qkv holds three in one."""
OUTSIDE: Mapping[str, str] = {
    "visual.cls_embedding": "embeddings.class_embedding",
    "visual.pos_embedding": "embeddings.position_embedding.weight",
    "visual.patch_embedding.weight": "embeddings.patch_embedding.weight",
    "visual.pre_norm.weight": "pre_layrnorm.weight",
    "visual.pre_norm.bias": "pre_layrnorm.bias",
    "visual.post_norm.weight": "post_layernorm.weight",
    "visual.post_norm.bias": "post_layernorm.bias",
}
"""Outside the layers, likewise."""
REPOSITORY = "Skywork/Matrix-Game-2.0"
PUBLISHED = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
TOWER = "vision_model."
"""What stands before every name of transformers but in what some of its versions save of the image encoder alone."""
FUSED = "attn.to_qkv."
SQUEEZED: Mapping[str, Change] = {
    "visual.cls_embedding": torch.flatten,
    "visual.pos_embedding": partial(torch.squeeze, dim=0),
}
"""Tensors that have axes of one in the original layout, and what takes those away."""
CLASS = TOWER + OUTSIDE["visual.cls_embedding"]
POSITIONS = TOWER + OUTSIDE["visual.pos_embedding"]
PATCHES = TOWER + OUTSIDE["visual.patch_embedding.weight"]
INNER = TOWER + "encoder.layers.0.mlp.fc1.weight"
OTHER_HALF = re.compile(
    r"(textual|text_model|visual_projection|text_projection)\..*|visual\.head|log(it)?_scale|.*\.position_ids"
)
"""What a whole CLIP has beside its image encoder."""


class Sight:
    """Sees pictures. Computes where the encoder lies, in its dtype.

    Args:
        encoder: transformers' CLIPVisionModel.

    shape: of what it sees of a picture, (tokens, width).
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        config: Any = encoder.config
        self._side: int = config.image_size
        self.shape: tuple[int, int] = ((config.image_size // config.patch_size) ** 2 + 1, config.hidden_size)

    def see(self, picture: Tensor) -> Tensor:
        """What is seen of a picture, [tokens, width] in the encoder's dtype: one token for all of it, then its parts.

        Of the published encoder these are 257 tokens of 1280. As published the whole picture is pressed into a square,
        and the answer is that of the last layer but one, without the norm behind the layers.

        Args:
            picture: uint8 [H, W, 3], as cut_picture gives it.

        Raises:
            ShapeError: it is no picture.
            WeightsError: what is seen are no numbers.
        """
        weight = next(self.encoder.parameters())
        levels = picture_levels(picture).to(weight.device).movedim(-1, 0)[None]
        # Published without smoothing where it shrinks, which CLIP was trained with: what backbones learned to read.
        square = interpolate(levels, size=(self._side, self._side), mode="bicubic", align_corners=False)
        mean, std = (torch.tensor(numbers, device=weight.device).reshape(-1, 1, 1) for numbers in (MEAN, STD))
        with torch.no_grad():
            pixels = square.mul(0.5).add(0.5).sub(mean).div(std).to(weight.dtype)
            seen: Tensor = self.encoder(pixels, output_hidden_states=True).hidden_states[-2][0]
        return check_finite(seen, "what it sees of a picture", "the image encoder")


def load_sight(path: Path, *, dtype: torch.dtype, device: torch.device) -> Sight:
    """The image encoder that a file or a folder holds. What a whole CLIP has beside it is not read.

    Weights that are stored in that dtype stay mapped from their file where the device is the CPU.

    Args:
        path: the original models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth, or safetensors with its names or
            those of transformers; a folder with one of these; or a pipeline of diffusers, with image_encoder/.
        dtype: to compute in; bfloat16 as published.
        device: the CPU will do beside a backbone elsewhere: a session sees one picture.

    Raises:
        WeightsError: there is no image encoder, or it is not of the size that Matrix-Game 2 sees with.
        MissingDependency: transformers is not installed.
    """
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModel
    except ImportError as error:
        raise MissingDependency(f"pictures need transformers: {installing('wan')}") from error
    raw = open_tensors(_find(path))
    weights = _encoder_weights(raw, path)
    _check_kind(weights.shapes, raw.shapes, path)
    with torch.device("meta"):
        encoder = CLIPVisionModel(CLIPVisionConfig(**_sizes(weights.shapes, path)))
    own = {TOWER + name.removeprefix(TOWER): name for name in encoder.state_dict()}
    wanted = {name: list(encoder.get_parameter(its).shape) for name, its in own.items()}
    weights.check(wanted, path)
    encoder.load_state_dict({its: weights[name].to(device, dtype) for name, its in own.items()}, assign=True)
    # Which position is which is in no file, and what stands in its place was made on "meta" too.
    ((place, _, numbers),) = (name.rpartition(".") for name, _ in encoder.named_buffers())
    count = wanted[POSITIONS][0]
    setattr(encoder.get_submodule(place), numbers, torch.arange(count, device=device)[None])
    return Sight(encoder)


def sight_name(name: str) -> str:
    """The name that transformers' CLIP has for a tensor of the original layout; others stay as they are."""
    inside = re.fullmatch(r"visual\.transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if inside is not None and inside[2] in INSIDE:
        return f"{TOWER}encoder.layers.{inside[1]}.{INSIDE[inside[2]]}.{inside[3]}"
    return TOWER + OUTSIDE[name] if name in OUTSIDE else name


def _find(path: Path) -> tuple[Path, ...]:
    """The files of the encoder."""
    file = next(_candidates(path), None) if path.is_dir() else path
    if file is None:
        raise _lacking(path, "looked for models_clip*.pth, image_encoder/ and model.safetensors there")
    return shards(file)


def _lacking(path: Path, why: str) -> WeightsError:
    into = path if path.is_dir() else path.parent
    return WeightsError(
        f"{path} holds no CLIP image encoder: {why}; get it by {fetching(REPOSITORY, PUBLISHED, into=into)}"
    )


def _candidates(folder: Path) -> Iterator[Path]:
    for place in (folder / "image_encoder", folder):
        yield from sorted(each for each in place.glob("models_clip*") if each.name.endswith(ENDINGS))
        for name in ("model.safetensors", "pytorch_model.bin"):
            yield from (each for each in (place / (name + INDEX), place / name) if each.is_file())


def _encoder_weights(raw: Weights, source: Path) -> Weights:
    """Those of the encoder by the names of transformers."""
    before = TOWER if OUTSIDE["visual.cls_embedding"] in raw else ""
    made = [(before + new, old, change) for old in raw for new, change in _pieces(old)]
    kept = [(new, old, change) for new, old, change in made if not OTHER_HALF.fullmatch(new)]
    renamed(((new, old) for new, old, _ in kept), source)
    lazy = {new: partial(_changed, raw.lazy[old], change) for new, old, change in kept}
    return Weights(lazy, {new: change(raw.metas[old]) for new, old, change in kept}, raw.origin)


def _pieces(name: str) -> list[tuple[str, Change]]:
    """The names of transformers for what is in a tensor, each with what takes it out."""
    if name in SQUEEZED:
        return [(sight_name(name), SQUEEZED[name])]
    if FUSED in name:
        return [
            (sight_name(name.replace(FUSED, f"attn.to_{each}.")), partial(_third, "qkv".index(each))) for each in "qkv"
        ]
    return [(sight_name(name), torch.Tensor.detach)]


def _third(which: int, fused: Tensor) -> Tensor:
    thirds: tuple[Tensor, ...] = torch.atleast_1d(fused).tensor_split(3)
    return thirds[which]


def _changed(tensor: Callable[[], Tensor], change: Change) -> Tensor:
    return change(tensor())


def _check_kind(shapes: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], source: Path) -> None:
    """Raise WeightsError unless there is an image encoder among these shapes; those found are what the file holds."""
    wanted = {CLASS: 1, POSITIONS: 2, PATCHES: 4, INNER: 2}
    if any(len(shapes.get(name, ())) != axes or 0 in shapes[name] for name, axes in wanted.items()):
        raise _lacking(source, f"what is there looks like {looks_like(found)}")


def _sizes(shapes: Mapping[str, Sequence[int]], source: Path) -> dict[str, Any]:
    """The arguments of CLIPVisionConfig that make an encoder of these shapes."""
    width, patch = shapes[CLASS][0], shapes[PATCHES][-1]
    parts = shapes[POSITIONS][0] - 1
    side = math.isqrt(parts)
    if width % HEAD_DIM or side * side != parts or not side:
        raise WeightsError(
            f"{source} is a CLIP image encoder that is {width} wide and sees {parts} parts; Matrix-Game 2 sees with "
            f"ViT-H, 1280 wide and 256 parts: get {PUBLISHED} of {REPOSITORY}"
        )
    return {
        "hidden_size": width,
        "intermediate_size": shapes[INNER][0],
        "num_hidden_layers": len({name.split(".")[3] for name in shapes if name.startswith(f"{TOWER}encoder.layers.")}),
        "num_attention_heads": width // HEAD_DIM,
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }
