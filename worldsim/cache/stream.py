"""Streams: keys and values beside those of the main attention, of which a token sees its own in every frame.

Source: the action modules of Matrix-Game 2.0, He et al. 2025 (arXiv:2508.13009), whose mouse attention runs along time
for each token of a frame by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from worldsim.cache.rotary import Rotary, turn, turns
from worldsim.errors import ConfigError, ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The shape of one: its layers, and heads of its own.

    rotary: how its keys turn with time; there are no rows and columns, since tokens of other places are not seen.
    """

    layers: int
    heads: int
    head_dim: int
    rotary: Rotary

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.head_dim) < 1:
            raise ConfigError(f"every size of a stream is at least 1, got {self}")
        if self.rotary.rows or self.rotary.columns or self.head_dim % 2 or self.rotary.time > self.head_dim:
            raise ConfigError(
                f"heads of a stream are even and turn with time alone, in no more than they are, got {self}"
            )

    @property
    def numbers(self) -> int:
        """How many numbers the keys of one token are, those of all layers; its values are as many."""
        return self.layers * self.heads * self.head_dim


def fold(rows: Tensor, heads: int, head_dim: int) -> Tensor:
    """Keys or values of a stream, [layers, n, its heads, its head_dim], as those of pages: [m, n, heads, head_dim].

    m is as few as hold them. What a token has in all layers stays with that token, row behind row, zeros behind the
    last: whatever drops, packs or encodes tokens of a page does the same to those of the stream.
    """
    numbers = rows.transpose(0, 1).flatten(1)
    filled = pad(numbers, (0, -numbers.shape[1] % (heads * head_dim)))
    folded: Tensor = filled.unflatten(1, (-1, heads, head_dim)).transpose(0, 1)
    return folded


def unfold(pages: Tensor, stream: Stream) -> Tensor:
    """What was folded, [layers, n, its heads, its head_dim]."""
    numbers = pages.transpose(0, 1).flatten(1)[:, : stream.numbers]
    rows: Tensor = numbers.unflatten(1, (stream.layers, stream.heads, stream.head_dim)).transpose(0, 1)
    return rows


class StreamView:
    """What one block sees of a stream, with room behind it for the block itself: the part of a ContextView.

    Args:
        stream: its shape.
        room: memory of any content, [2, layers, frames seen + frames of the block, tokens, heads, head_dim]; tokens is
            1 where one stands for all of a frame.
        positions: of the frames seen.
        frames: of the block.
    """

    def __init__(self, stream: Stream, room: Tensor, *, positions: Sequence[int], frames: int) -> None:
        self.stream = stream
        self.tokens = room.shape[3]
        self.frames = frames
        self._keys, self._values = room
        self._past = len(positions)
        self._turns = [self._turn_at(position) for position in positions]
        self._own = torch.stack([self._turn_at(position) for position in range(frames)])
        self._mask: Tensor | None = None

    def put(self, at: int, keys: Tensor, values: Tensor, tokens: Tensor | None = None) -> None:
        """Take in one of the frames seen.

        Args:
            at: which of them.
            keys, values: before rotary embedding, [layers, n, heads, head_dim].
            tokens: which of the frame these are, int64 [n]; None for all. The others do not see it.
        """
        if tokens is None:
            turn(keys, self._turns[at], out=self._keys[:, at])
            self._values[:, at] = values
            return
        if self._mask is None:
            self._mask = torch.ones(self.tokens, 1, 1, self._keys.shape[1], dtype=torch.bool, device=self._keys.device)
        self._mask[:, :, :, at] = False
        self._mask[tokens, :, :, at] = True
        turned = torch.empty(keys.shape, dtype=self._keys.dtype, device=keys.device)
        turn(keys, self._turns[at], out=turned)
        for side, some in ((self._keys, turned), (self._values, values)):
            side[:, at] = 0  # what is not seen has to be a number even so
            side[:, at, tokens] = some.to(side.dtype)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the block's tokens, each over its own in the frames seen and in the whole block.

        Args:
            layer: of the stream.
            q: the block's own, before rotary embedding, [1, frames * tokens, heads, head_dim]; where one token stands
                for all of a frame, as many of each frame as ask it, [1, frames * n, heads, head_dim].
            k, v: alike, [1, frames * tokens, heads, head_dim]; all left unchanged.

        Returns:
            The attended values, like q, scaled by 1 / sqrt(head_dim).

        Raises:
            ShapeError: they are not of this stream and block.
        """
        keys, values = self._keys[layer], self._values[layer]
        own = keys[self._past :]
        self._check(q, k, v)
        turn(k.view(own.shape), self._own, out=own)
        values[self._past :] = v.view(own.shape)
        turned = torch.empty(self.frames, q.shape[1] // self.frames, *own.shape[2:], dtype=own.dtype, device=own.device)
        turn(q.view(turned.shape), self._own, out=turned)
        # A row for each token that has keys of its own, [tokens, heads, frames * those that ask it, head_dim].
        asked = turned.unflatten(1, (self.tokens, -1)).permute(1, 3, 0, 2, 4).flatten(2, 3)
        seen = [side.permute(1, 2, 0, 3) for side in (keys, values)]
        answer = scaled_dot_product_attention(asked, seen[0], seen[1], attn_mask=self._mask)
        attended: Tensor = answer.unflatten(2, (self.frames, -1)).permute(2, 0, 3, 1, 4)
        return attended.reshape(q.shape).to(q.dtype)

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        own = torch.Size((1, self.frames * self.tokens, self.stream.heads, self.stream.head_dim))
        asked = q.shape[1] if q.ndim == 4 and self.tokens == 1 and q.shape[1] % self.frames == 0 else own[1]
        if k.shape != own or v.shape != own or q.shape != (own[0], asked, *own[2:]):
            raise ShapeError(
                f"expected q, k and v of a stream in {self.frames} frames {list(own)}, got {list(q.shape)}, "
                f"{list(k.shape)} and {list(v.shape)}; open a view for the frames of the block"
            )

    def _turn_at(self, position: int) -> Tensor:
        return turns(self.stream.rotary, position, (1, 1), self.stream.head_dim, self._keys.device)
