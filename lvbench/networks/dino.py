"""DINO's vision transformer: what the subject of a picture looks like, as a row of numbers.

Source: Caron et al. 2021 (arXiv:2104.14294), ViT-B/16. Parameters are named as in the published weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvbench.networks.attention import attend
from lvbench.networks.pictures import SIDE
from lvbench.sizes import DinoSize

PATCH = 16
GRID = SIDE // PATCH
EPSILON = 1e-6


class Dino(nn.Module):
    """Pictures [n, 3, H, W], normalised, with sides of at least 16, to features [n, width]."""

    def __init__(self, size: DinoSize) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID * GRID + 1, size.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.width, PATCH, PATCH)})
        self.blocks = nn.Sequential(*(_Block(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width, eps=EPSILON)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        patches = self.patch_embed["proj"](pictures)
        rows, columns = patches.shape[-2:]
        patches = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = self.blocks(patches + self._places(rows, columns))
        found: Tensor = self.norm(tokens[:, 0])
        return found

    def _places(self, rows: int, columns: int) -> Tensor:
        """The embeddings of the places of a grid, stretched from those of 14 x 14; [1, 1 + rows * columns, width]."""
        if rows == columns == GRID:
            return self.pos_embed
        square = self.pos_embed[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
        # As published, a tenth of a patch is added to each side, which moves every sample a little.
        scale = ((rows + 0.1) / GRID, (columns + 0.1) / GRID)
        stretched = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).transpose(1, 2)], 1)


class _Block(nn.Module):
    def __init__(self, size: DinoSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.width, eps=EPSILON)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(size.width, 3 * size.width), "proj": nn.Linear(size.width, size.width)}
        )
        self.norm2 = nn.LayerNorm(size.width, eps=EPSILON)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(size.width, 4 * size.width), "fc2": nn.Linear(4 * size.width, size.width)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        three = self.attn["qkv"](self.norm1(tokens)).chunk(3, -1)
        tokens = tokens + self.attn["proj"](attend(three, self.heads))
        found: Tensor = tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))
        return found
