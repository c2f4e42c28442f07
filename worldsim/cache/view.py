"""What one block sees of its context: gathered and rotated once, then attended to by every step."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worldsim.cache.context import Context
from worldsim.cache.policy import Policy
from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError, ShapeError


class ContextView:
    """The policy's choice of the past, laid out contiguously, with room behind it for the block itself.

    A copy: pages may be released and written anew while it lives. It has the dtype of the pool; keys are rotated in
    float32. Tokens stay outermost as in the pool: attention takes 0 to 4 % longer than with heads outermost, and a
    view of 24 frames of 81 tokens, 8 layers, 4 heads of 64 is built in 2.7 ms instead of 5.5 ms (one core).
    """

    def __init__(self, context: Context, policy: Policy, *, rotary: Rotary, grid: tuple[int, int], frames: int) -> None:
        """Gather what a block of that many frames sees, each frame being grid = (rows, columns) of tokens.

        Raises:
            ShapeError: the grid does not have as many tokens as a page.
            ConfigError: the rotary does not fit the heads, or the policy names a frame that is not held.
        """
        pool = context.pool
        shape = pool.shape
        _check_fit(shape, rotary, grid)
        self.seen = tuple(policy.see(context.frames, context.next_frame))
        self.shape = shape
        self.frames = frames
        self._own = (1, frames * shape.tokens, shape.heads, shape.head_dim)
        self._past = len(self.seen) * shape.tokens
        room = pool.room(1, self._past + frames * shape.tokens)
        weakref.finalize(self, pool.spare_rooms.append, room).atexit = False
        self._keys, self._values = room
        self._turns = _turns(rotary, range(frames), grid, shape.head_dim).to(pool.device)
        past = _turns(rotary, [seen.position for seen in self.seen], grid, shape.head_dim).to(pool.device)
        for at, seen in enumerate(self.seen):
            keys, values = pool.read(context.page(seen.frame))
            place = slice(at * shape.tokens, (at + 1) * shape.tokens)
            _turn(keys, past[place], out=self._keys[:, 0, place])
            self._values[:, 0, place] = values

    @torch.no_grad()
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the block's tokens over the seen past and the whole block.

        Args:
            layer: which layer's past.
            q, k, v: the block's own, before rotary embedding, [1, frames * tokens, heads, head_dim]; left unchanged.

        Returns:
            The attended values, like q, scaled by 1 / sqrt(head_dim). Gradients do not flow through a view.
        """
        if not q.shape == k.shape == v.shape == self._own:
            raise ShapeError(
                f"expected q, k and v of {self.frames} frames {list(self._own)}, "
                f"got {list(q.shape)}, {list(k.shape)} and {list(v.shape)}; open a view for the frames of the block"
            )
        keys, values = self._keys[layer], self._values[layer]
        _turn(k, self._turns, out=keys[:, self._past :])
        values[:, self._past :] = v
        turned = torch.empty(self._own, dtype=keys.dtype, device=keys.device)
        _turn(q, self._turns, out=turned)
        attended = scaled_dot_product_attention(turned.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
        return attended.transpose(1, 2).to(q.dtype)


class Recording:
    """Attention through a view that also keeps the block's own keys and values, for the commit."""

    def __init__(self, view: ContextView) -> None:
        self._view = view
        self._own: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As ContextView.attend; k and v are kept, not copied."""
        attended = self._view.attend(layer, q, k, v)
        self._own[layer] = k.detach(), v.detach()
        return attended

    @property
    def keys(self) -> Tensor:
        """The block's keys before rotary embedding, [layers, frames, tokens, heads, head_dim]."""
        return self._stack(0)

    @property
    def values(self) -> Tensor:
        """The block's values, [layers, frames, tokens, heads, head_dim]."""
        return self._stack(1)

    def _stack(self, which: int) -> Tensor:
        shape = self._view.shape
        if sorted(self._own) != list(range(shape.layers)):
            raise ShapeError(
                f"a pass attends in each of {shape.layers} layers, this one did in {sorted(self._own)}; "
                f"read the recording after the backbone has run"
            )
        own = torch.cat([self._own[layer][which] for layer in range(shape.layers)])
        return own.view(shape.layers, self._view.frames, shape.tokens, shape.heads, shape.head_dim)


def _check_fit(shape: PageShape, rotary: Rotary, grid: tuple[int, int]) -> None:
    rows, columns = grid
    if rows * columns != shape.tokens:
        raise ShapeError(f"a grid of {rows}x{columns} tokens is not the {shape.tokens} tokens of a page")
    if shape.head_dim % 2 or rotary.time + rotary.rows + rotary.columns > shape.head_dim:
        raise ConfigError(f"{rotary} turns pairs of more dimensions than a head of {shape.head_dim} has")


def _turns(rotary: Rotary, times: Sequence[int], grid: tuple[int, int], head_dim: int) -> Tensor:
    """The turn of every pair of every token as a complex number, [len(times) * rows * columns, 1, head_dim / 2]."""
    angles = rotary.angles(times, *grid)
    whole = torch.nn.functional.pad(angles, (0, head_dim // 2 - angles.shape[1]))
    return torch.polar(torch.ones_like(whole), whole)[:, None]


def _turn(x: Tensor, turns: Tensor, *, out: Tensor) -> None:
    """Write x [..., tokens, heads, head_dim] to out, its pairs turned as complex numbers.

    Equal to rotary.rotate up to rounding: one pass over memory, a tenth of its time, and no gradients.
    """
    if x.dtype == out.dtype == torch.float32:
        torch.mul(_pairs(x), turns, out=_pairs(out))
    else:
        out.copy_(torch.view_as_real(_pairs(x.float()) * turns).flatten(-2))


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
