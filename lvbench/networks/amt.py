"""AMT-S: the picture in the middle of two, by flows from it to both that are mended with their correlation.

Source: Li et al. 2023 (arXiv:2304.09790), the small network. Parameters are named as in amt-s.pth.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvbench.networks.correlation import LEVELS, Correlation, places, turned, volume_of

RADIUS = 3
FLOWS = 3
"""Pairs of flow at the finest, of which each gives a picture."""
CHANNELS = (20, 32, 44, 56)
SIDE = 20
"""Channels that a block treats apart."""
SEEN = 2 * LEVELS * (2 * RADIUS + 1) ** 2
MIDDLE = 0.5


class Amt(nn.Module):
    """Two pictures [1, 3, H, W], 0 to 1, sides multiples of 16 of at least 128, to the one between, [1, 3, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse, coarsest = CHANNELS
        self.feat_encoder = _Features()
        self.encoder = _Pyramid()
        self.decoder4 = _Decoder(2 * coarsest, 1, coarse + 4)
        self.decoder3 = _Decoder(3 * coarse, 4, middle + 4)
        self.decoder2 = _Decoder(3 * middle, 4, fine + 4)
        self.decoder1 = _Decoder(3 * fine, 4, 8 * FLOWS)
        self.update4, self.update3, self.update2 = _Update(coarse, 1), _Update(middle, 2), _Update(fine, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FLOWS, 6 * FLOWS, 3, 1, 1), nn.PReLU(6 * FLOWS), nn.Conv2d(6 * FLOWS, 3, 3, 1, 1)
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """See the class."""
        mean = torch.cat([before, after], 2).mean((1, 2, 3), keepdim=True)
        befores, afters = self.encoder(before - mean), self.encoder(after - mean)
        views = self._views(before - mean, after - mean)

        when = torch.full_like(befores[3][:, :1], MIDDLE)
        out = self.decoder4(torch.cat([befores[3], afters[3], when], 1))
        flow, inner = _mended(self.update4, views, out[:, :4], out[:, 4:])
        for level, decoder, update in ((2, self.decoder3, self.update3), (1, self.decoder2, self.update2)):
            out = decoder(_drawn(inner, befores[level], afters[level], flow))
            flow, inner = _mended(update, views, out[:, :4] + _twice(flow), out[:, 4:])
        out = self.decoder1(_drawn(inner, befores[0], afters[0], flow))
        return self._merged(before - mean, after - mean, mean, _twice(flow), out)

    def _views(self, before: Tensor, after: Tensor) -> tuple[Correlation, Correlation]:
        """The correlation of two pictures from either side."""
        volume = volume_of(self.feat_encoder(before), self.feat_encoder(after))
        return Correlation(volume, RADIUS), Correlation(turned(volume), RADIUS)

    def _merged(self, before: Tensor, after: Tensor, mean: Tensor, flow: Tensor, out: Tensor) -> Tensor:
        """The mean of the pictures that the last flows give, and what is to be added to it."""
        sides, near = (before, after), flow.chunk(2, 1)
        steps = out[:, : 4 * FLOWS].chunk(2, 1)
        share = torch.sigmoid(out[:, 4 * FLOWS : 5 * FLOWS])
        rest = out[:, 5 * FLOWS :]
        pictures = []
        for at in range(FLOWS):
            two, three = slice(2 * at, 2 * at + 2), slice(3 * at, 3 * at + 3)
            moved = [warped(each, step[:, two] + start) for each, step, start in zip(sides, steps, near, strict=True)]
            first = share[:, at : at + 1]
            pictures.append(first * moved[0] + (1 - first) * moved[1] + mean + rest[:, three])
        found: Tensor = torch.stack(pictures).mean(0) + self.comb_block(torch.cat(pictures, 1))
        return found.clamp(0, 1)


def warped(picture: Tensor, flow: Tensor) -> Tensor:
    """A picture [n, C, H, W] fetched from where the flow [n, 2, H, W] points, in pixels; its edge goes on outside."""
    height, width = picture.shape[-2:]
    x, y = (torch.linspace(-1, 1, side, device=flow.device) for side in (width, height))
    grid = torch.stack(torch.broadcast_tensors(x, y[:, None]))
    span = flow.new_tensor([(width - 1) / 2, (height - 1) / 2]).view(2, 1, 1)
    points = (grid + flow / span).permute(0, 2, 3, 1)
    return F.grid_sample(picture, points, padding_mode="border", align_corners=True)


def _scaled(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _twice(flow: Tensor) -> Tensor:
    """Flow in pictures twice as large."""
    return 2 * _scaled(flow, 2)


def _drawn(inner: Tensor, before: Tensor, after: Tensor, flow: Tensor) -> Tensor:
    """What a decoder reads: both pictures' features drawn to the middle by a flow [n, 4, H, W] to before and after."""
    return torch.cat([inner, warped(before, flow[:, :2]), warped(after, flow[:, 2:]), flow], 1)


def _mended(
    update: _Update, views: tuple[Correlation, Correlation], flow: Tensor, inner: Tensor
) -> tuple[Tensor, Tensor]:
    """A flow and the features beside it, mended by what the pictures' correlation has where the flow leads."""
    small = flow if update.scale == 1 else _scaled(flow, 1 / update.scale) / update.scale
    start = places(small)
    # Moving from the middle to one picture goes half of the way from the other, in the same line.
    seen = [views[0].around(start + small[:, 2:] / MIDDLE), views[1].around(start + small[:, :2] / (1 - MIDDLE))]
    more_inner, more_flow = update(inner, small, torch.cat(seen, 1))
    return flow + more_flow, inner + more_inner


class _Features(nn.Module):
    """What is correlated, at an eighth of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(_Bottleneck(32, 32, 1), _Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(_Bottleneck(32, 64, 2), _Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(_Bottleneck(64, 96, 2), _Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, picture: Tensor) -> Tensor:
        deep = F.relu(F.instance_norm(self.conv1(picture)))
        found: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(deep))))
        return found


class _Bottleneck(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        narrow = outward // 4
        self.conv1 = nn.Conv2d(inward, narrow, 1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1)
        self.conv3 = nn.Conv2d(narrow, outward, 1)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inward, outward, 1, stride), nn.InstanceNorm2d(outward))

    def forward(self, x: Tensor) -> Tensor:
        deep = x
        for conv in (self.conv1, self.conv2, self.conv3):
            deep = F.relu(F.instance_norm(conv(deep)))
        return F.relu(self.downsample(x) + deep)


def _conv(inward: int, outward: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inward, outward, 3, stride, 1), nn.PReLU(outward))


class _Pyramid(nn.Module):
    """Features of a picture at a half, a quarter, an eighth and a sixteenth of its size."""

    def __init__(self) -> None:
        super().__init__()
        for level, (inward, outward) in enumerate(pairwise((3, *CHANNELS)), start=1):
            self.add_module(f"pyramid{level}", nn.Sequential(_conv(inward, outward, 2), _conv(outward, outward)))

    def forward(self, picture: Tensor) -> list[Tensor]:
        found = [picture]
        for level in self.children():
            found.append(level(found[-1]))
        return found[1:]


class _Decoder(nn.Module):
    """From one level of the pyramid to the next finer one."""

    def __init__(self, width: int, extra: int, out: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            _conv(width + extra, width), _Residual(width), nn.ConvTranspose2d(width, out, 4, 2, 1)
        )

    def forward(self, read: Tensor) -> Tensor:
        found: Tensor = self.convblock(read)
        return found


class _Residual(nn.Module):
    """A block that treats its last channels once more, twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(SIDE, SIDE)
        self.conv3, self.conv4 = _conv(width, width), _conv(SIDE, SIDE)
        self.conv5 = nn.Conv2d(width, width, 3, 1, 1)
        self.prelu = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        deep = x
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            deep = whole(deep)
            deep = torch.cat([deep[:, :-SIDE], side(deep[:, -SIDE:])], 1)
        found: Tensor = self.prelu(x + self.conv5(deep))
        return found


class _Update(nn.Module):
    """By how much flow and features are mended; worked out at an eighth of the picture, `scale` times smaller."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.convc1 = nn.Conv2d(SEEN, 64, 1)
        self.convf1, self.convf2 = nn.Conv2d(4, 40, 7, 1, 3), nn.Conv2d(40, 20, 3, 1, 1)
        self.conv = nn.Conv2d(64 + 20, 68, 3, 1, 1)
        self.gru = _two(68 + 4 + channels, 76)
        self.feat_head, self.flow_head = _two(76, channels), _two(76, 4)

    def forward(self, inner: Tensor, flow: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        if self.scale > 1:
            inner = _scaled(inner, 1 / self.scale)
        moved = _leaky(self.convf2(_leaky(self.convf1(flow))))
        both = _leaky(self.conv(torch.cat([_leaky(self.convc1(seen)), moved], 1)))
        state = self.gru(torch.cat([both, flow, inner], 1))
        more_inner, more_flow = self.feat_head(state), self.flow_head(state)
        if self.scale > 1:
            more_inner, more_flow = _scaled(more_inner, self.scale), self.scale * _scaled(more_flow, self.scale)
        return more_inner, more_flow


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _two(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inward, 76, 3, 1, 1), nn.LeakyReLU(0.1), nn.Conv2d(76, outward, 3, 1, 1))
