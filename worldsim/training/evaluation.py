"""How good a backbone in training is on episodes that it never sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.cache.pool import PagePool
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.video import VideoDecoder
from worldsim.models.protocol import Backbone, Codec
from worldsim.training.data import Episodes
from worldsim.training.passes import Play
from worldsim.training.recollection import Recollections
from worldsim.training.trainer import Objective

TOLERANCE = 5.0
"""A tile is right when its mean absolute error is below this, of 255. Crafter's terrain, creatures and facings differ
by more (8 or over); a sapling from grass (2.6), arrows and some tools among themselves (3.5 and 3.9) by less."""
CONTEXT = 8
"""Frames of the past before a frame that is judged."""
SEED = 1 << 32
"""Of the windows judged and their noise."""


class LatentWindows:
    """Windows of recorded play as latents: episodes behind a codec. See worldsim.training.trainer.Windows.

    Args:
        episodes: where they are drawn from.
        codec: of the world.
        seldom: the share of windows drawn for the event of their last frame, see Episodes.draw. What seldom happens is
            then learned sooner; what follows from what is not changed by being seen more often.
        recollections: of those episodes, for a backbone that remembers. Of what comes into its view is then told too
            which windows were drawn for an event.
    """

    def __init__(
        self,
        episodes: Episodes,
        codec: Codec[Any],
        seldom: float = 0.0,
        *,
        recollections: Recollections | None = None,
    ) -> None:
        self._episodes = episodes
        self._codec = codec
        self._seldom = seldom
        self._recollections = recollections

    def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
        """See Windows."""
        some = int(rng.binomial(windows, self._seldom))
        kinds = [(windows, 1.0)] if under else [(windows - some, 0.0), (some, 0.5)]
        drawn = [
            self._episodes.draw(rng, windows=count, frames=frames, seldom=seldom, under=under)
            for count, seldom in kinds
        ]
        at = torch.cat(drawn)
        chosen = torch.tensor([seldom > 0 for count, seldom in kinds for _ in range(count)], device=at.device)
        encode = torch.vmap(lambda window: self._codec.encode(window, self._codec.open())[0])
        return Play(
            latents=encode(self._episodes.frames[at]),
            controls=self._episodes.controls[at],
            recalled=None if self._recollections is None else self._recollections.of(at),
            chosen=None if self._recollections is None else chosen,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluation:
    """A fixed set of questions to ask of a backbone as it gets better.

    Args:
        episodes: held out from training.
        codec: of the world.
        objective: its loss is one of the answers; the same for the whole of a run, so that answers compare.
        plan: how the block ahead is made.
        windows: how many, for the loss and for the block ahead each.
        recollections: of those episodes, for a backbone that remembers.
    """

    episodes: Episodes
    codec: Codec[Any]
    objective: Objective
    plan: VideoPlan
    windows: int = 16
    recollections: Recollections | None = None

    def check(self) -> None:
        """Raise DataError unless some episode is as long as the questions are."""
        self.episodes.check(max(1 + self.objective.frames, CONTEXT + self.plan.frames_per_block))

    @torch.no_grad()
    def judge(self, backbone: Backbone) -> dict[str, float]:
        """Ask; equal weights give equal answers.

        Returns:
            "loss": of the objective, its noise the same every time.
            "tiles": the share of tiles of the block ahead that are right, generated through the page pool after 8
                frames of real play. A tile is what one latent pixel covers; for right see TOLERANCE.
            "still": the same share, had the last frame just stayed: the score of knowing nothing.
        """
        # Compiled parts would be compiled anew for every shape that occurs only here, a minute each time.
        with torch.compiler.set_stance("force_eager"):
            losses = [self._loss(backbone, index) for index in range(self.windows)]
            shares = [self._one_block_ahead(backbone, index) for index in range(self.windows)]
        tiles, still = np.mean(shares, axis=0)
        return {"loss": float(np.mean(losses)), "tiles": float(tiles), "still": float(still)}

    def _loss(self, backbone: Backbone, index: int) -> float:
        windows = LatentWindows(self.episodes, self.codec, recollections=self.recollections)
        play = windows.sample(_rng(index), windows=1, frames=1 + self.objective.frames)
        device = play.latents.device
        generator = torch.Generator(device).manual_seed(SEED + index)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return float(self.objective.loss(backbone, play, generator))

    def _one_block_ahead(self, backbone: Backbone, index: int) -> tuple[float, float]:
        """The shares of tiles that are right in the block generated, and in the last frame held."""
        ahead = self.plan.frames_per_block
        at = self.episodes.draw(_rng(index), windows=1, frames=CONTEXT + ahead)
        pixels, controls = self.episodes.frames[at], self.episodes.controls[at]
        past, truth = pixels[0, :CONTEXT], pixels[0, CONTEXT:]
        latents, state = self.codec.encode(past, self.codec.open())
        pool = PagePool(backbone.pages, pages=CONTEXT + ahead, dtype=torch.float32, device=latents.device)
        decoder = VideoDecoder(backbone, pool, self.plan, seed=index)
        decoder.prefill(latents[None], controls[:, :CONTEXT])
        block = decoder.propose(controls[:, CONTEXT:])
        made, _ = self.codec.decode(block.latents[0], state)
        grid = (latents.shape[-2], latents.shape[-1])
        return share_right(made, truth, grid), share_right(past[-1:].expand_as(truth), truth, grid)


def share_right(made: Tensor, truth: Tensor, grid: tuple[int, int]) -> float:
    """The share of tiles that are right, of frames uint8 [F, H, W, 3] cut into a grid of (rows, columns)."""
    error = (made.float() - truth.float()).abs()
    rows, columns = grid
    tiles = error.unflatten(1, (rows, -1)).unflatten(3, (columns, -1))  # [F, rows, side, columns, side, 3]
    return float((tiles.mean(dim=(2, 4, 5)) < TOLERANCE).float().mean())


def _rng(index: int) -> np.random.Generator:
    return np.random.default_rng([SEED, index])
