"""Frames as each network wants them: sizes, colours and edges exactly as in the published program."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SIDE = 224
"""Of what CLIP and DINO were trained on."""
CLARITY_LONGER = 512
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def planes(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Frames [n, H, W, 3] as float32 [n, 3, H, W], 0 to 255."""
    return torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()


def clip_input(pictures: Tensor) -> Tensor:
    """The middle 224 x 224 of pictures [n, 3, H, W], 0 to 255, whose shorter side was made 224, normalised.

    Bicubic without antialiasing, and what it overshoots is kept: in the published program the pictures are floats.
    """
    small = F.interpolate(pictures, _shorter(pictures), mode="bicubic", align_corners=False)
    top, left = (round((side - SIDE) / 2) for side in small.shape[-2:])
    return _normalised(small[..., top : top + SIDE, left : left + SIDE] / 255, CLIP_MEAN, CLIP_STD)


def dino_input(pictures: Tensor) -> Tensor:
    """Whole pictures [n, 3, H, W], 0 to 255, with the shorter side made 224, normalised."""
    small = F.interpolate(pictures, _shorter(pictures), mode="bilinear", align_corners=False)
    return _normalised(small / 255, IMAGENET_MEAN, IMAGENET_STD)


def clarity_input(pictures: Tensor) -> Tensor:
    """Pictures [n, 3, H, W], 0 to 255, as 0 to 1, with the longer side made 512 where it is more."""
    height, width = pictures.shape[-2:]
    if max(height, width) > CLARITY_LONGER:
        scale = CLARITY_LONGER / max(height, width)
        size = max(1, int(scale * height)), max(1, int(scale * width))
        pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
    return pictures / 255


def edges(size: tuple[int, int], multiple: int, least: int) -> tuple[int, int, int, int]:
    """How many pixels to add left, right, above and below, so that both sides are multiples and not too small.

    Args:
        size: (height, width).
        multiple: of which the sides become multiples, by adding the same before and after.
        least: what a side is at least, itself a multiple.
    """
    rows, columns = (max(least, -(-side // multiple) * multiple) - side for side in size)
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def inside(padded: Tensor, added: tuple[int, int, int, int]) -> Tensor:
    """What is left of [..., H, W] once the edges are taken off again."""
    left, right, above, below = added
    height, width = padded.shape[-2:]
    return padded[..., above : height - below, left : width - right]


def _shorter(pictures: Tensor) -> tuple[int, int]:
    height, width = pictures.shape[-2:]
    longer = int(SIDE * max(height, width) / min(height, width))
    return (SIDE, longer) if height <= width else (longer, SIDE)


def _normalised(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shape = (3, 1, 1)
    return (pictures - pictures.new_tensor(mean).view(shape)) / pictures.new_tensor(std).view(shape)
