"""The noise that each block begins with: how much of it, and what of it is shared with the blocks beside.

All of it is a pure function of the seed and of the number of the block or of the frame, so that a fork, a rewind and a
replay begin every block as it was begun.

Sources: noise levels that rise from chunk to chunk, and their noise shuffled across the borders of chunks, BlockVid,
Zhang et al. 2025 (arXiv:2511.22973); noise that later frames share with earlier ones, FreeNoise, Qiu et al. 2023
(arXiv:2310.15169), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldsim.cache.options import parse_options
from worldsim.errors import ConfigError, shown, whole
from worldsim.noise import order

Draw = Callable[[int, int, Sequence[int]], Tensor]
"""Random numbers of a seed, a frame and a shape."""
_RISE = ("low", "high", "period")
KNOWN = {
    "plain": (),
    "linear": (*_RISE, "window"),
    "cosine": (*_RISE, "window"),
    "shuffled": ("window",),
    "published": ("frames",),
}
"""The options of each plan that can be named."""
CURVES = ("linear", "cosine")
LOW, WINDOW, WIDEST, VIDEO = 60, 4, 1024, 21
LONGEST = 1024
"""Frames of a video in the published order, over 4 minutes; the longest that LongLive publishes has 960."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisePlan:
    """How much noise a block begins with, by its number, and whether its frames share noise with those around them.

    As it is by default it changes nothing: every block begins as noise alone, and as its own.

    Args:
        curve: how levels rise from low to high over a period, "linear" or "cosine", which is slow at both ends.
        low, high: the level that the first and the last block of a period begin at, in percent, 100 being noise alone.
        period: blocks from one low to the next; at least 2.
        window: frames among which initial noise is shuffled, an even number; 0 for noise of their own.
        published: latent frames of a video whose noise is drawn in the order of the published pipelines, see
            worldsim.decoding.published_noise; 0 for noise that is a function of its block, in a world without an end.
        channels_first: whether that order is channel by channel; no text says so, since it is that of a pipeline.

    Two departures, because a world has no last block. The published level rises over the chunks of one video, here over
    a period, after which it begins anew. And an order of its own changes nothing about noise that nobody else has:
    FreeNoise therefore uses that of the first frames again and again, which in a world that goes on for an hour would
    come back thousands of times. Here a window takes half of its frames' noise over from the window before it, and
    leaves half to the next: every draw is met twice, in two windows side by side, and never again.
    """

    curve: str = "linear"
    low: int = 100
    high: int = 100
    period: int = 32
    window: int = 0
    published: int = 0
    channels_first: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high", "period", "window", "published"):
            object.__setattr__(self, name, whole(getattr(self, name), f"{name} of noise is a whole number"))
        if self.curve not in CURVES or not 1 <= self.low <= self.high <= 100 or self.period < 2:
            raise ConfigError(
                f"noise rises linear or cosine, from low to high with 1 <= low <= high <= 100 percent, over a period "
                f"of at least 2 blocks, got {self.curve}:low={shown(self.low)},high={shown(self.high)},"
                f"period={shown(self.period)}"
            )
        if not 0 <= self.window <= WIDEST or self.window % 2:
            raise ConfigError(
                f"noise is shuffled in windows of an even number of frames up to {WIDEST}, or of 0, got "
                f"{shown(self.window)}"
            )
        if not 0 <= self.published <= LONGEST:
            raise ConfigError(
                f"noise in the published order is that of a video of up to {LONGEST} frames, drawn at once, or of 0 "
                f"for none, got {shown(self.published)}; name as many as the video has, or take plain noise, which has "
                "no end"
            )
        if self.published and (self.window or not self.is_level):
            raise ConfigError(
                "noise in the published order is neither shuffled nor of other levels, got "
                f"frames={self.published}, window={self.window} and low={self.low}"
            )

    @property
    def is_level(self) -> bool:
        """Whether every block begins as noise alone."""
        return self.low == 100

    @property
    def is_plain(self) -> bool:
        """Whether it changes nothing."""
        return self.is_level and not self.window and not self.published

    def level(self, block: int) -> float:
        """The noise level that a block begins at, in (0, 1]."""
        way = block % self.period / (self.period - 1)
        if self.curve == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return (self.low + (self.high - self.low) * way) / 100

    def sigmas(self, block: int, sigmas: Sequence[float]) -> tuple[float, ...]:
        """Those levels of a sampler, scaled so that a block whose sampler begins at 1 begins at its own level.

        As many as before: a block that begins nearer to its end takes as many calls, in smaller steps.
        """
        level = self.level(block)
        return tuple(sigmas) if level == 1 else tuple(level * sigma for sigma in sigmas)

    def source(self, seed: int, frame: int) -> int:
        """The number of the draw that a frame begins from: of the 1.5 * window nearest frames, each is met twice."""
        window, place = divmod(frame, self.window)
        return window * (self.window // 2) + order(seed, window, self.window)[place]

    def shared(self, draw: Draw, seed: int, frames: range, shape: Sequence[int]) -> Tensor:
        """What draw gives for the sources of those frames, [1, F, *shape]."""
        return torch.stack([draw(seed, self.source(seed, frame), shape) for frame in frames])[None]


PLAIN = NoisePlan()


def parse_noise(text: str) -> NoisePlan:
    """The plan that a text names: "plain", "cosine:low=60,high=100,period=32,window=4", "published:frames=21".

    Options left out: a low of 60, a high of 100, a period of 32 blocks; a window of 4 frames where noise is shuffled
    ("shuffled:window=4") and nothing else, else none; a video of 21 latent frames.

    Raises:
        UnknownName: nobody knows that plan, or that option of it.
        ConfigError: an option is given twice, is not a whole number, or does not fit.
    """
    name, options = parse_options(text, KNOWN, kind="noise")
    if name == "published":
        frames: Any = options.get("frames", VIDEO)
        if frames < 1:
            raise ConfigError(
                f"a video has 1 frame or more, got frames={frames}; ask for plain if it has no such order"
            )
        return NoisePlan(published=frames)
    if name == "shuffled" and options.get("window") == 0:
        raise ConfigError("noise is shuffled in windows of 2 frames or more, got window=0; ask for plain if it is not")
    usual: dict[str, Any] = {"plain": {}, "shuffled": {"window": WINDOW}}.get(name, {"curve": name, "low": LOW})
    return NoisePlan(**(usual | options))


def noise_text(plan: NoisePlan) -> str:
    """The text that parse_noise reads as a plan that does the same, with all options."""
    if plan.published:
        return f"published:frames={plan.published}"
    if plan.is_level:
        return f"shuffled:window={plan.window}" if plan.window else "plain"
    return f"{plan.curve}:" + ",".join(f"{option}={getattr(plan, option)}" for option in KNOWN[plan.curve])
