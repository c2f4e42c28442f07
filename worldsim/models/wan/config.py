"""The sizes of the Wan 2.1 family of video transformers, and of the latents that they were built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError, UnknownName
from worldsim.geometry import LatentGeometry

STRIDE_PX = 8
"""Pixels of a picture that one latent pixel covers, along each side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WanConfig:
    """The size of one backbone. height and width are in latent pixels, patch in latent pixels along each side.

    A token covers one latent frame, never two. channels are those that are read, out_channels those that are answered
    with. text_length is how many embeddings of text_dim numbers a prompt has, padding included.

    Source: Wan 2.1, Wan Team 2025 (arXiv:2503.20314), section 4.2.
    """

    dim: int
    ffn_dim: int
    layers: int
    heads: int
    height: int
    width: int
    freq_dim: int = 256
    channels: int = 16
    out_channels: int = 16
    patch: int = 2
    text_dim: int = 4096
    text_length: int = 512
    eps: float = 1e-6
    frames_per_block: int = 3

    def __post_init__(self) -> None:
        sizes = (self.dim, self.ffn_dim, self.layers, self.heads, self.freq_dim, self.text_dim, self.text_length)
        if min(sizes) < 1 or not self.eps > 0:
            raise ConfigError(f"sizes are at least 1 and eps is over 0, got {self}")
        if self.dim % (2 * self.heads) or self.head_dim < 6:
            raise ConfigError(
                f"a dim of {self.dim} does not make {self.heads} heads that divide among three axes; "
                f"use an even number of at least 6 for each head"
            )
        if self.freq_dim % 2:
            raise ConfigError(f"a time is told as sines and cosines, an even number, got freq_dim={self.freq_dim}")
        if self.channels != self.out_channels:
            raise ConfigError(
                f"this backbone answers with the channels it is given, got {self.channels} in and {self.out_channels} "
                f"out; weights that read a picture beside the noise are of another family"
            )
        _ = self.geometry  # raises where the latent does not divide into patches

    @property
    def head_dim(self) -> int:
        """Numbers in one head."""
        return self.dim // self.heads

    @property
    def geometry(self) -> LatentGeometry:
        """The latent layout."""
        return LatentGeometry(
            channels=self.out_channels,
            height=self.height,
            width=self.width,
            patch=self.patch,
            frames_per_block=self.frames_per_block,
        )

    @property
    def pages(self) -> PageShape:
        """The keys and values of one latent frame."""
        tokens = self.geometry.tokens_per_frame
        return PageShape(layers=self.layers, tokens=tokens, heads=self.heads, head_dim=self.head_dim)

    @property
    def rotary(self) -> Rotary:
        """Rows and columns take a third of the pairs of a head each, rounded down, and time what is left."""
        third = 2 * (self.head_dim // 2 // 3)
        return Rotary(time=self.head_dim - 2 * third, rows=third, columns=third)

    @property
    def heard(self) -> tuple[int, int, int, int, int]:
        """The shape of the keys and values of one prompt: (layers, 2, text_length, heads, head_dim)."""
        return (self.layers, 2, self.text_length, self.heads, self.head_dim)


SIZES: Mapping[str, Mapping[str, int]] = {
    "1.3b": {"dim": 1536, "ffn_dim": 8960, "layers": 30, "heads": 12},
    "14b": {"dim": 5120, "ffn_dim": 13824, "layers": 40, "heads": 40},
    # Good for tests alone; a head of 16 has 8 numbers for time and 4 for rows and columns each.
    "tiny": {"dim": 48, "ffn_dim": 80, "layers": 3, "heads": 3, "freq_dim": 32, "text_dim": 24, "text_length": 7},
}


def wan_config(size: str, *, height_px: int = 480, width_px: int = 832, frames_per_block: int = 3) -> WanConfig:
    """The size of that name, for videos of height_px x width_px.

    Args:
        size: one of SIZES.
        height_px, width_px: of the pictures; multiples of the pixels that a token covers, 16.
        frames_per_block: latent frames decided together.

    Raises:
        UnknownName: there is no such size.
        ConfigError: pictures that do not divide into tokens, or a block without frames.
    """
    if size not in SIZES:
        raise UnknownName("size", size, SIZES, of="Wan")
    if height_px % (2 * STRIDE_PX) or width_px % (2 * STRIDE_PX):
        raise ConfigError(
            f"pictures of {width_px}x{height_px} pixels do not divide into tokens of {2 * STRIDE_PX}x{2 * STRIDE_PX}; "
            f"the nearest size that does is {_nearest(width_px)}x{_nearest(height_px)}"
        )
    height, width = height_px // STRIDE_PX, width_px // STRIDE_PX
    return WanConfig(height=height, width=width, frames_per_block=frames_per_block, **SIZES[size])


def _nearest(side_px: int) -> int:
    token = 2 * STRIDE_PX
    return max(token, (side_px + token // 2) // token * token)
