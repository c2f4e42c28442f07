"""All that decides what a video makes next, to be kept and gone on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from worldsim.cache.pool import PagePool
from worldsim.errors import ConfigError, ShapeError
from worldsim.models.protocol import Backbone, Memory

COMPUTED = (torch.float16, torch.float32, torch.float64)
"""The kinds of numbers that latents may be: a block is told again by the bytes that numpy has of it."""
STEERED = (*COMPUTED, torch.int64)
"""Those that controls may be, which are whole where all that can be held is."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VideoState:
    """All that decides what a decoder makes next, beside its backbone, plan and seed.

    blocks: how many it has made.
    next_frame: the frame to be committed next.
    frames: the numbers of the F frames that it still holds, ascending; the newest is next_frame - 1.
    latents: those frames, clean, [1, F, C, H, W].
    controls: what steered them, [1, F, A].
    keys, values: what they left in the cache, [layers, F, tokens, heads, head_dim], keys before rotary embedding.
    memory: what the backbone remembers beside that, see worldsim.models.protocol.Memory.
    salient: under a sparse policy, which tokens of each frame stay when it grows old, bool [F, tokens]. Of frames that
        have, keys and values of other tokens are zeros.
    gists: of a video that is told in words, what each of those frames was told, see PromptedBackbone.gist, [F, E].
    ahead: under a plan that rolls, the blocks on their way, [1, F, C, H, W], each a level noisier than the one before.
    """

    blocks: int
    next_frame: int
    frames: tuple[int, ...]
    latents: Tensor
    controls: Tensor
    keys: Tensor
    values: Tensor
    memory: Memory = field(default_factory=dict)
    salient: Tensor | None = None
    gists: Tensor | None = None
    ahead: Tensor | None = None

    def without_pages(self) -> VideoState:
        """The same without what the frames left in the cache: keys and values of no frame at all."""
        return replace(self, keys=self.keys[:, :0], values=self.values[:, :0])


def state_of_nothing(backbone: Backbone, pool: PagePool) -> VideoState:
    """That of a video before its first frame."""
    shape = pool.shape
    latents = torch.zeros(1, 0, *backbone.geometry.frame_shape, device=pool.device)
    page = (shape.layers, 0, shape.tokens, shape.heads, shape.head_dim)
    keys, values = torch.zeros(2, *page, dtype=pool.dtype, device=pool.device)
    controls = torch.zeros(1, 0, backbone.controls, device=pool.device)
    return VideoState(blocks=0, next_frame=0, frames=(), latents=latents, controls=controls, keys=keys, values=values)


def check_state(state: VideoState, backbone: Backbone, *, ahead: int, from_nothing: bool) -> None:
    """Raise ConfigError or ShapeError unless a video may have been in that state, as far as no memory tells.

    Args:
        state: its keys, values and memory are not looked at.
        backbone: of the video.
        ahead: how many frames it has ahead between two blocks.
        from_nothing: whether it may be before its first frame.
    """
    held = len(state.frames)
    begins = from_nothing and not held and not state.blocks and not state.next_frame
    ascends = all(earlier < later for earlier, later in pairwise(state.frames))
    goes_on = held > 0 and ascends and state.frames[-1] == state.next_frame - 1
    if not (begins or goes_on) or state.latents.shape[1:2] != (held,):
        raise ConfigError(
            f"a state with frames {list(state.frames)} before frame {state.next_frame} and "
            f"latents {list(state.latents.shape)} is none that a decoder was in; restore a whole one"
        )
    _check_numbers("latents", state.latents, (1, held, *backbone.geometry.frame_shape))
    _check_numbers("controls", state.controls, (1, held, backbone.controls), STEERED)
    if state.gists is not None:
        _check_numbers("gists of prompts", state.gists, (held, *state.gists.shape[1:]))
    if state.ahead is not None:
        _check_numbers("latents of blocks on their way", state.ahead, (1, ahead, *backbone.geometry.frame_shape))
    mask, wanted = state.salient, (held, backbone.pages.tokens)
    if mask is not None and (mask.dtype != torch.bool or mask.shape != wanted):
        raise ShapeError(f"expected salient tokens bool {list(wanted)}, got {mask.dtype} {list(mask.shape)}")


def gists_for(state: VideoState, now: Tensor | None) -> dict[int, Tensor | None]:
    """What each frame of a state was told, or what is told now if the state is from before that was kept.

    Args:
        now: the gist of what is told now, [E]; None of a video that is told nothing in words.

    Raises:
        ShapeError: it is the state of a video that is told by another backbone.
    """
    if state.gists is None or now is None:
        return dict.fromkeys(state.frames, now)
    if state.gists.shape != (len(state.frames), *now.shape):
        raise ShapeError(
            f"expected gists of prompts [{len(state.frames)}, {len(now)}], got {list(state.gists.shape)}; restore a "
            "whole state of this world"
        )
    return dict(zip(state.frames, state.gists.to(now), strict=True))


def _check_numbers(name: str, found: Tensor, shape: Sequence[int], known: Sequence[torch.dtype] = COMPUTED) -> None:
    if found.shape != tuple(shape):
        raise ShapeError(f"expected {name} {list(shape)}, got {list(found.shape)}; restore a whole state of this plan")
    if found.dtype not in known:
        kinds = ", ".join(str(each).removeprefix("torch.") for each in known)
        raise ConfigError(f"{name} are of one of {kinds}, got {found.dtype}; restore a whole state")
    if not torch.isfinite(found).all():
        raise ConfigError(f"a state with {name} that are no numbers is none that a decoder was in; restore a whole one")
