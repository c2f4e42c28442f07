"""How one model lays a video out in latent space: every size that others hard-code is derived here."""

from __future__ import annotations

from dataclasses import dataclass

from worldsim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentGeometry:
    """The latent layout of one model.

    All sizes are in latent pixels; one token covers a patch x patch square of one latent frame.
    """

    channels: int
    height: int
    width: int
    patch: int
    frames_per_block: int

    def __post_init__(self) -> None:
        sizes = (self.channels, self.height, self.width, self.patch, self.frames_per_block)
        if min(sizes) < 1:
            raise ConfigError(f"every size of a geometry is at least 1, got {self}")
        if self.height % self.patch or self.width % self.patch:
            raise ConfigError(
                f"a {self.height}x{self.width} latent does not divide into patches of {self.patch}; "
                f"use a height and a width that are multiples of {self.patch}"
            )

    @property
    def rows(self) -> int:
        """Rows of tokens in one frame."""
        return self.height // self.patch

    @property
    def columns(self) -> int:
        """Columns of tokens in one frame."""
        return self.width // self.patch

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.columns

    @property
    def tokens_per_block(self) -> int:
        return self.frames_per_block * self.tokens_per_frame

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """One latent frame, (C, H, W)."""
        return (self.channels, self.height, self.width)
