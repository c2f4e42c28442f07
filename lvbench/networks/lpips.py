"""LPIPS: how different two pictures look, by what AlexNet sees in them.

Source: Zhang et al. 2018 (arXiv:1801.03924), version 0.1. Parameters are named as in torchvision's AlexNet, below
"features.", and as in the published heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

CHANNELS = (64, 192, 384, 256, 256)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LEAST_PX = 32
"""Of a side, so that the last layer sees something."""


class AlexNet(nn.Sequential):
    """The layers of AlexNet that are compared."""

    def __init__(self) -> None:
        first, second, third, fourth, fifth = CHANNELS
        super().__init__(
            *(nn.Conv2d(3, first, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(first, second, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(second, third, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(third, fourth, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(fourth, fifth, 3, 1, 1), nn.ReLU()),
        )


class Head(nn.Module):
    """How much each channel of each layer counts."""

    def __init__(self) -> None:
        super().__init__()
        for at, channels in enumerate(CHANNELS):
            weight = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})
            self.add_module(f"lin{at}", nn.ModuleDict({"model": weight}))

    def weights(self) -> list[Tensor]:
        """One for each layer, [1, C, 1, 1]."""
        return list(self.parameters())


def distance(seeing: nn.Module, head: Head, one: Tensor, other: Tensor) -> Tensor:
    """How different pictures [n, 3, H, W], 0 to 255, are from others: [n], 0 for equal ones."""
    found = torch.zeros(len(one), device=one.device)
    for a, b, weight in zip(_seen(seeing, one), _seen(seeing, other), head.weights(), strict=True):
        found = found + ((a - b).square() * weight).sum(1).mean((1, 2))
    return found


def _seen(seeing: nn.Module, pictures: Tensor) -> Iterator[Tensor]:
    """What each layer sees, with the channels of a place as a row of length 1."""
    shape = (3, 1, 1)
    shift, scale = pictures.new_tensor(SHIFT).view(shape), pictures.new_tensor(SCALE).view(shape)
    seen = (pictures / 127.5 - 1 - shift) / scale
    for layer in seeing.children():
        seen = layer(seen)
        if isinstance(layer, nn.ReLU):
            yield seen / (seen.square().sum(1, keepdim=True).sqrt() + 1e-10)
