"""Block-diffusion video: diffusion inside a block of frames, autoregression across blocks through the page pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from worldsim.cache.context import Context
from worldsim.cache.policy import Policy
from worldsim.cache.pool import PagePool
from worldsim.cache.view import ContextView, Recording
from worldsim.decoding.loop import Guarantee, decide
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.protocol import Attend, Backbone
from worldsim.noise import block_noise
from worldsim.samplers import LatentCanvas, Sampler
from worldsim.schedules import check_sigmas


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LatentBlock:
    """One finished block: clean latents [1, F, C, H, W] and the controls that steered it [1, F, A]."""

    latents: Tensor
    controls: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    """How a video decoder makes a block.

    Args:
        frames_per_block: frames decided together.
        sigmas: noise levels at which the backbone is called, see LatentCanvas.
        sampler: takes the block from one level to the next.
        policy: what a block sees of the past.
    """

    frames_per_block: int
    sigmas: tuple[float, ...]
    sampler: Sampler
    policy: Policy

    def __post_init__(self) -> None:
        check_sigmas(self.sigmas)
        if self.frames_per_block < 1:
            raise ConfigError(f"a block has at least 1 frame, got {self.frames_per_block}")


@dataclass(slots=True, eq=False)
class VideoDecoder:
    """A backbone together with everything it has decided so far. Batch 1: a batch stacks decoders, not videos.

    Every block takes one backbone call per sampler step and one on the clean frames, which writes the keys and values
    that later blocks see. Noise is a pure function of the seed and the number of the block, so equal seeds and
    controls give equal latents.

    Args:
        backbone: in evaluation mode, on the pool's device.
        pool: where the past is kept; shared by any number of decoders of one backbone.
        plan: see VideoPlan.
        seed: of the noise, in [0, 2**64).
    """

    backbone: Backbone
    pool: PagePool
    plan: VideoPlan
    seed: int
    blocks: int = 0
    calls: int = 0
    guarantee = Guarantee.APPROXIMATE
    _context: Context = field(init=False)
    _tail: Tensor | None = field(init=False, default=None)
    _view: ContextView | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"a seed is a whole number from 0 to 2**64 - 1, got {self.seed}")
        self._context = Context(self.pool)

    @property
    def context(self) -> Context:
        """What has been committed, as pages."""
        return self._context

    @torch.no_grad()
    def prefill(self, latents: Tensor, controls: Tensor) -> None:
        """Make given frames the past, [1, F, C, H, W] with controls [1, F, A], F at least 1; nothing is generated.

        They are committed in blocks of the plan's length; what does not fill one goes first, frame by frame.

        Raises:
            ShapeError: frames or controls of another shape; nothing was committed.
            PoolFull: no memory for all of them; close the decoder, which may hold some.
        """
        for block in self._cut(latents, controls):
            self._write(block)

    @torch.no_grad()
    def propose(self, controls: Tensor) -> LatentBlock:
        """The next block under controls [1, frames_per_block, A]. Changes nothing but the count of calls.

        Raises:
            ConfigError: there is no past to go on from; prefill some frames first.
            ShapeError: controls of another shape.
        """
        if self._tail is None:
            raise ConfigError("a decoder goes on from frames it was given; prefill at least one")
        frames = self.plan.frames_per_block
        self._check(controls, frames)
        shape = (1, frames, *self.backbone.geometry.frame_shape)
        noise = partial(_noise_like, self._tail, self.seed, self.blocks, shape)
        estimate = partial(self._estimate, controls=controls, attend=self._open_view(frames).attend)
        canvas = LatentCanvas(noise(0), self.plan.sigmas, noise)
        return LatentBlock(latents=decide(canvas, estimate, self.plan.sampler).kept, controls=controls)

    @torch.no_grad()
    def commit(self, block: LatentBlock) -> None:
        """Make a proposed block the newest past; it counts as generated. If PoolFull is raised nothing has changed."""
        self._write(block)
        self.blocks += 1

    def fork(self) -> VideoDecoder:
        """A second decoder with the same past, the same seed and so the same future under the same controls."""
        twin = VideoDecoder(self.backbone, self.pool, self.plan, self.seed, self.blocks, self.calls)
        twin._context = self._context.fork()
        twin._tail = self._tail
        return twin

    def close(self) -> None:
        """Give all pages back. Closing twice is fine."""
        self._context.close()
        self._view = None

    def _write(self, block: LatentBlock) -> None:
        frames = block.latents.shape[1]
        self._check(block.controls, frames)
        recording = Recording(self._open_view(frames))
        self._call(block.latents, 0.0, block.controls, recording.attend)
        self._context.append(recording.keys, recording.values)
        self._context.keep(self.plan.policy.keep(self._context.frames, self._context.next_frame))
        self._tail = block.latents[:, -1:].clone()  # a view would keep all that was prefilled alive
        self._view = None

    def _estimate(self, canvas: LatentCanvas, *, controls: Tensor, attend: Attend) -> Tensor:
        return self._call(canvas.values, canvas.sigma, controls, attend)

    def _call(self, values: Tensor, sigma: float, controls: Tensor, attend: Attend) -> Tensor:
        """One backbone call on frames that are all at one level; the first frame of a world is its own past."""
        tail = values[:, :1] if self._tail is None else self._tail
        previous = torch.cat((tail, values[:, :-1]), dim=1)
        levels = torch.full(values.shape[:2], sigma, device=values.device)
        self.calls += 1
        return self.backbone(values, previous, levels, controls, attend)

    def _open_view(self, frames: int) -> ContextView:
        """What a block of that many frames sees; built once for all calls until the next commit."""
        if self._view is None or self._view.frames != frames:
            geometry = self.backbone.geometry
            self._view = ContextView(
                self._context,
                self.plan.policy,
                rotary=self.backbone.rotary,
                grid=(geometry.rows, geometry.columns),
                frames=frames,
            )
        return self._view

    def _check(self, controls: Tensor, frames: int) -> None:
        wanted = (1, frames, self.backbone.controls)
        if controls.shape != wanted:
            raise ShapeError(f"expected controls {list(wanted)}, got {list(controls.shape)}")

    def _cut(self, latents: Tensor, controls: Tensor) -> Iterator[LatentBlock]:
        frames = latents.shape[1] if latents.ndim == 5 else 0
        wanted = (1, frames, *self.backbone.geometry.frame_shape)
        if not frames or latents.shape != wanted:
            raise ShapeError(f"expected latents [1, F, {', '.join(map(str, wanted[2:]))}], got {list(latents.shape)}")
        self._check(controls, frames)
        start = 0
        while start < frames:
            length = 1 if (frames - start) % self.plan.frames_per_block else self.plan.frames_per_block
            piece = slice(start, start + length)
            yield LatentBlock(latents=latents[:, piece], controls=controls[:, piece])
            start += length


def _noise_like(latents: Tensor, seed: int, block: int, shape: tuple[int, ...], step: int) -> Tensor:
    return block_noise(seed, block, step, shape).to(latents)
