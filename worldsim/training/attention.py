"""Attention of a training pass: every block at once, each seeing the clean blocks before it and itself.

A pass holds two streams of frames: a clean stream, all frames of the window, and a noisy stream, copies of some of
them. A noisy block sees the clean frames before it and itself; a clean block the same. That is what a decoder with a
cache sees block after block, so one pass trains what many calls will do (teacher forcing as in block diffusion,
Arriola et al. 2025, arXiv:2503.09573, section 3, without its mask: one call of attention per block wastes nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worldsim.cache.rotary import Rotary, rotate
from worldsim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayout:
    """Which frames stand where in a training pass.

    The clean stream holds frames 0 .. frames - 1. Each of `copies` noisy streams behind it holds frames
    first .. frames - 1. Blocks have `block` frames and begin at multiples of it. A block sees at most `window`
    frames before it; where that is 0 nobody looks at the clean stream, and the pass goes without it.
    """

    frames: int
    block: int
    window: int
    first: int = 0
    copies: int = 1

    def __post_init__(self) -> None:
        if self.frames % self.block or self.first % self.block or not 0 <= self.first < self.frames:
            raise ConfigError(f"frames and first must be multiples of the block and first < frames, got {self}")
        if self.window < 0 or self.copies < 0 or not self.window + self.copies:
            raise ConfigError(f"need a window and copies of 0 or more, and not both 0, got {self}")

    @property
    def clean(self) -> int:
        """Frames of the clean stream."""
        return self.frames if self.window else 0

    @property
    def times(self) -> tuple[int, ...]:
        """The time of every frame of the pass, clean stream first."""
        return (*range(self.clean), *(list(range(self.first, self.frames)) * self.copies))

    def blocks(self) -> list[tuple[slice, slice]]:
        """For every block of every stream, in order: the frames of its queries, the clean frames it sees before it."""
        noisy = self.frames - self.first
        streams = [(0, 0)] if self.clean else []
        streams += [(self.clean + copy * noisy, self.first) for copy in range(self.copies)]
        found = []
        for offset, begin in streams:
            for time in range(begin, self.frames, self.block):
                at = offset + time - begin
                found.append((slice(at, at + self.block), slice(max(0, time - self.window), time)))
        return found


class StreamAttention:
    """The Attend of one training pass over [B, F * tokens_per_frame, heads, head_dim].

    On a CPU block after block, which wastes nothing; on a GPU all of them in one call under a mask, because so many
    small ones would cost more than the half of the products that the mask throws away.
    """

    def __init__(self, layout: StreamLayout, *, rotary: Rotary, grid: tuple[int, int], device: torch.device) -> None:
        self._layout = layout
        self._tokens = grid[0] * grid[1]
        self._angles = _angles(layout, rotary, grid, device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """See worldsim.models.protocol.Attend; the layer does not matter here."""
        if q.is_cuda:
            return attend_masked(q, k, v, self._angles, stream_mask(self._layout, self._tokens, q.device))
        q, k, v = (x.transpose(1, 2) for x in (rotate(q, self._angles), rotate(k, self._angles), v))
        attended = []
        for own, past in self._layout.blocks():
            mine, seen = self._span(own), self._span(past)
            keys = torch.cat((k[:, :, seen], k[:, :, mine]), dim=2)
            values = torch.cat((v[:, :, seen], v[:, :, mine]), dim=2)
            attended.append(_attention(q[:, :, mine], keys, values))
        return torch.cat(attended, dim=2).transpose(1, 2)

    def _span(self, frames: slice) -> slice:
        return slice(frames.start * self._tokens, frames.stop * self._tokens)


@lru_cache(maxsize=16)
def stream_mask(layout: StreamLayout, tokens: int, device: torch.device) -> Tensor:
    """Which tokens of a pass see which, `tokens` of them a frame: bool [F * tokens, F * tokens]."""
    sees = torch.zeros(len(layout.times), len(layout.times), dtype=torch.bool)
    for own, past in layout.blocks():
        sees[own, own] = sees[own, past] = True
    return sees.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1).to(device)


def attend_masked(q: Tensor, k: Tensor, v: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
    """Rotate queries and keys, [B, tokens, heads, head_dim], and attend under a mask [tokens, tokens]."""
    q, k, v = (x.transpose(1, 2) for x in (rotate(q, angles), rotate(k, angles), v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


@lru_cache(maxsize=16)
def _angles(layout: StreamLayout, rotary: Rotary, grid: tuple[int, int], device: torch.device) -> Tensor:
    return rotary.angles(layout.times, *grid, device=device)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention, [B, heads, tokens, head_dim].

    Spelled out: forward and backward of torch's fused call took 1.1 to 2.4 times as long on a CPU (bf16, 81 to 324
    queries, 648 to 1,296 keys, one thread).
    """
    attended: Tensor = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    return attended
