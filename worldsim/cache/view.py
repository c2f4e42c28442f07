"""What one block sees of its context: gathered and rotated once, then attended to by every step."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from worldsim.cache.attention import attend_all
from worldsim.cache.context import Context
from worldsim.cache.mass import fewest, mass_by_probes
from worldsim.cache.policy import Seen
from worldsim.cache.pool import PagePool, PageShape
from worldsim.cache.rotary import Rotary, turn, turns
from worldsim.cache.sight import Sight
from worldsim.cache.stream import StreamView, fold, unfold
from worldsim.errors import ConfigError, ShapeError

ROUND = 512
"""Tokens by which the room for a view grows where frames are held in part, so that the same room does again."""
PROBES = 16
"""Queries of each frame that tell which of its tokens are salient."""


class ContextView:
    """The policy's choice of the past, laid out contiguously, with room behind it for the block itself.

    A copy: pages may be released and written anew while it lives. It has the dtype of the pool; keys are rotated in
    float32. Tokens stay outermost as in the pool: attention takes 0 to 4 % longer than with heads outermost, and a
    view of 24 frames of 81 tokens, 8 layers, 4 heads of 64 is built in 2.7 ms instead of 5.5 ms (one core).
    """

    def __init__(
        self,
        context: Context,
        seen: Sequence[Seen],
        *,
        rotary: Rotary,
        grid: tuple[int, int],
        frames: int,
        steered: Tensor | None = None,
    ) -> None:
        """Gather what a block of that many frames sees, each frame being grid = (rows, columns) of tokens.

        steered: if the pages are of a backbone with a steered stream, its keys and values of the frames seen,
            [2, layers, seen, heads, head_dim], before rotary embedding.

        Raises:
            ShapeError: the grid does not have as many tokens as a page, or steered is not of these pages and frames.
            ConfigError: the rotary does not fit the heads, or a frame is seen that is not held.
        """
        pool = context.pool
        shape = pool.shape
        _check_fit(shape, rotary, grid)
        _check_steered(shape, len(seen), steered)
        self.seen = tuple(seen)
        self.shape = shape
        self.frames = frames
        self._own = (1, frames * shape.tokens, shape.heads, shape.head_dim)
        read = [context.read(one.frame) for one in self.seen]
        self._lengths = [keys.shape[1] for keys, _, _ in read]
        self._past = sum(self._lengths)
        whole = self._past if self._past == len(self.seen) * shape.tokens else -(-self._past // ROUND) * ROUND
        main, *beside = self._rooms(pool, (shape.main, 1, whole + self._own[1], *self._own[2:]))
        self._keys, self._values = main[:, :, :, : self._past + self._own[1]]
        self._turns = torch.cat([turns(rotary, at, grid, shape.head_dim, pool.device) for at in range(frames)])
        end = 0
        for one, (keys, values, tokens) in zip(self.seen, read, strict=True):
            place = slice(end, end := end + keys.shape[1])
            by = turns(rotary, one.position, grid, shape.head_dim, pool.device)
            turn(keys[: shape.main], by if tokens is None else by[tokens], out=self._keys[:, 0, place])
            self._values[:, 0, place] = values[: shape.main]
        positions = [one.position for one in self.seen]
        self._beside = [
            StreamView(stream, room, positions=positions, frames=frames)
            for (stream, _), room in zip(shape.beside, beside, strict=True)
        ]
        self._fill_streams(read, steered)

    def _rooms(self, pool: PagePool, main: tuple[int, ...]) -> list[Tensor]:
        """Memory for keys and values of that size, and for those of each stream, which is the pool's again in the end.

        The size of a stream is in frames, whatever is held of them.
        """
        frames = len(self.seen) + self.frames
        sizes = [main, *((one.layers, frames, tokens, one.heads, one.head_dim) for one, tokens in self.shape.beside)]
        numbers = [math.prod(size) for size in sizes]
        room = pool.room(sum(numbers))
        weakref.finalize(self, pool.spare_rooms.append, room).atexit = False
        return [part.view(2, *size) for part, size in zip(room.split(numbers, dim=1), sizes, strict=True)]

    def _fill_streams(self, read: Sequence[tuple[Tensor, Tensor, Tensor | None]], steered: Tensor | None) -> None:
        start = self.shape.main
        for beside, layers in zip(self._beside, self.shape.folds, strict=False):
            place = slice(start, start := start + layers)
            for at, (keys, values, tokens) in enumerate(read):
                beside.put(at, unfold(keys[place], beside.stream), unfold(values[place], beside.stream), tokens)
        if steered is not None:
            for at in range(len(read)):
                self._beside[-1].put(at, *steered.detach()[:, :, at : at + 1])

    @torch.no_grad()
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the block's tokens over the seen past and the whole block; in layers of a stream, along time.

        Args:
            layer: which layer's past, see PageShape.
            q, k, v: the block's own, before rotary embedding, [1, frames * tokens, heads, head_dim]; left unchanged. Of
                a stream with its heads, and of the steered one with one key and value a frame.

        Returns:
            The attended values, like q, scaled by 1 / sqrt(head_dim). Gradients do not flow through a view.
        """
        if layer >= self.shape.main:
            return self._attend_along(layer - self.shape.main, q, k, v)
        if not q.shape == k.shape == v.shape == self._own:
            raise ShapeError(
                f"expected q, k and v of {self.frames} frames {list(self._own)}, "
                f"got {list(q.shape)}, {list(k.shape)} and {list(v.shape)}; open a view for the frames of the block"
            )
        keys, values = self._keys[layer], self._values[layer]
        turn(k, self._turns, out=keys[:, self._past :])
        values[:, self._past :] = v
        turned = torch.empty(self._own, dtype=keys.dtype, device=keys.device)
        turn(q, self._turns, out=turned)
        return attend_all(turned, keys, values).to(q.dtype)

    def _attend_along(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for beside in self._beside:
            if layer < beside.stream.layers:
                return beside.attend(layer, q, k, v)
            layer -= beside.stream.layers
        raise ShapeError(
            f"pages of {self.shape.attentions} layers of attention have none of that number; call each of them once"
        )

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
        turn(q, self._turns, out=turned)
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
        turn(q, self._turns, out=turned)
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
        self._own: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
        self._whole: dict[int, Tensor] = {}
        self._shares: list[Tensor] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As ContextView.attend; k and v are kept, not copied."""
        attended = self._view.attend(layer, q, k, v)
        self._own[0][layer], self._own[1][layer] = k.detach(), v.detach()
        self._whole.clear()
        if layer >= self._view.shape.main:
            return attended
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
        retrieved = tuple(seen.frame for seen in self._view.seen if seen.retrieved)
        shares = torch.stack(self._shares).mean(0).tolist() if self._shares else ()
        return Sight(frames=frames, retrieved=retrieved, shares=tuple(shares))

    @property
    def keys(self) -> Tensor:
        """The block's keys before rotary embedding, [layers, frames, tokens, heads, head_dim]."""
        return self._stack(0)

    @property
    def values(self) -> Tensor:
        """The block's values, [layers, frames, tokens, heads, head_dim]."""
        return self._stack(1)

    def _stack(self, which: int) -> Tensor:
        if which not in self._whole:
            self._whole[which] = self._stacked(self._own[which])
            # Of a long pass these take gigabytes: they go before the others are put together.
            self._own[which].clear()
        return self._whole[which]

    def _stacked(self, own: dict[int, Tensor]) -> Tensor:
        shape, frames = self._view.shape, self._view.frames
        if sorted(own) != list(range(shape.attentions)):
            raise ShapeError(
                f"a pass attends in each of {shape.attentions} layers, this one did in {sorted(own)}; "
                f"read the recording after the backbone has run"
            )
        parts, start = [torch.cat([own[layer] for layer in range(shape.main)])], shape.main
        for stream in shape.streams:
            end = start + stream.layers
            rows = torch.cat([own[layer] for layer in range(start, end)])
            start = end
            parts.append(fold(rows, shape.heads, shape.head_dim))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.view(shape.layers, frames, shape.tokens, shape.heads, shape.head_dim)


def _check_fit(shape: PageShape, rotary: Rotary, grid: tuple[int, int]) -> None:
    rows, columns = grid
    if rows * columns != shape.tokens:
        raise ShapeError(f"a grid of {rows}x{columns} tokens is not the {shape.tokens} tokens of a page")
    if shape.head_dim % 2 or rotary.time + rotary.rows + rotary.columns > shape.head_dim:
        raise ConfigError(f"{rotary} turns pairs of more dimensions than a head of {shape.head_dim} has")


def _check_steered(shape: PageShape, seen: int, steered: Tensor | None) -> None:
    stream = shape.steered
    wanted = None if stream is None else (2, stream.layers, seen, stream.heads, stream.head_dim)
    if (None if steered is None else tuple(steered.shape)) != wanted:
        raise ShapeError(
            f"expected keys and values that follow from what steered {seen} frames, {wanted and list(wanted)}, got "
            f"{None if steered is None else list(steered.shape)}; pass what steered() of the backbone says of them"
        )
