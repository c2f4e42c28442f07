"""The part of CLIP that sees, a vision transformer: what is in a picture, as a row of numbers.

Source: Radford et al. 2021 (arXiv:2103.00020). Parameters are named as in the published weights, below "visual.".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lvbench.networks.attention import attend
from lvbench.networks.pictures import SIDE
from lvbench.sizes import ClipSize


class Clip(nn.Module):
    """Pictures [n, 3, 224, 224], normalised, to features [n, out], of any length."""

    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        tokens = (SIDE // size.patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, size.width, size.patch, size.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(size.width))
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, size.width))
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = _Layers(size)
        self.ln_post = nn.LayerNorm(size.width)
        self.proj = nn.Parameter(torch.zeros(size.width, size.out))

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        patches = self.conv1(pictures).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(patches), 1, -1)
        tokens = self.ln_pre(torch.cat([whole, patches], 1) + self.positional_embedding)
        seen: Tensor = self.ln_post(self.transformer(tokens)[:, 0]) @ self.proj
        return seen


class _Layers(nn.Module):
    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(_Layer(size) for _ in range(size.layers)))

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.resblocks(tokens)
        return found


class _Layer(nn.Module):
    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(size.width)
        self.attn = _Attention(size)
        self.ln_2 = nn.LayerNorm(size.width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(size.width, 4 * size.width), "c_proj": nn.Linear(4 * size.width, size.width)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens))
        hidden = self.mlp["c_fc"](self.ln_2(tokens))
        # The weights were trained with this quick form of GELU; the exact one is another network.
        found: Tensor = tokens + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))
        return found


class _Attention(nn.Module):
    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * size.width, size.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * size.width))
        self.out_proj = nn.Linear(size.width, size.width)

    def forward(self, tokens: Tensor) -> Tensor:
        three = nn.functional.linear(tokens, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        found: Tensor = self.out_proj(attend(three, self.heads))
        return found
