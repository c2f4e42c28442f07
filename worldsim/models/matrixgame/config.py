"""The sizes of the Matrix-Game 2 models, and what steers one of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.cache.stream import Stream
from worldsim.errors import ConfigError, UnknownName
from worldsim.geometry import LatentGeometry
from worldsim.models.wan.config import WanConfig, wan_config

ROWS = 12
"""Rows of actions that steer a latent frame: those of so many pixel frames before the newest that it stands for."""
TURNING = 8
"""Dimensions of a head in an action module that turn with time; the published layout leaves the rest to places."""
THETA = 256.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixGameConfig:
    """The size of one backbone.

    wan: of the transformer around the action modules; what it calls a text are the tokens of the picture.
    keyboard: keys that a row of actions has, each 0 or 1.
    mouse: numbers of the mouse that follow them in a row; 0 of a model without.
    acting: so many layers, the first, have an action module.
    heads, head_dim: of the attention in these.
    embedding: numbers that a row of keys is embedded in.
    seen: channels that are read beside the noise.

    Source: Matrix-Game 2.0, He et al. 2025 (arXiv:2508.13009).
    """

    wan: WanConfig
    keyboard: int
    mouse: int = 2
    acting: int = 15
    heads: int = 16
    head_dim: int = 64
    embedding: int = 128
    seen: int = 20

    def __post_init__(self) -> None:
        sizes = (self.keyboard, self.acting, self.heads, self.embedding, self.seen)
        if min(sizes) < 1 or self.mouse < 0 or self.acting > self.wan.layers:
            raise ConfigError(
                f"sizes are at least 1, mouse from 0 and acting at most the {self.wan.layers} layers, got {self}"
            )
        _ = self.pages  # raises where the heads of the action modules do not turn

    @property
    def geometry(self) -> LatentGeometry:
        """The latent layout."""
        return self.wan.geometry

    @property
    def rotary(self) -> Rotary:
        """How keys of the attention over all tokens turn."""
        return self.wan.rotary

    @property
    def controls(self) -> int:
        """How many numbers steer a latent frame: ROWS rows of actions, the oldest first, each its keys, then its mouse.

        Latent frame f has the rows of the pixel frames 4 f - 12 to 4 f - 1, those before the first being like the
        first. So the newest row of a block, that of its last pixel frame, steers the block after it: as trained.
        """
        return ROWS * (self.keyboard + self.mouse)

    @property
    def stream(self) -> Stream:
        """Of an action module, the attention to the mouse as that to the keyboard."""
        rotary = Rotary(time=TURNING, rows=0, columns=0, theta=THETA)
        return Stream(layers=self.acting, heads=self.heads, head_dim=self.head_dim, rotary=rotary)

    @property
    def pages(self) -> PageShape:
        """The keys and values of one latent frame; those of the keyboard follow from what steers it."""
        return self.wan.pages.with_streams((self.stream,) if self.mouse else (), self.stream)


KINDS: Mapping[str, Mapping[str, int]] = {
    "universal": {"keyboard": 4, "mouse": 2},
    "gta_drive": {"keyboard": 2, "mouse": 2},
    "templerun": {"keyboard": 7, "mouse": 0},
}
"""The published models. Keys: W, S, A, D; W, S; none, jump, slide, turn left, turn right, step left, step right."""
PICTURES: Mapping[str, tuple[int, int]] = {"1.3b": (257, 1280), "tiny": (5, 20)}
"""What the image encoder of a size makes of a picture: so many tokens of so many numbers."""
SIZES: Mapping[str, Mapping[str, int]] = {
    "1.3b": {},
    # Good for tests alone; two layers of a stream fill a page layer and a third of another.
    "tiny": {"acting": 2, "heads": 2, "head_dim": 16, "embedding": 6},
}
"""The action modules of each size."""


def matrixgame_config(
    kind: str, size: str = "1.3b", *, height_px: int = 352, width_px: int = 640, frames_per_block: int = 3
) -> MatrixGameConfig:
    """The size of a published model.

    Args:
        kind: one of KINDS.
        size: one of SIZES.
        height_px, width_px, frames_per_block: see worldsim.models.wan.config.wan_config.

    Raises:
        UnknownName: there is no such kind or size.
        ConfigError: pictures that do not divide into tokens, or a block without frames.
    """
    if kind not in KINDS:
        raise UnknownName("kind of Matrix-Game 2", kind, KINDS)
    if size not in SIZES:
        raise UnknownName("size of Matrix-Game 2", size, SIZES)
    plain = wan_config(size, height_px=height_px, width_px=width_px, frames_per_block=frames_per_block)
    length, dim = PICTURES[size]
    return MatrixGameConfig(wan=replace(plain, text_length=length, text_dim=dim), **KINDS[kind], **SIZES[size])
