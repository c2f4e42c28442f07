"""Block-diffusion video without a cache: the whole past goes through the backbone again at every call.

The definition that worldsim.decoding.video is judged by. Slow, and in any dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from worldsim.cache.policy import Alike, Full, Policy, nothing_alike
from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.decoding.likeness import Looks
from worldsim.decoding.loop import decide
from worldsim.decoding.noise_plan import PLAIN
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.rolling import Ahead
from worldsim.decoding.video import LatentBlock
from worldsim.errors import ConfigError
from worldsim.models.protocol import Attend, Backbone, Memory, RememberingBackbone
from worldsim.noise import block_noise, uniforms
from worldsim.samplers import LatentCanvas

_NOTHING: Memory = {}


class WholeAttention:
    """The Attend of one call on all blocks of a session: each sees the policy's choice of the frames before it."""

    def __init__(
        self,
        lengths: Sequence[int],
        policy: Policy,
        *,
        rotary: Rotary,
        grid: tuple[int, int],
        alike: Callable[[int], Alike] = lambda block: nothing_alike,
        last: Policy | None = None,
    ) -> None:
        """Blocks of that many frames each, every frame being grid = (rows, columns) of tokens.

        alike: how like each frame is to what comes in the block that begins with that frame.
        last: what the last block sees by; None for the policy of all others.
        """
        starts = accumulate(lengths[:-1], initial=0)
        self._blocks = [range(start, start + frames) for start, frames in zip(starts, lengths, strict=True)]
        policies = [*[policy] * (len(lengths) - 1), policy if last is None else last]
        self._seen = [
            each.see(range(own.start), own.start, alike(own.start))
            for each, own in zip(policies, self._blocks, strict=True)
        ]
        self._first = min((one.position for seen in self._seen for one in seen), default=0)
        self._times = range(self._first, max(lengths))
        self._turns = _turns(rotary, self._times, grid)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """See worldsim.models.protocol.Attend; batch 1, computed in the dtype of q."""
        q, k, v = self._frames(q, k, v)
        attended = []
        for own, frames, positions in self._looks():
            keys = self._turn(self._turns, k[frames], positions).flatten(0, 1)
            queries = self._turn(self._turns, q[own], range(len(own))).flatten(0, 1)
            scores = torch.einsum("qhd,khd->hqk", queries, keys) * q.shape[-1] ** -0.5
            attended.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[frames].flatten(0, 1)))
        return torch.cat(attended)[None]

    def over(self, pages: PageShape) -> Attend:
        """The same in the main layers of a backbone with these pages, and along time in those of its streams."""
        turned = [_turns(one.rotary, self._times, (1, 1)) for one, _ in pages.beside for _ in range(one.layers)]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
            return self(layer, q, k, v) if layer < pages.main else self._along(turned[layer - pages.main], q, k, v)

        return attend

    def _along(self, turns: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of every token over its own in the frames that its block sees; keys may be one for all tokens of a frame."""
        q, k, v = self._frames(q, k, v)
        k, v = (x.expand(-1, q.shape[1], -1, -1) for x in (k, v))
        attended = []
        for own, frames, positions in self._looks():
            queries, keys = self._turn(turns, q[own], range(len(own))), self._turn(turns, k[frames], positions)
            scores = torch.einsum("fthd,gthd->htfg", queries, keys) * q.shape[-1] ** -0.5
            attended.append(torch.einsum("htfg,gthd->fthd", scores.softmax(-1), v[frames]).flatten(0, 1))
        return torch.cat(attended)[None]

    def _frames(self, *tensors: Tensor) -> list[Tensor]:
        """Tensors [1, F * n, heads, head_dim] frame by frame, [F, n, heads, head_dim]."""
        return [x[0].unflatten(0, (self._blocks[-1].stop, -1)) for x in tensors]

    def _looks(self) -> Iterator[tuple[range, list[int], list[int]]]:
        """Of every block its own frames, and the frames that it sees with their positions, its own among them."""
        for own, seen in zip(self._blocks, self._seen, strict=True):
            yield own, [*(one.frame for one in seen), *own], [*(one.position for one in seen), *range(len(own))]

    def _turn(self, turns: Tensor, x: Tensor, positions: Sequence[int]) -> Tensor:
        """Queries or keys [F, tokens, heads, head_dim] turned to those positions."""
        by = turns[[position - self._first for position in positions]][:, :, None]
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        turned = pairs[..., : by.shape[-1]] * by.to(pairs.dtype)
        whole = torch.cat((turned, pairs[..., by.shape[-1] :]), dim=-1)
        rotated: Tensor = torch.view_as_real(whole).flatten(-2)
        return rotated


def _turns(rotary: Rotary, times: range, grid: tuple[int, int]) -> Tensor:
    """The turn of every rotated pair of every token at those times, complex128 [times, tokens, pairs]."""
    rows, columns = grid
    places = torch.cartesian_prod(torch.tensor(times), torch.arange(rows), torch.arange(columns)).double()
    angles = [
        axis[:, None] * rotary.theta ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
        for axis, size in zip(places.unbind(1), (rotary.time, rotary.rows, rotary.columns), strict=True)
    ]
    whole = torch.cat(angles, dim=1)
    turns: Tensor = torch.polar(torch.ones_like(whole), whole).unflatten(0, (len(times), -1))
    return turns


@dataclass(slots=True, eq=False)
class RecomputingDecoder:
    """What a VideoDecoder does, by its definition. Computes in the dtype of the blocks and the backbone.

    Args:
        backbone, plan, seed: as for a VideoDecoder. The policy of a plan that rolls must hold all that is seen.
        past: the blocks that were given, at least one.

    ahead: under a plan that rolls, the blocks on their way, each [1, frames_per_block, C, H, W].
    """

    backbone: Backbone
    plan: VideoPlan
    seed: int
    past: list[LatentBlock]
    given: int = field(init=False)
    ahead: tuple[Tensor, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        self.given = len(self.past)
        if self.plan.policy.sparse is not None or self.plan.noise != PLAIN or not self.plan.clean_pass:
            raise ConfigError(
                f"by its definition a block sees clean frames, whole, and begins as noise of its own, got "
                f"{self.plan.policy}, {self.plan.noise} and clean_pass={self.plan.clean_pass}; choose a policy that "
                "holds frames whole, plain noise and a clean pass"
            )

    @torch.no_grad()
    def propose(self, controls: Tensor) -> LatentBlock:
        """The next block under controls [1, frames_per_block, A]. Changes nothing."""
        if self.plan.rolling is not None:
            return self._roll(controls)

        def estimate(canvas: LatentCanvas) -> Tensor:
            block = LatentBlock(latents=canvas.values, controls=controls)
            return self._estimate(block, [canvas.sigma], self._dice([canvas.at]))

        canvas = LatentCanvas(self._fresh(0, 0), self.plan.sigmas, partial(self._fresh, 0))
        return LatentBlock(latents=decide(canvas, estimate, self.plan.sampler).kept, controls=controls)

    def commit(self, block: LatentBlock) -> None:
        """Make block part of the past."""
        self.past.append(block)
        kept = block.recording
        self.ahead = kept.latents.split(self.plan.frames_per_block, dim=1) if isinstance(kept, Ahead) else ()

    def _roll(self, controls: Tensor) -> LatentBlock:
        """The first of the blocks that are ahead, after as many calls as it is from clean; a new one joins in each."""
        sigmas, blocks = self.plan.sigmas, list(self.ahead)
        steps = [len(sigmas) - 1 - behind for behind in range(len(blocks))]
        while not steps or steps[0] < len(sigmas):
            blocks.append(self._fresh(len(blocks), 0))
            steps.append(0)
            window = LatentBlock(latents=torch.cat(blocks, dim=1), controls=controls.repeat(1, len(blocks), 1))
            levels = [sigmas[step] for step in steps]
            clean = self._estimate(window, levels, self._dice(steps)).split(self.plan.frames_per_block, dim=1)
            for behind, (step, own) in enumerate(zip(steps, clean, strict=True)):
                canvas = LatentCanvas(blocks[behind], sigmas, partial(self._fresh, behind), step)
                blocks[behind] = self.plan.sampler(canvas, own).values
            steps = [step + 1 for step in steps]
        ahead = Ahead(torch.cat(blocks[1:], dim=1)) if blocks[1:] else None
        return LatentBlock(latents=blocks[0], controls=controls, recording=ahead)

    def _fresh(self, behind: int, step: int) -> Tensor:
        """The noise for that step of the block that many behind the next."""
        latest = self.past[-1].latents
        shape = (1, self.plan.frames_per_block, *latest.shape[2:])
        return block_noise(self.seed, len(self.past) - self.given + behind, step, shape).to(latest)

    def _dice(self, steps: Sequence[int]) -> list[Tensor]:
        """Dice of the next blocks at those steps behind those of the past, which decide nothing; none without draws."""
        if not self.plan.draw:
            return []
        geometry, latest = self.backbone.geometry, self.past[-1].latents
        own = (1, self.plan.frames_per_block, geometry.rows, geometry.columns)
        following = len(self.past) - self.given
        dice = [uniforms(self.seed, following + behind, step, own).to(latest) for behind, step in enumerate(steps)]
        return [torch.cat((torch.zeros(1, self._frames, *own[2:]).to(latest), *dice), dim=1)]

    def _recalling(self, controls: Tensor) -> Backbone:
        """The backbone, with what it recalls of the next frames by a memory that is made from its beginning."""
        if not self.plan.recall:
            return self.backbone
        backbone, memory = cast(RememberingBackbone, self.backbone), _NOTHING
        before = self.past[0].latents[:, :1]
        for block in self.past:
            memory = backbone.remember(memory, block.latents, before, block.controls)
            before = block.latents[:, -1:]
        return backbone.recalling(backbone.recall(memory, controls))

    @property
    def _frames(self) -> int:
        return sum(one.latents.shape[1] for one in self._beginning)

    @property
    def _beginning(self) -> list[LatentBlock]:
        """The past, of which nothing was before the first frame seen if the policy is that it is computed anew."""
        if not self.plan.policy.anew:
            return self.past
        parts = [torch.cat([getattr(one, part) for one in self.past], dim=1) for part in ("latents", "controls")]
        frames, whole = parts[0].shape[1], self.plan.frames_per_block
        seen = len(self.plan.policy.see(range(frames), frames))
        lengths = [1] * (seen % whole) + [whole] * (seen // whole)
        pieces = zip(*(part[:, -seen:].split(lengths, dim=1) for part in parts), strict=True)
        return [LatentBlock(latents=latents, controls=controls) for latents, controls in pieces]

    def _estimate(self, block: LatentBlock, levels: Sequence[float], dice: Sequence[Tensor]) -> Tensor:
        """The clean estimate of block, equal parts of it at these levels, with all of the past clean beside it."""
        blocks = [*self._beginning, block]
        geometry, rolling = self.backbone.geometry, self.plan.rolling
        policy = Full() if self.plan.policy.anew else self.plan.policy
        values = torch.cat([one.latents for one in blocks], dim=1)
        attend = WholeAttention(
            [one.latents.shape[1] for one in blocks],
            policy if rolling is None or rolling.clean is None else rolling.clean,
            rotary=self.backbone.rotary,
            grid=(geometry.rows, geometry.columns),
            alike=lambda start: _likeness(values[0], start),
            last=policy if rolling is None or rolling.joint is None else rolling.joint,
        )
        previous = torch.cat((values[:, :1], values[:, :-1]), dim=1)
        frames = block.latents.shape[1]
        sigma = torch.zeros(values.shape[:2], device=values.device)
        sigma[:, -frames:] = torch.tensor(levels).repeat_interleave(frames // len(levels))
        controls = torch.cat([one.controls for one in blocks], dim=1)
        backbone, asked = self._recalling(block.controls), attend.over(self.backbone.pages)
        return backbone(values, previous, sigma, controls, asked, *dice)[:, -frames:]


def _likeness(frames: Tensor, start: int) -> Alike:
    """How like each of some frames [F, C, H, W] is to the one before `start`."""
    return Looks({}).of(dict(enumerate(frames[:start]))).like_newest().__getitem__
