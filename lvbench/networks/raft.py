"""RAFT: where each pixel of one picture is in another, as a guess that is mended in rounds.

Source: Teed and Deng 2020 (arXiv:2003.12039), the large network. Parameters are named as in raft-things.pth.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvbench.networks.correlation import LEVELS, Correlation, places, volume_of

STEP = 8
"""Pixels of the picture to one place of its features."""
RADIUS, HIDDEN = 4, 128
SEEN = LEVELS * (2 * RADIUS + 1) ** 2


class Raft(nn.Module):
    """Two pictures [n, 3, H, W], 0 to 255, sides multiples of 8 of at least 128, to flow [n, 2, H, W] in pixels."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.fnet = _Encoder(256, nn.InstanceNorm2d)
        self.cnet = _Encoder(2 * HIDDEN, nn.BatchNorm2d)
        self.update_block = _Update()

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """See the class."""
        one, other = (2 * (picture / 255) - 1 for picture in (one, other))
        correlation = Correlation(volume_of(self.fnet(one), self.fnet(other)), RADIUS)
        state, context = self.cnet(one).chunk(2, 1)
        state, context = torch.tanh(state), torch.relu(context)
        start = places(state)
        found = start.expand(len(state), -1, -1, -1)
        for _ in range(self.rounds):
            state, step = self.update_block(state, context, correlation.around(found), found - start)
            found = found + step
        return _enlarged(found - start, self.update_block.weights(state))


def _enlarged(flow: Tensor, weights: Tensor) -> Tensor:
    """Flow [n, 2, h, w] eight times as large: each pixel a mean of the 3 x 3 places around its own, as weighted."""
    count, _, height, width = flow.shape
    share = weights.view(count, 1, 9, STEP, STEP, height, width).softmax(2)
    near = F.unfold(STEP * flow, 3, padding=1).view(count, 2, 9, 1, 1, height, width)
    fine = (share * near).sum(2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(count, 2, STEP * height, STEP * width)


class _Encoder(nn.Module):
    def __init__(self, out: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 64, 7, 2, 3), norm(64)
        self.layer1 = nn.Sequential(_Residual(64, 64, 1, norm), _Residual(64, 64, 1, norm))
        self.layer2 = nn.Sequential(_Residual(64, 96, 2, norm), _Residual(96, 96, 1, norm))
        self.layer3 = nn.Sequential(_Residual(96, 128, 2, norm), _Residual(128, 128, 1, norm))
        self.conv2 = nn.Conv2d(128, out, 1)

    def forward(self, picture: Tensor) -> Tensor:
        deep = F.relu(self.norm1(self.conv1(picture)))
        found: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(deep))))
        return found


class _Residual(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inward, outward, 3, stride, 1), norm(outward)
        self.conv2, self.norm2 = nn.Conv2d(outward, outward, 3, 1, 1), norm(outward)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.norm3 = norm(outward)  # the published weights name it twice
            self.downsample = nn.Sequential(nn.Conv2d(inward, outward, 1, stride), self.norm3)

    def forward(self, x: Tensor) -> Tensor:
        deep = F.relu(self.norm1(self.conv1(x)))
        deep = F.relu(self.norm2(self.conv2(deep)))
        return F.relu(self.downsample(x) + deep)


class _Update(nn.Module):
    """One round: what is remembered and by how much the flow is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Motion()
        self.gru = _Memory()
        self.flow_head = nn.ModuleDict({"conv1": nn.Conv2d(HIDDEN, 256, 3, 1, 1), "conv2": nn.Conv2d(256, 2, 3, 1, 1)})
        self.mask = nn.Sequential(nn.Conv2d(HIDDEN, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 9 * STEP * STEP, 1))

    def forward(self, state: Tensor, context: Tensor, seen: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        state = self.gru(state, torch.cat([context, self.encoder(seen, flow)], 1))
        return state, self.flow_head["conv2"](F.relu(self.flow_head["conv1"](state)))

    def weights(self, state: Tensor) -> Tensor:
        found: Tensor = 0.25 * self.mask(state)
        return found


class _Motion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1, self.convc2 = nn.Conv2d(SEEN, 256, 1), nn.Conv2d(256, 192, 3, 1, 1)
        self.convf1, self.convf2 = nn.Conv2d(2, 128, 7, 1, 3), nn.Conv2d(128, 64, 3, 1, 1)
        self.conv = nn.Conv2d(64 + 192, HIDDEN - 2, 3, 1, 1)

    def forward(self, seen: Tensor, flow: Tensor) -> Tensor:
        alike = F.relu(self.convc2(F.relu(self.convc1(seen))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([alike, moved], 1))), flow], 1)


class _Memory(nn.Module):
    """A gated unit that looks along rows, then along columns."""

    def __init__(self) -> None:
        super().__init__()
        for along, (kernel, padding) in {"1": ((1, 5), (0, 2)), "2": ((5, 1), (2, 0))}.items():
            for gate in ("z", "r", "q"):
                self.add_module(f"conv{gate}{along}", nn.Conv2d(3 * HIDDEN, HIDDEN, kernel, 1, padding))

    def forward(self, state: Tensor, heard: Tensor) -> Tensor:
        for along in ("1", "2"):
            both = torch.cat([state, heard], 1)
            update, reset = (torch.sigmoid(self.get_submodule(f"conv{gate}{along}")(both)) for gate in ("z", "r"))
            fresh = torch.tanh(self.get_submodule(f"convq{along}")(torch.cat([reset * state, heard], 1)))
            state = (1 - update) * state + update * fresh
        return state
