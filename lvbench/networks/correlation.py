"""How alike every place of one picture is to every place of another, and looking up what lies around a guess.

Source: RAFT, Teed and Deng 2020 (arXiv:2003.12039), all-pairs correlation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 4
"""Of the pyramid, each half as large as the one before."""


def places(like: Tensor) -> Tensor:
    """Where each place of features [n, C, H, W] is: x then y, [1, 2, H, W]."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y])[None].to(like)


class Correlation:
    """Of the features [n, C, H, W] of two pictures: n (H W)^2 numbers, and a third as many again in the pyramid."""

    def __init__(self, volume: Tensor, radius: int) -> None:
        self._reach = torch.arange(-radius, radius + 1).to(volume)
        pyramid = [volume]
        for _ in range(LEVELS - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        self._pyramid = pyramid

    def around(self, centres: Tensor) -> Tensor:
        """What lies around centres [n, 2, H, W] in the other picture: [n, levels (2 radius + 1)^2, H, W].

        As published, the window is walked column by column: its first axis moves x.
        """
        count, _, height, width = centres.shape
        points = centres.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        x, y = torch.meshgrid(self._reach, self._reach, indexing="ij")
        window = torch.stack([x, y], -1)
        found = [
            _at(level, points / 2**step + window).view(count, height, width, -1)
            for step, level in enumerate(self._pyramid)
        ]
        return torch.cat(found, -1).permute(0, 3, 1, 2).contiguous()


def volume_of(one: Tensor, other: Tensor) -> Tensor:
    """The products of the features [n, C, H, W] of two pictures, by the root of C, [n H W, 1, H, W]."""
    channels, height, width = one.shape[1:]
    products = torch.matmul(one.flatten(2).transpose(1, 2), other.flatten(2))
    return products.div_(channels**0.5).view(-1, 1, height, width)


def turned(volume: Tensor) -> Tensor:
    """The volume of the same pictures the other way round; of one pair."""
    height, width = volume.shape[-2:]
    return volume.view(height * width, height * width).t().reshape(-1, 1, height, width)


def _at(level: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of a level [N, 1, H, W] at points [N, k, l, 2] in pixels; 0 outside."""
    height, width = level.shape[-2:]
    span = points.new_tensor([width - 1, height - 1])
    return F.grid_sample(level, 2 * points / span - 1, align_corners=True)
