"""What one block sees of its context: gathered and rotated once, then attended to by every step."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worldsim.cache.context import Context
from worldsim.cache.mass import fewest, mass_by_probes
from worldsim.cache.policy import Seen
from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.cache.sight import Sight
from worldsim.errors import ConfigError, ShapeError

ROUND = 512
"""Tokens by which the room for a view grows where frames are held in part, so that the same room does again."""
POSITIONS = 128
"""Positions of frames whose turns are kept: of 1,560 tokens with heads of 128, 0.8 MB each."""
PROBES = 16
"""Queries of each frame that tell which of its tokens are salient."""


class ContextView:
    """The policy's choice of the past, laid out contiguously, with room behind it for the block itself.

    A copy: pages may be released and written anew while it lives. It has the dtype of the pool; keys are rotated in
    float32. Tokens stay outermost as in the pool: attention takes 0 to 4 % longer than with heads outermost, and a
    view of 24 frames of 81 tokens, 8 layers, 4 heads of 64 is built in 2.7 ms instead of 5.5 ms (one core).
    """

    def __init__(
        self, context: Context, seen: Sequence[Seen], *, rotary: Rotary, grid: tuple[int, int], frames: int
    ) -> None:
        """Gather what a block of that many frames sees, each frame being grid = (rows, columns) of tokens.

        Raises:
            ShapeError: the grid does not have as many tokens as a page.
            ConfigError: the rotary does not fit the heads, or a frame is seen that is not held.
        """
        pool = context.pool
        shape = pool.shape
        _check_fit(shape, rotary, grid)
        self.seen = tuple(seen)
        self.shape = shape
        self.frames = frames
        self._own = (1, frames * shape.tokens, shape.heads, shape.head_dim)
        read = [context.read(one.frame) for one in self.seen]
        self._lengths = [keys.shape[1] for keys, _, _ in read]
        self._past = sum(self._lengths)
        whole = self._past if self._past == len(self.seen) * shape.tokens else -(-self._past // ROUND) * ROUND
        room = pool.room(1, whole + frames * shape.tokens)
        weakref.finalize(self, pool.spare_rooms.append, room).atexit = False
        self._keys, self._values = room[:, :, :, : self._past + frames * shape.tokens]
        self._turns = torch.cat([_turns(rotary, at, grid, shape.head_dim, pool.device) for at in range(frames)])
        end = 0
        for one, (keys, values, tokens) in zip(self.seen, read, strict=True):
            place = slice(end, end := end + keys.shape[1])
            turns = _turns(rotary, one.position, grid, shape.head_dim, pool.device)
            _turn(keys, turns if tokens is None else turns[tokens], out=self._keys[:, 0, place])
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

    @torch.no_grad()
    def shares(self, layer: int, q: Tensor, *, probes: int) -> Tensor:
        """How much of a layer's attention each seen frame receives, float32 [len(seen)]; the rest stays in the block.

        Args:
            layer: one in which `attend` was called last with these queries.
            q: as for `attend`.
            probes: how many of the queries are asked at most, see mass_by_probes.
        """
        keys = self._keys[layer][0]
        turned = torch.empty(self._own, dtype=keys.dtype, device=keys.device)
        _turn(q, self._turns, out=turned)
        mass = mass_by_probes(turned[0], keys, probes=probes)
        return torch.stack([part.sum() for part in mass[: self._past].split(self._lengths)]) if self.seen else mass[:0]

    @torch.no_grad()
    def salience(self, layer: int, q: Tensor) -> Tensor:
        """How much of the attention within the block each of its tokens receives, float32 [frames, tokens].

        Args:
            layer, q: as for `shares`.

        Source: BlockVid, Zhang et al. 2025 (arXiv:2511.22973), semantic sparse cache, of which see mass_by_probes.
        """
        keys = self._keys[layer][0, self._past :]
        turned = torch.empty(self._own, dtype=keys.dtype, device=keys.device)
        _turn(q, self._turns, out=turned)
        return mass_by_probes(turned[0], keys, probes=PROBES * self.frames).view(self.frames, -1)


class Recording:
    """Attention through a view that also keeps the block's own keys and values, for the commit.

    Args:
        view: of the block.
        probes: how many queries are asked in every layer what they attend to; none if 0.
        tau: the share of attention that the salient tokens of a frame hold; 1 asks for none.
    """

    def __init__(self, view: ContextView, *, probes: int = 0, tau: float = 1.0) -> None:
        self._view = view
        self._probes = probes
        self._tau = tau
        self._salience: list[Tensor] = []
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._shares: list[Tensor] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As ContextView.attend; k and v are kept, not copied."""
        attended = self._view.attend(layer, q, k, v)
        self._own[layer] = k.detach(), v.detach()
        if self._probes:
            self._shares.append(self._view.shares(layer, q, probes=self._probes))
        if self._tau < 1:
            self._salience.append(self._view.salience(layer, q))
        return attended

    @property
    def salient(self) -> list[Tensor]:
        """Of each frame the fewest tokens that hold the share tau of attention, its mean over layers; [] if unasked."""
        return [fewest(mass, self._tau) for mass in torch.stack(self._salience).mean(0).cpu()] if self._salience else []

    @property
    def sight(self) -> Sight:
        """What the block saw, with the shares of attention if any queries were asked."""
        frames = tuple(seen.frame for seen in self._view.seen)
        shares = torch.stack(self._shares).mean(0).tolist() if self._shares else ()
        return Sight(frames=frames, shares=tuple(shares))

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


@lru_cache(maxsize=POSITIONS)
def _turns(rotary: Rotary, time: int, grid: tuple[int, int], head_dim: int, device: torch.device) -> Tensor:
    """The turn of every pair of every token of a frame as a complex number, [rows * columns, 1, head_dim / 2]."""
    with torch.inference_mode(False):
        angles = rotary.angles([time], *grid)
        whole = torch.nn.functional.pad(angles, (0, head_dim // 2 - angles.shape[1]))
        return torch.polar(torch.ones_like(whole), whole)[:, None].to(device)


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
