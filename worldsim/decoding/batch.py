"""Several videos through one backbone: one call serves the blocks of all that are due.

They join and leave at the borders of blocks, since nothing is kept between two calls. What a video becomes depends on
its own past, seed and controls alone; beside others it agrees with itself alone up to the rounding of the products
that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from worldsim.cache.view import ContextView, Recording
from worldsim.decoding.loop import decide
from worldsim.decoding.rolling import Ahead, WindowCanvas
from worldsim.errors import ConfigError
from worldsim.models.protocol import Attend, Backbone, PromptedBackbone, RememberingBackbone

if TYPE_CHECKING:
    from worldsim.decoding.video import LatentBlock, VideoDecoder

TOGETHER = 8
"""Videos that share calls at the most, where nobody says otherwise; memory is planned for as many."""


class RowsAttend:
    """The Attend of a batch whose rows see different things: every row is answered by its own."""

    def __init__(self, rows: Sequence[Attend]) -> None:
        self._rows = rows

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """See worldsim.models.protocol.Attend."""
        return torch.cat(
            [attend(layer, q[i : i + 1], k[i : i + 1], v[i : i + 1]) for i, attend in enumerate(self._rows)]
        )


@dataclass(frozen=True, slots=True, eq=False)
class RowsCanvas:
    """The canvas of each row of a batch: as many blocks in each, at the same step, each at a level of its own."""

    rows: tuple[WindowCanvas, ...]

    @property
    def is_open(self) -> bool:
        """Whether noise is left in any first block; all close at the same step."""
        return self.rows[0].is_open

    @property
    def kept(self) -> list[Tensor]:
        """The first block of each."""
        return [row.kept for row in self.rows]

    @property
    def steps(self) -> tuple[int, ...]:
        """The step that each block of a row is at."""
        return self.rows[0].steps

    @property
    def values(self) -> Tensor:
        """Those of all rows, [B, F, C, H, W]."""
        return torch.cat([row.values for row in self.rows])

    @property
    def levels(self) -> Tensor:
        """The present level of each frame, float32 [B, F]."""
        return torch.tensor([row.levels for row in self.rows], device=self.rows[0].blocks[0].values.device)


@torch.no_grad()
def propose_together(
    decoders: Sequence[VideoDecoder], controls: Sequence[Tensor], *, between: Callable[[], None] = lambda: None
) -> list[tuple[Tensor, Recording | Ahead | None]]:
    """The next block of each decoder; changes nothing but their counts of calls.

    Videos that roll share calls once as many blocks are ahead; those at their beginning share others.

    Returns:
        Of each the latents, [1, F, C, H, W], and what travels with them to the commit, see LatentBlock.recording.

    Args:
        decoders: over one backbone, pool and plan, each with a past.
        controls: of each, [1, frames_per_block, A]. They steer all blocks of a window: what is not kept yet follows
            whatever is newest.
        between: called before every backbone call. What it raises ends the work, and nothing was made.

    Raises:
        ConfigError: no decoder, or decoders that do not belong together.
    """
    _check(decoders)
    canvases = [decoder.canvas() for decoder in decoders]
    alike: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for row, (decoder, canvas) in enumerate(zip(decoders, canvases, strict=True)):
        alike.setdefault((canvas.steps, decoder.plan.ahead_after(decoder.blocks + 1)), []).append(row)
    made: dict[int, tuple[Tensor, Recording | Ahead | None]] = {}
    for rows in alike.values():
        some = RowsCanvas(tuple(canvases[row] for row in rows))
        found = _propose_alike(some, [decoders[row] for row in rows], [controls[row] for row in rows], between)
        made |= zip(rows, found, strict=True)
    return [made[row] for row in range(len(decoders))]


def _propose_alike(
    begun: RowsCanvas, decoders: Sequence[VideoDecoder], controls: Sequence[Tensor], between: Callable[[], None]
) -> list[tuple[Tensor, Recording | Ahead | None]]:
    """The same for decoders whose windows begin with as many blocks, at the same steps, and end with as many."""
    plan, windows = decoders[0].plan, _Windows(decoders, torch.cat(list(controls)))
    recordings: list[Recording] | list[None] = [None] * len(decoders)

    def estimate(canvas: RowsCanvas) -> Tensor:
        nonlocal recordings
        between()
        window = windows.of(len(canvas.steps))
        attends = [view.attend for view in window.views]
        if not plan.clean_pass:
            recordings = [decoder.recording(plan.frames_per_block) for decoder in decoders]
            attends = [recording.attend for recording in recordings if recording is not None]
        dice = [torch.cat([decoder.dice(canvas.steps) for decoder in decoders])] if plan.draw else []
        return window.backbone(*_inputs(decoders, canvas.values, canvas.levels, window.controls, attends), *dice)

    def step(canvas: RowsCanvas, clean: Tensor) -> RowsCanvas:
        rows = zip(canvas.rows, clean.split(1), strict=True)
        return RowsCanvas(tuple(row.moved(plan.sampler, estimated) for row, estimated in rows))

    closed = decide(begun, estimate, step)
    beside = recordings if plan.rolling is None else [row.ahead for row in closed.rows]
    return list(zip(closed.kept, beside, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """What calls about so many blocks of each row share: a backbone that was told all, what steers, what is seen."""

    blocks: int
    backbone: Backbone
    controls: Tensor
    views: list[ContextView]


class _Windows:
    """The windows of some decoders under controls [B, frames_per_block, A], made anew only when they grow."""

    def __init__(self, decoders: Sequence[VideoDecoder], controls: Tensor) -> None:
        self._decoders = decoders
        self._controls = controls
        self._told = _told(decoders)
        self._latest: _Window | None = None

    def of(self, blocks: int) -> _Window:
        """That of so many blocks."""
        if self._latest is None or self._latest.blocks != blocks:
            self._latest = None  # its views go before there are new ones
            plan = self._decoders[0].plan
            controls = self._controls.repeat(1, blocks, 1)
            views = [
                decoder.view(blocks * plan.frames_per_block, joint=plan.rolling is not None)
                for decoder in self._decoders
            ]
            backbone = _recalling(self._decoders, controls.split(1), self._told)
            self._latest = _Window(blocks, backbone, controls, views)
        return self._latest


@torch.no_grad()
def write_together(decoders: Sequence[VideoDecoder], blocks: Sequence[LatentBlock]) -> None:
    """Make blocks of one length the newest past of each decoder, by one clean pass if a block has no recording.

    Raises:
        ConfigError: no decoder, or decoders that do not belong together.
        PoolFull: no memory for all of them; nothing has changed.
    """
    _check(decoders)
    frames, pool = blocks[0].latents.shape[1], decoders[0].pool
    pool.check_room(sum(decoder.context.wants(frames) for decoder in decoders))
    recordings = [block.recording for block in blocks if isinstance(block.recording, Recording)]
    if len(recordings) < len(blocks):
        recordings = [decoder.recording(frames) for decoder in decoders]
        latents, controls = (torch.cat([getattr(block, part) for block in blocks]) for part in ("latents", "controls"))
        attends = [recording.attend for recording in recordings]
        clean = torch.zeros(latents.shape[:2], device=latents.device)
        _told(decoders)(*_inputs(decoders, latents, clean, controls, attends))
    for decoder, block, recording in zip(decoders, blocks, recordings, strict=True):
        decoder.absorb(block, recording)


def _told(decoders: Sequence[VideoDecoder]) -> Backbone:
    """Their backbone, told what each of them hears if they hear anything."""
    backbone, heard = decoders[0].backbone, [decoder.heard for decoder in decoders]
    if heard[0] is None:
        return backbone
    first = [decoder.context.next_frame for decoder in decoders]
    return cast(PromptedBackbone, backbone).prompted(torch.stack([one for one in heard if one is not None]), first)


def _recalling(decoders: Sequence[VideoDecoder], controls: Sequence[Tensor], backbone: Backbone) -> Backbone:
    """That backbone, which recalls what each remembers of its next block if that is the plan."""
    if not decoders[0].plan.recall:
        return backbone
    recalled = [decoder.recalled(held) for decoder, held in zip(decoders, controls, strict=True)]
    return cast(RememberingBackbone, backbone).recalling(torch.cat(recalled))


def _inputs(
    decoders: Sequence[VideoDecoder], values: Tensor, levels: Tensor, controls: Tensor, attends: Sequence[Attend]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Attend]:
    """What one backbone call takes for rows at levels [B, F]; the first frame of a world is its own past."""
    own = values.split(1)
    tails = [decoder.tail(first) for decoder, first in zip(decoders, own, strict=True)]
    previous = torch.cat((torch.cat(tails), values[:, :-1]), dim=1)
    for decoder in decoders:
        decoder.calls += 1
    # Of a single row the answer need not be copied.
    attend = attends[0] if len(attends) == 1 else RowsAttend(attends)
    return values, previous, levels, controls, attend


def _check(decoders: Sequence[VideoDecoder]) -> None:
    if not decoders:
        raise ConfigError("there is nothing to decode together; pass at least one decoder")
    first = decoders[0]
    for other in decoders[1:]:
        if other.backbone is not first.backbone or other.pool is not first.pool or other.plan != first.plan:
            raise ConfigError("only decoders of one backbone, pool and plan share its calls; decode these apart")
        if (other.heard is None) != (first.heard is None):
            raise ConfigError("of decoders that share calls either all were told something or none; tell the others")
