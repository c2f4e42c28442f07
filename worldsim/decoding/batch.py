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

from worldsim.decoding.loop import decide
from worldsim.errors import ConfigError
from worldsim.models.protocol import Attend, Backbone, PromptedBackbone, RememberingBackbone
from worldsim.samplers import LatentCanvas

if TYPE_CHECKING:
    from worldsim.cache.view import Recording
    from worldsim.decoding.video import LatentBlock, VideoDecoder


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
    """The canvas of each row of a batch: all at the same step, each at a level of its own."""

    rows: tuple[LatentCanvas, ...]

    @property
    def is_open(self) -> bool:
        """Whether noise is left in any; all close at the same step."""
        return self.rows[0].is_open

    @property
    def kept(self) -> list[Tensor]:
        """All of each."""
        return [row.kept for row in self.rows]

    @property
    def values(self) -> Tensor:
        """Those of all rows, [B, F, C, H, W]."""
        return torch.cat([row.values for row in self.rows])

    @property
    def sigma(self) -> Tensor:
        """The present level of each row, float32 [B]."""
        return torch.tensor([row.sigma for row in self.rows], device=self.rows[0].values.device)


@torch.no_grad()
def propose_together(
    decoders: Sequence[VideoDecoder], controls: Sequence[Tensor], *, between: Callable[[], None] = lambda: None
) -> list[tuple[Tensor, Recording | None]]:
    """The next block of each decoder; changes nothing but their counts of calls.

    Returns:
        Of each the latents, [1, F, C, H, W], and what its last call recorded, for a plan without a clean pass.

    Args:
        decoders: over one backbone, pool and plan, each with a past.
        controls: of each, [1, frames_per_block, A].
        between: called before every backbone call. What it raises ends the work, and nothing was made.

    Raises:
        ConfigError: no decoder, or decoders that do not belong together.
    """
    _check(decoders)
    plan, steering = decoders[0].plan, torch.cat(list(controls))
    attends = [decoder.view(plan.frames_per_block).attend for decoder in decoders]
    recordings: list[Recording] | list[None] = [None] * len(decoders)
    backbone = _recalling(decoders, controls, _told(decoders))

    def estimate(canvas: RowsCanvas) -> Tensor:
        nonlocal attends, recordings
        between()
        if not plan.clean_pass:
            recordings = [decoder.recording(plan.frames_per_block) for decoder in decoders]
            attends = [recording.attend for recording in recordings]
        dice = [torch.cat([decoder.dice(canvas.rows[0].at) for decoder in decoders])] if plan.draw else []
        return backbone(*_inputs(decoders, canvas.values, canvas.sigma, steering, attends), *dice)

    def step(canvas: RowsCanvas, clean: Tensor) -> RowsCanvas:
        return RowsCanvas(tuple(map(plan.sampler, canvas.rows, clean.split(1))))

    latents = decide(RowsCanvas(tuple(decoder.canvas() for decoder in decoders)), estimate, step).kept
    return list(zip(latents, recordings, strict=True))


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
    recordings = [block.recording for block in blocks if block.recording is not None]
    if len(recordings) < len(blocks):
        recordings = [decoder.recording(frames) for decoder in decoders]
        latents, controls = (torch.cat([getattr(block, part) for block in blocks]) for part in ("latents", "controls"))
        attends = [recording.attend for recording in recordings]
        clean = torch.zeros(len(decoders), device=latents.device)
        _told(decoders)(*_inputs(decoders, latents, clean, controls, attends))
    for decoder, block, recording in zip(decoders, blocks, recordings, strict=True):
        decoder.absorb(block, recording)


def _told(decoders: Sequence[VideoDecoder]) -> Backbone:
    """Their backbone, told what each of them hears if they hear anything."""
    backbone, heard = decoders[0].backbone, [decoder.heard for decoder in decoders]
    if heard[0] is None:
        return backbone
    return cast(PromptedBackbone, backbone).prompted(torch.stack([one for one in heard if one is not None]))


def _recalling(decoders: Sequence[VideoDecoder], controls: Sequence[Tensor], backbone: Backbone) -> Backbone:
    """That backbone, which recalls what each remembers of its next block if that is the plan."""
    if not decoders[0].plan.recall:
        return backbone
    recalled = [decoder.recalled(held) for decoder, held in zip(decoders, controls, strict=True)]
    return cast(RememberingBackbone, backbone).recalling(torch.cat(recalled))


def _inputs(
    decoders: Sequence[VideoDecoder], values: Tensor, sigma: Tensor, controls: Tensor, attends: Sequence[Attend]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Attend]:
    """What one backbone call takes for rows at levels [B]; the first frame of a world is its own past."""
    own = values.split(1)
    tails = [decoder.tail(first) for decoder, first in zip(decoders, own, strict=True)]
    previous = torch.cat((torch.cat(tails), values[:, :-1]), dim=1)
    levels = sigma[:, None].expand(values.shape[:2]).contiguous()
    for decoder in decoders:
        decoder.calls += 1
    return values, previous, levels, controls, RowsAttend(attends)


def _check(decoders: Sequence[VideoDecoder]) -> None:
    if not decoders:
        raise ConfigError("there is nothing to decode together; pass at least one decoder")
    first = decoders[0]
    for other in decoders[1:]:
        if other.backbone is not first.backbone or other.pool is not first.pool or other.plan != first.plan:
            raise ConfigError("only decoders of one backbone, pool and plan share its calls; decode these apart")
        if (other.heard is None) != (first.heard is None):
            raise ConfigError("of decoders that share calls either all were told something or none; tell the others")
