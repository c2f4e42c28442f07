"""Block-diffusion video: diffusion inside a block of frames, autoregression across blocks through the page pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import cast

import torch
from torch import Tensor

from worldsim.cache.answers import kept_by, seen_by
from worldsim.cache.context import Context
from worldsim.cache.policy import Full, Seen
from worldsim.cache.pool import PagePool
from worldsim.cache.sight import Sight
from worldsim.cache.view import ContextView, Recording
from worldsim.decoding.batch import propose_together, write_together
from worldsim.decoding.draws import Draws
from worldsim.decoding.held import Held, Kept, gists_of, joined
from worldsim.decoding.likeness import Likeness, Looks
from worldsim.decoding.loop import Guarantee
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange, newest_run
from worldsim.decoding.rolling import Ahead, WindowCanvas, open_window
from worldsim.decoding.state import VideoState as VideoState
from worldsim.decoding.state import check_state, gists_for, state_of_nothing
from worldsim.errors import ConfigError, PoolFull, ShapeError
from worldsim.models.protocol import Backbone, Chart, Memory, PromptedBackbone, RememberingBackbone, SteeredBackbone
from worldsim.samplers import LatentCanvas
from worldsim.schedules import mix


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LatentBlock:
    """One finished block: clean latents [1, F, C, H, W] and the controls that steered it [1, F, A].

    recording: what travels with it to its commit: of the last call that made it where its plan has no clean pass, and
        where its plan rolls the blocks that are ahead of it, without which a window begins anew behind it.
    """

    latents: Tensor
    controls: Tensor
    recording: Recording | Ahead | None = None


@dataclass(slots=True, eq=False)
class VideoDecoder:
    """A backbone together with everything it has decided so far. Batch 1: a batch stacks decoders, not videos.

    Every block takes one backbone call per sampler step and one on the clean frames, which writes the keys and values
    that later blocks see, unless the plan leaves it out. Noise is a pure function of the seed and the number of the
    block, so equal seeds and controls give equal latents.

    Args:
        backbone: in evaluation mode, on the pool's device.
        pool: where the past is kept; shared by any number of decoders of one backbone.
        plan: see VideoPlan.
        seed: of the noise, in [0, 2**64).

    heard: what it was told, see PromptedBackbone.hear; None of a backbone that is told nothing.
    """

    backbone: Backbone
    pool: PagePool
    plan: VideoPlan
    seed: int
    blocks: int = 0
    calls: int = 0
    heard: Tensor | None = field(init=False, default=None)
    guarantee = Guarantee.APPROXIMATE
    _context: Context = field(init=False)
    _held: Held = field(init=False, default_factory=dict)
    _view: ContextView | None = field(init=False, default=None)
    _window: int = field(init=False, default=0)
    _memory: Memory = field(init=False, default_factory=dict)
    _sight: Sight = field(init=False, default=Sight())
    _looks: Looks = field(init=False, default=Looks({}))
    _seen: Mapping[int, Sequence[Seen]] | None = field(init=False, default=None)
    _ahead: Ahead | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"a seed is a whole number from 0 to 2**64 - 1, got {self.seed}")
        self._context = Context(self.pool, self.plan.policy.sparse)

    @property
    def context(self) -> Context:
        """What has been committed, as pages."""
        return self._context

    @property
    def sight(self) -> Sight:
        """What the block that was committed last saw; nothing before the first and in a decoder that was resumed."""
        return self._sight

    @property
    def newest(self) -> tuple[Tensor, Tensor]:
        """The frame before its next block, clean latents [1, 1, C, H, W], and what steered it, [1, 1, A].

        Raises:
            ConfigError: there is no past to go on from; prefill some frames first.
        """
        if not self._held:
            raise ConfigError("a decoder goes on from frames it was given; prefill at least one")
        latents, controls, _ = self._held[max(self._held)]
        return latents, controls

    @property
    def steering(self) -> Tensor | None:
        """What steered the frame before its next block, [A]; None before the first of a video."""
        if not self._held and self.plan.from_nothing:
            return None
        return self.newest[1].flatten()

    def prefill(self, latents: Tensor, controls: Tensor) -> None:
        """Make given frames the past, [1, F, C, H, W] with controls [1, F, A], F at least 1; nothing is generated.

        They are committed in blocks of the plan's length; what does not fill one goes first, frame by frame. Blocks
        that were on their way are given up: they followed another past.

        Raises:
            ShapeError: frames or controls of another shape; nothing was committed.
            PoolFull: no memory for all of them; close the decoder, which may hold some.
        """
        for block in self._cut(latents, controls):
            write_together([self], [block])

    def propose(self, controls: Tensor) -> LatentBlock:
        """The next block under controls [1, frames_per_block, A]. Changes nothing but the count of calls.

        Raises:
            ConfigError: there is no past to go on from; prefill some frames first.
            ShapeError: controls of another shape.
        """
        self.check_ready(controls)
        ((latents, recording),) = propose_together([self], [controls])
        return LatentBlock(latents=latents, controls=controls, recording=recording)

    def commit(self, block: LatentBlock) -> None:
        """Make a proposed block the newest past; it counts as generated.

        Raises:
            PoolFull: no memory for it; nothing has changed.
            ConfigError: the policy answers what no policy may; nothing has changed.
        """
        self._check(block.controls, block.latents.shape[1])
        write_together([self], [block])
        self.blocks += 1

    def tell(self, heard: Tensor, *, again: bool = False) -> None:
        """Have it hear that from its next block on, blocks on their way too; what it is told first changes no past.

        again: a further step of what it was told last, for which no more is forgotten, or stands further back.

        Raises:
            PoolFull: no memory to compute a past anew; nothing has changed.
            ConfigError: the policy answers what no policy may; nothing has changed.
        """
        change, told, self.heard = self.plan.on_prompt.further if again else self.plan.on_prompt, self.heard, heard
        if told is None or not self._held:
            return
        try:
            self._adapt(change)
        except (PoolFull, ConfigError):
            self.heard = told
            raise

    def _adapt(self, change: PromptChange) -> None:
        """Go on with what stays of the past alone, of which the newest are computed anew in one clean pass."""
        kept, anew = change.keep(self._context.frames), change.anew
        before, held, seen, ahead = self._context.fork(), self._held, self._seen, self._ahead
        try:
            self._context.keep(kept)
            again = newest_run(kept, self._context.next_frame)[-anew:] if anew else []
            self._context.truncate(self._context.next_frame - len(again))
            self._held = {frame: held[frame] for frame in self._context.frames}
            self._view = self._seen = None
            if again:
                latents, controls = joined(held[at] for at in again)
                write_together([self], [LatentBlock(latents=latents, controls=controls)])
                self._ahead = ahead
            looks = self._look_back(self._held, self._context.next_frame)[0]
            self._seen = {at: change.distant(look) for at, look in looks.items()}
        except (PoolFull, ConfigError):
            self._context, before, self._held, self._seen = before, self._context, held, seen
            raise
        finally:
            before.close()

    def fork(self) -> VideoDecoder:
        """A second decoder with the same past, the same seed and so the same future under the same controls."""
        twin = VideoDecoder(self.backbone, self.pool, self.plan, self.seed, self.blocks, self.calls)
        twin.heard = self.heard
        twin._context = self._context.fork()
        twin._held = dict(self._held)
        twin._memory = self._memory
        twin._sight = self._sight
        twin._looks = self._looks
        twin._seen = self._seen
        twin._ahead = self._ahead
        return twin

    def state(self, *, pages: bool = True) -> VideoState:
        """All that it knows, copied; without pages those are not even read, and keys and values of no frame at all."""
        frames, nothing = self._context.frames, state_of_nothing(self.backbone, self.pool)
        if not frames:
            return nothing
        keys, values = self._keys_and_values(frames) if pages else (nothing.keys, nothing.values)
        latents, controls = joined(self._held[frame] for frame in frames)
        return VideoState(
            blocks=self.blocks,
            next_frame=self._context.next_frame,
            frames=frames,
            latents=latents,
            controls=controls,
            keys=keys,
            values=values,
            memory=self._memory,
            salient=self._mask(frames),
            gists=torch.stack(gists) if (gists := gists_of(self._held)) else None,
            ahead=None if self._ahead is None else self._ahead.latents,
        )

    def _keys_and_values(self, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
        pages = [self._context.spread(frame) for frame in frames]
        keys, values = (torch.stack([page[part] for page in pages], dim=1) for part in (0, 1))
        return keys, values

    def _mask(self, frames: Sequence[int]) -> Tensor | None:
        """Which tokens of those frames are salient, bool [F, tokens]; None where nobody asks."""
        if self.plan.policy.sparse is None:
            return None
        mask = torch.zeros(len(frames), self.pool.shape.tokens, dtype=torch.bool)
        for row, frame in zip(mask, frames, strict=True):
            row[self._context.salient(frame)] = True
        return mask

    def resume(self, state: VideoState) -> None:
        """Go on where another decoder of the same backbone, plan and seed was: bit for bit as that one would.

        From a state without pages the context is computed anew from the frames held, of which the first then know less
        of the past than they did; what is made next agrees only about.

        Raises:
            ConfigError, ShapeError: the state does not fit this decoder; nothing has changed.
            PoolFull: no memory for it; nothing has changed.
        """
        ahead = self.plan.ahead_after(state.blocks)
        check_state(state, self.backbone, ahead=ahead, from_nothing=self.plan.from_nothing)
        if self.plan.recall and state.frames:
            if not state.memory:
                raise ConfigError("a state without a memory is none of a decoder that recalls; restore a whole one")
            cast(RememberingBackbone, self.backbone).chart(state.memory)
        gists = gists_for(state, self._gist())
        if state.frames and state.keys.shape[1:2] == state.values.shape[1:2] == (0,):
            self._prefill_again(state)
        else:
            self._hold(state)
        self._held = {frame: kept._replace(gist=gists[frame]) for frame, kept in self._held.items()}
        self._seen = None
        self._ahead = None if state.ahead is None else Ahead(state.ahead.to(self.pool.device))

    def _hold(self, state: VideoState) -> None:
        mask = state.salient
        salient = [] if mask is None else [row.nonzero()[:, 0] for row in mask]
        context = Context(self.pool, self.plan.policy.sparse).hold(
            state.frames, state.next_frame, state.keys, state.values, salient
        )
        self.close()
        self._context, self._memory, self.blocks = context, state.memory, state.blocks
        self._sight, self._looks = Sight(), Looks({})
        latents, controls = (part.to(self.pool.device) for part in (state.latents, state.controls))
        places = [(frame, slice(at, at + 1)) for at, frame in enumerate(state.frames)]
        self._held = {frame: Kept(latents[:, at], controls[:, at]) for frame, at in places}

    def _prefill_again(self, state: VideoState) -> None:
        twin = VideoDecoder(self.backbone, self.pool, self.plan, self.seed, state.blocks)
        twin.heard = self.heard
        try:
            twin._prefill_at(state.frames, *(part.to(self.pool.device) for part in (state.latents, state.controls)))
        except PoolFull:
            twin.close()
            raise
        self.close()
        self._context, self._held, self.blocks = twin._context, twin._held, state.blocks
        self._sight, self._looks = Sight(), twin._looks
        self._memory = state.memory

    def _prefill_at(self, frames: Sequence[int], latents: Tensor, controls: Tensor) -> None:
        """Prefill frames of these numbers, ascending: what lies between them was forgotten."""
        for _, run in groupby(enumerate(frames), lambda pair: pair[1] - pair[0]):
            places = [at for at, _ in run]
            self._context.skip(frames[places[0]] - self._context.next_frame)
            piece = slice(places[0], places[-1] + 1)
            self.prefill(latents[:, piece], controls[:, piece])

    def close(self) -> None:
        """Give all pages back. Closing twice is fine."""
        self._context.close()
        self._view = self._seen = None

    def check_ready(self, controls: Tensor) -> None:
        """Raise ConfigError without a past to go on from, ShapeError unless controls steer one block."""
        assert self.plan.from_nothing or self.newest
        self._check(controls, self.plan.frames_per_block)

    def canvas(self) -> WindowCanvas:
        """Its next block as it begins: noise, or the frame before it over and over under less noise.

        Of all that is known before a block is made, the frame before it is the likeliest for each of its frames; what
        of it is wrong the noise must be strong enough to hide. Source: SDEdit, Meng et al. 2021 (arXiv:2108.01073).
        Under a plan that rolls, the blocks that are ahead, and a new one behind them.
        """
        plan = self.plan
        if plan.rolling is not None:
            left = plan.left_after(self.blocks)
            return open_window(self._ahead, plan.frames_per_block, plan.sigmas, self._fresh, left=left)
        sigmas, noise = plan.noise.sigmas(self.blocks, plan.sigmas), self._fresh(0, 0)
        values = noise if sigmas == plan.sigmas else mix(self.newest[0], noise, sigmas[0])
        return WindowCanvas((LatentCanvas(values, sigmas, partial(self._fresh, 0)),))

    def dice(self, steps: Sequence[int]) -> Tensor:
        """The dice of its next blocks, each for its step, [1, len(steps) * frames_per_block, rows, columns]."""
        dice = [self._draws.dice(self.blocks + behind, step) for behind, step in enumerate(steps)]
        return torch.cat(dice, dim=1).to(self.pool.device)

    def _fresh(self, behind: int, step: int) -> Tensor:
        """The noise of the block that many behind its next, like the newest frame; float32 before the first."""
        return self._draws.noise(self.blocks + behind, step).to(self.newest[0] if self._held else self.pool.device)

    @property
    def _draws(self) -> Draws:
        plan, geometry = self.plan, self.backbone.geometry
        return Draws(
            seed=self.seed,
            plan=plan.noise,
            frames=plan.frames_per_block,
            geometry=geometry,
            steps=len(plan.sigmas),
            device=self.pool.device,
            rolls=plan.rolling is not None,
        )

    def recalled(self, controls: Tensor) -> Tensor:
        """What its backbone recalls of its next block, steered by controls [1, frames_per_block, A]."""
        return cast(RememberingBackbone, self.backbone).recall(self._memory, controls)

    def chart(self) -> Chart | None:
        """The places that its backbone remembers; None where it remembers none."""
        return cast(RememberingBackbone, self.backbone).chart(self._memory) if self.plan.recall else None

    def tail(self, block: Tensor) -> Tensor:
        """The frame before a block [1, F, C, H, W], [1, 1, C, H, W]: its own first for the first of a world."""
        return self.newest[0] if self._held else block[:, :1]

    def view(self, frames: int, *, joint: bool = False) -> ContextView:
        """What a block of that many frames sees, or a window of them; the latest is kept until the next commit."""
        window = frames if joint else 0
        if self._view is None or (self._view.frames, self._window) != (frames, window):
            self._view, self._window = None, window
            with self._renewed() as context:
                self._view = self._looking(context, frames)
        return self._view

    def _looking(self, context: Context, frames: int) -> ContextView:
        geometry, seen = self.backbone.geometry, self._in_sight(self._window)
        return ContextView(
            context,
            seen,
            rotary=self.backbone.rotary,
            grid=(geometry.rows, geometry.columns),
            frames=frames,
            steered=self._steered(seen),
        )

    def _in_sight(self, window: int) -> Sequence[Seen]:
        if self._seen is not None:
            return self._seen[window]
        held = {frame: self._held[frame] for frame in self._context.frames}
        seen, self._looks = self._look_back(held, self._context.next_frame)
        return seen[window]

    @contextmanager
    def _renewed(self) -> Iterator[Context]:
        """Its context, or another in which what a block sees was computed anew, if that is the policy."""
        seen = self._in_sight(0)
        if not self.plan.policy.anew or not seen:
            yield self._context
            return
        plan = replace(self.plan, policy=Full(), recall=False, probes=0)
        twin = VideoDecoder(self.backbone, self.pool, plan, self.seed)
        twin.heard = self.heard
        with closing(twin):
            frames = [one.frame for one in seen]
            twin._prefill_at(frames, *joined(self._held[frame] for frame in frames))
            self.calls += twin.calls
            yield twin.context

    def _steered(self, seen: Sequence[Seen]) -> Tensor | None:
        """Keys and values that follow from what steered the frames seen, of a backbone that has such."""
        if self.pool.shape.steered is None:
            return None
        controls = torch.zeros(0, self.backbone.controls, device=self.pool.device)
        held = [self._held[one.frame][1][0] for one in seen]
        return cast(SteeredBackbone, self.backbone).steered(torch.cat((controls, *held)))

    def _look_back(self, held: Held, following: int) -> tuple[Mapping[int, Sequence[Seen]], Looks]:
        """What a block sees that follows on what is held, 0, and windows of so many frames; and the looks of that.

        Raises:
            ConfigError: the policy answers what no policy may.
        """
        alike = Likeness(self._looks, held, self._gist(), self.plan.policy)
        own = self.plan.looks.items()
        return {window: seen_by(policy, tuple(held), following, alike) for window, policy in own}, alike.looks

    def recording(self, frames: int) -> Recording:
        """What records the clean pass of a block of that many frames, for `absorb`."""
        sparse, anew = self.plan.policy.sparse, self.plan.policy.anew and self._view is None
        view = self._looking(self._context, frames) if anew else self.view(frames)  # of what is written nothing is seen
        return Recording(view, probes=self.plan.probes, tau=1.0 if sparse is None else sparse.tau)

    def foresee(self, block: LatentBlock) -> None:
        """Have what the block after this one sees come nearer, while this one is decoded and written; changes nothing.

        Raises:
            ConfigError: the policy answers what no policy may.
        """
        if self.pool.is_tiered:
            self._bring(self._after(block)[1])

    def absorb(self, block: LatentBlock, recording: Recording) -> None:
        """Take a block and what its clean pass recorded into the past.

        Raises:
            PoolFull: there is no memory for it; nothing has changed.
            ConfigError: the policy answers what no policy may; nothing has changed.
        """
        before, (held, seen, looks) = self.tail(block.latents), self._after(block)
        self._context.append(recording.keys, recording.values, recording.salient)
        self._context.keep(tuple(held))
        self._held, self._view, self._seen, self._looks = held, None, seen, looks
        self._bring(seen)
        self._sight = recording.sight
        self._ahead = block.recording if isinstance(block.recording, Ahead) else None
        if self.plan.recall:
            backbone = cast(RememberingBackbone, self.backbone)
            self._memory = backbone.remember(self._memory, block.latents, before, block.controls)

    def _after(self, block: LatentBlock) -> tuple[Held, Mapping[int, Sequence[Seen]], Looks]:
        """What is held once it is taken, and of what follows on it as _look_back."""
        first, gist = self._context.next_frame, self._gist()
        # Copied: a view would keep all that was prefilled alive.
        pieces = zip(block.latents.split(1, dim=1), block.controls.split(1, dim=1), strict=True)
        added = {first + at: Kept(frame.clone(), steering.clone(), gist) for at, (frame, steering) in enumerate(pieces)}
        held = {**self._held, **added}
        frames, following = tuple(held), first + len(added)
        kept = self.plan.on_prompt.hold(frames, kept_by(self.plan.policy, frames, following))
        held = {frame: held[frame] for frame in kept}
        return held, *self._look_back(held, following)

    def _bring(self, looks: Mapping[int, Sequence[Seen]]) -> None:
        """Have the pages of what is seen so come to memory, if they lie elsewhere, in the background."""
        seen, held = {one.frame for look in looks.values() for one in look}, self._context.frames
        self.pool.prefetch(page for frame in held if frame in seen for page in self._context.pages_of(frame))

    def _gist(self) -> Tensor | None:
        """Of what its next block hears."""
        return None if self.heard is None else cast(PromptedBackbone, self.backbone).gist(self.heard)

    def _check(self, controls: Tensor, frames: int) -> None:
        wanted = (1, frames, self.backbone.controls)
        if controls.shape != wanted:
            raise ShapeError(f"expected controls {list(wanted)}, got {list(controls.shape)}")

    def _count(self, latents: Tensor, controls: Tensor) -> int:
        """How many frames these are; ShapeError unless they are latents and controls of some."""
        frames = latents.shape[1] if latents.ndim == 5 else 0
        wanted = (1, frames, *self.backbone.geometry.frame_shape)
        if not frames or latents.shape != wanted:
            raise ShapeError(f"expected latents [1, F, {', '.join(map(str, wanted[2:]))}], got {list(latents.shape)}")
        self._check(controls, frames)
        return frames

    def _cut(self, latents: Tensor, controls: Tensor) -> Iterator[LatentBlock]:
        frames, start = self._count(latents, controls), 0
        while start < frames:
            length = 1 if (frames - start) % self.plan.frames_per_block else self.plan.frames_per_block
            piece = slice(start, start + length)
            yield LatentBlock(latents=latents[:, piece], controls=controls[:, piece])
            start += length
