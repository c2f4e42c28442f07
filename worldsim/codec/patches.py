"""A codec without parameters: every square of pixels becomes the channels of one latent pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchCodec:
    """Squares of side x side RGB pixels to 3 * side * side numbers in [-1, 1], and back; exact, and without state."""

    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ConfigError(f"a square has a side of at least 1 pixel, got {self.side}")

    @property
    def group(self) -> int:
        """A latent frame for every frame."""
        return 1

    def open(self) -> None:
        """Patches know nothing of other frames."""

    def encode(self, frames: Tensor, state: None) -> tuple[Tensor, None]:
        """Frames uint8 [..., H, W, 3] to latents float32 [..., 3 * side * side, H / side, W / side]."""
        if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
            raise ShapeError(f"expected frames uint8 [..., H, W, 3], got {frames.dtype} {list(frames.shape)}")
        height, width = frames.shape[-3:-1]
        if height % self.side or width % self.side:
            raise ShapeError(f"frames of {height}x{width} do not divide into squares of {self.side} pixels")
        squares = frames.float().div(127.5).sub(1).unflatten(-3, (-1, self.side)).unflatten(-2, (-1, self.side))
        order = squares.movedim((-4, -2, -1), (-5, -4, -3))  # [..., side, side, 3, rows, columns]
        return order.flatten(-5, -3), state

    def decode(self, latents: Tensor, state: None) -> tuple[Tensor, None]:
        """Latents [..., 3 * side * side, h, w] to frames uint8 [..., h * side, w * side, 3], clipped to the range."""
        if latents.ndim < 3 or latents.shape[-3] != 3 * self.side * self.side:
            raise ShapeError(f"expected latents [..., {3 * self.side * self.side}, h, w], got {list(latents.shape)}")
        squares = latents.float().unflatten(-3, (self.side, self.side, 3))
        pixels = squares.movedim((-5, -4, -3), (-4, -2, -1)).flatten(-5, -4).flatten(-3, -2)
        return pixels.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8), state
