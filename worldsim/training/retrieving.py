"""Windows whose past is what a policy brings back, so that a backbone is trained with the past that it is to read."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.cache.policy import Alike
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.likeness import Looks
from worldsim.errors import ConfigError
from worldsim.models.protocol import Codec
from worldsim.training.data import Episodes
from worldsim.training.passes import Play


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RetrievedWindows:
    """Windows of frames that lie apart: runs from long ago, recent frames, and what is learned. See Windows.

    Positions follow one another, as they do under the policy. Of each window the first 1 + policy.top * policy.run +
    policy.recent frames are the past; an objective learns from `first` = policy.top * policy.run + policy.recent on.
    A departure: in a window the first frame of a run comes after one that was not before it.

    Args:
        episodes: where they are drawn from.
        codec: of the world.
        policy: what brings the runs back. It asks when the first frame that is learned is to be made.
        places: where the body is at every frame of the episodes, int64 [N, 2], see
            worldsim.training.recollection.places_of. In half of the windows runs are then as alike as their places are
            near, so that many show what is coming into view; in the others, and without places, as they look alike.

    Raises:
        ConfigError: the policy may bring back fewer runs than `top`, or less than whole ones.
    """

    episodes: Episodes
    codec: Codec[Any]
    policy: Retrieval
    places: Tensor | None = None

    def __post_init__(self) -> None:
        policy = self.policy
        if policy.like > 0 or policy.within or policy.pick == "first" or policy.bank < policy.top or policy.tau < 1:
            raise ConfigError(
                f"windows hold {policy.top} whole runs each, and {policy} may bring back fewer of them, or less of "
                "each; train with tau=1, like=0, within=0, a bank of top or more, and the likest, unlikest or random"
            )

    @property
    def past(self) -> int:
        """Frames of the past in each window, the one before the first run aside."""
        return self.policy.top * self.policy.run + self.policy.recent

    def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
        """See Windows.

        Raises:
            ConfigError: nothing is left to be learned.
            DataError: no episode is long enough.
        """
        learned = frames - 1 - self.past
        if learned < 1:
            raise ConfigError(
                f"windows of {frames} frames hold nothing behind 1 + {self.past} of the past; learn longer ones"
            )
        drawn = self.episodes.draw(rng, windows=windows, frames=self.past + learned, under=under)
        at = torch.stack([self._behind_its_past(window[-learned:], rng) for window in drawn])
        encode = torch.vmap(lambda window: self.codec.encode(window, self.codec.open())[0])
        return Play(latents=encode(self.episodes.frames[at]), controls=self.episodes.controls[at])

    def _behind_its_past(self, learned: Tensor, rng: np.random.Generator) -> Tensor:
        """The numbers of all frames of a window, of those that are learned."""
        now = int(learned[0])
        begins = [begin for begin, _ in self.episodes.episodes]
        begin = begins[bisect_right(begins, now) - 1]
        held = self.policy.keep(range(now - begin), now - begin)
        by_place = self.places is not None and rng.random() < 0.5
        alike = self._near(begin, now) if by_place else self._looking_alike(begin, held)
        seen = [begin + one.frame for one in self.policy.see(held, now - begin, alike)]
        past = torch.tensor([max(begin, seen[0] - 1), *seen], device=learned.device)
        return torch.cat((past, learned))

    def _near(self, begin: int, now: int) -> Alike:
        assert self.places is not None
        away = (self.places[begin:now] - self.places[now]).abs().sum(1)
        return (-away).tolist().__getitem__

    def _looking_alike(self, begin: int, held: Any) -> Alike:
        """How alike frames look to the newest, as a decoder asks."""
        numbers = begin + torch.tensor([*held], device=self.episodes.frames.device)
        latents, _ = self.codec.encode(self.episodes.frames[numbers], self.codec.open())
        return Looks({}).of(dict(zip(held, latents, strict=True))).like_newest().__getitem__
