"""A window of blocks that are denoised jointly, each a noise level behind the one before it.

Every call takes each of them a level on. The first becomes clean and is kept; the others, under fresh noise for their
next levels, stay ahead of the past, and a new one joins behind them. A video begins with a window of one block, which
grows by one at every call until its first block is clean.

Source: RollingForcing, Liu et al. 2025 (arXiv:2509.25161), section 3. There a window shrinks at the end of a video; a
world has none, but where its noise is that of one video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from worldsim.cache.answers import check_policy_parts
from worldsim.cache.policies import policy_text
from worldsim.cache.policy import Policy, SinkWindow
from worldsim.errors import ConfigError
from worldsim.samplers import LatentCanvas, Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """What a plan that rolls sees of the past, of the frames that the policy of the plan holds.

    joint: what a window sees; its own frames see each other whole. None for what that policy shows. Of a SinkWindow a
        window that is shorter, as at the end of a video, sees as many more of the newest frames.
    clean: what the clean pass of the block that is kept sees. None for what that policy shows.
    """

    joint: Policy | None = None
    clean: Policy | None = None

    def __post_init__(self) -> None:
        for policy in (self.joint, self.clean):
            if policy is None:
                continue
            check_policy_parts(policy)
            if policy.sparse is not None:
                raise ConfigError(f"the policy of the plan alone says how old frames are held, give {policy} to it")

    def joint_of(self, short: int) -> Policy | None:
        """What a window sees that is so many frames shorter than most."""
        joint = self.joint
        return replace(joint, window=joint.window + short) if isinstance(joint, SinkWindow) else joint


def rolling_text(rolling: Rolling) -> str:
    """What each call sees by, in words: "joint=sink:sink=3,window=3 clean=policy", the last being that of the plan."""
    seen = {"joint": rolling.joint, "clean": rolling.clean}
    return " ".join(f"{call}={'policy' if own is None else policy_text(own)}" for call, own in seen.items())


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """The blocks behind the one that is kept, each a level noisier than the one before it, [1, F, C, H, W]."""

    latents: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class WindowCanvas:
    """Blocks on their way from noise to clean, the first of them the nearest; one alone where a plan does not roll.

    following: begins the block that many behind the first; None is none, as behind the last of a video. Without it none
        joins.
    """

    blocks: tuple[LatentCanvas, ...]
    following: Callable[[int], LatentCanvas | None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether noise is left in the first block."""
        return self.blocks[0].is_open

    @property
    def kept(self) -> Tensor:
        """The first block, [1, F, C, H, W]."""
        return self.blocks[0].kept

    @property
    def ahead(self) -> Ahead | None:
        """The others; None where there are none."""
        return Ahead(torch.cat([block.values for block in self.blocks[1:]], dim=1)) if self.blocks[1:] else None

    @property
    def values(self) -> Tensor:
        """Those of all blocks, [1, blocks * F, C, H, W]."""
        return torch.cat([block.values for block in self.blocks], dim=1)

    @property
    def steps(self) -> tuple[int, ...]:
        """The step that each block is at."""
        return tuple(block.at for block in self.blocks)

    @property
    def levels(self) -> list[float]:
        """The present level of every frame."""
        return [block.sigma for block in self.blocks for _ in range(block.values.shape[1])]

    def moved(self, sampler: Sampler, clean: Tensor) -> WindowCanvas:
        """Each block a level on by the clean estimate of all, and one more behind them while the first is not clean."""
        estimates = clean.split(self.blocks[0].values.shape[1], dim=1)
        blocks = tuple(sampler(block, estimate) for block, estimate in zip(self.blocks, estimates, strict=True))
        if self.following is not None and blocks[0].is_open and (joins := self.following(len(blocks))):
            blocks += (joins,)
        return WindowCanvas(blocks, self.following)


def open_window(
    ahead: Ahead | None,
    frames: int,
    sigmas: Sequence[float],
    fresh: Callable[[int, int], Tensor],
    *,
    left: int | None = None,
) -> WindowCanvas:
    """The blocks that are ahead, and a new one behind them.

    Args:
        ahead: None at the beginning of a video.
        frames: of a block.
        sigmas: the levels of every block on its way.
        fresh: the noise of the block that many behind the first, for a step.
        left: how many blocks its video has from the first on; None for one without an end.
    """
    levels = tuple(sigmas)

    def block(behind: int, at: int, values: Tensor) -> LatentCanvas:
        return LatentCanvas(values, levels, partial(fresh, behind), at)

    def following(behind: int) -> LatentCanvas | None:
        return block(behind, 0, fresh(behind, 0)) if left is None or behind < max(1, left) else None

    held = () if ahead is None else ahead.latents.split(frames, dim=1)
    blocks = tuple(block(behind, len(levels) - 1 - behind, values) for behind, values in enumerate(held))
    joins = following(len(blocks))
    return WindowCanvas((*blocks, joins) if joins else blocks, following)
