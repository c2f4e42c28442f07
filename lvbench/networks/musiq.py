"""MUSIQ: how clear a picture is, judged from patches of three sizes of it.

Source: Ke et al. 2021 (arXiv:2108.05997). Parameters are named as in the weights that pyiqa publishes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvbench.networks.attention import attend
from lvbench.sizes import MusiqSize

PATCH = 32
LONGER_SIDES = (224, 384)
"""Of the two copies that are looked at before the picture itself."""
GRID = 10
"""Places of a patch in a picture that are told apart, each way."""
ROOT, DEEP = 64, 256
EPSILON = 1e-6


class Musiq(nn.Module):
    """Pictures [n, 3, H, W], 0 to 1, to how clear each is, [n], 0 to 100."""

    def __init__(self, size: MusiqSize) -> None:
        super().__init__()
        self.conv_root = _Conv(3, ROOT, 7, 2)
        self.gn_root = nn.GroupNorm(32, ROOT, eps=EPSILON)
        self.block1 = _Bottleneck()
        self.embedding = nn.Linear(DEEP * (PATCH // 4) ** 2, size.width)
        self.transformer_encoder = _Encoder(size)
        self.head = nn.Linear(size.width, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        found = [self._tokens(*part) for part in scales((pictures - 0.5) * 2)]
        tokens, places, scale = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        judged: Tensor = self.head(self.transformer_encoder(tokens, places, scale)[:, 0])
        return judged[:, 0]

    def _tokens(self, patches: Tensor, places: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """Patches [n, T, 3, 32, 32] as tokens [n, T, width], with the place [1, T] and scale [1, T] of each."""
        deep = F.relu(self.gn_root(self.conv_root(patches.flatten(0, 1))))
        deep = self.block1(F.max_pool2d(F.pad(deep, same(deep, 3, 2)), 3, 2))
        tokens = self.embedding(deep.permute(0, 2, 3, 1).flatten(1)).unflatten(0, patches.shape[:2])
        return tokens, places, torch.full_like(places, scale)


def scales(pictures: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The patches of each scale of pictures [n, 3, H, W]: [n, T, 3, 32, 32], their places [1, T], and its number.

    A copy is as large as its longer side says, and may be larger than the picture. The published program fills each
    scale up with patches that it then masks, which adds zeros to sums; here there are none.
    """
    height, width = pictures.shape[-2:]
    for scale, longer in enumerate(LONGER_SIDES):
        ratio = longer / max(height, width)
        size = max(1, round(height * ratio)), max(1, round(width * ratio))
        yield *_patches(F.interpolate(pictures, size, mode="bicubic", align_corners=False)), scale
    yield *_patches(pictures), len(LONGER_SIDES)


def same(x: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """What to add left, right, above and below [..., H, W], so that a step of `stride` gives ceil(side / stride)."""
    added = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[:-3:-1]]
    (left, right), (above, below) = ((more // 2, more - more // 2) for more in added)
    return left, right, above, below


def _patches(pictures: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(pictures, same(pictures, PATCH, PATCH))
    rows, columns = (side // PATCH for side in padded.shape[-2:])
    patches = F.unfold(padded, PATCH, stride=PATCH).transpose(1, 2).unflatten(2, (3, PATCH, PATCH))
    grid = torch.arange(GRID, device=pictures.device, dtype=torch.float32).view(1, 1, -1)
    down, across = (F.interpolate(grid, count, mode="nearest")[0, 0].long() for count in (rows, columns))
    return patches, (down[:, None] * GRID + across).view(1, -1)


class _Conv(nn.Conv2d):
    """A convolution with standardised weights and no bias, whose output has ceil(side / stride)."""

    def __init__(self, inward: int, outward: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inward, outward, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        padded = F.pad(x, same(x, self.kernel_size[0], self.stride[0]))
        return F.conv2d(padded, weight, stride=self.stride)


class _Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.gn1 = _Conv(ROOT, ROOT, 1), nn.GroupNorm(32, ROOT, eps=1e-4)
        self.conv2, self.gn2 = _Conv(ROOT, ROOT, 3), nn.GroupNorm(32, ROOT, eps=1e-4)
        self.conv3, self.gn3 = _Conv(ROOT, DEEP, 1), nn.GroupNorm(32, DEEP, eps=1e-4)
        self.conv_proj, self.gn_proj = _Conv(ROOT, DEEP, 1), nn.GroupNorm(32, DEEP, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        deep = F.relu(self.gn1(self.conv1(x)))
        deep = F.relu(self.gn2(self.conv2(deep)))
        return F.relu(self.gn3(self.conv3(deep)) + self.gn_proj(self.conv_proj(x)))


class _Encoder(nn.Module):
    def __init__(self, size: MusiqSize) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, size.width))
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, GRID * GRID, size.width)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(len(LONGER_SIDES) + 1, size.width)})
        self.transformer = nn.Sequential()
        for at in range(size.layers):
            self.transformer.add_module(f"encoderblock_{at}", _Block(size))
        self.encoder_norm = nn.LayerNorm(size.width, eps=EPSILON)

    def forward(self, tokens: Tensor, places: Tensor, scale: Tensor) -> Tensor:
        tokens = tokens + self.posembed_input["position_emb"][0][places] + self.scaleembed_input["scale_emb"][scale]
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        found: Tensor = self.encoder_norm(self.transformer(tokens))
        return found


class _Block(nn.Module):
    def __init__(self, size: MusiqSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.width, eps=EPSILON)
        self.attention = nn.ModuleDict(
            {name: nn.Linear(size.width, size.width) for name in ("query", "key", "value", "out")}
        )
        self.norm2 = nn.LayerNorm(size.width, eps=EPSILON)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(size.width, size.hidden), "fc2": nn.Linear(size.hidden, size.width)})

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        three = [self.attention[name](normed) for name in ("query", "key", "value")]
        tokens = tokens + self.attention["out"](attend(three, self.heads))
        found: Tensor = tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))
        return found
