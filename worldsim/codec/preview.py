"""A codec that encodes with one network and decodes with another, which is smaller."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from worldsim.codec.tail import ForgetfulCodec
from worldsim.errors import ConfigError


class PreviewCodec:
    """Encodes as one codec and decodes as another, for latents of the same kind.

    Args:
        encoder: encodes; its own decoder is not asked.
        decoder: decodes.

    Raises:
        ConfigError: a latent frame does not stand for as many frames of pixels in both.
    """

    def __init__(self, encoder: ForgetfulCodec, decoder: ForgetfulCodec) -> None:
        if encoder.group != decoder.group:
            raise ConfigError(
                f"a latent frame is {encoder.group} frames of pixels in one codec and {decoder.group} in the other; "
                "choose a preview of the same codec"
            )
        self._encoder = encoder
        self._decoder = decoder
        self.group = encoder.group
        self.horizon = decoder.horizon

    def open(self) -> Any:
        """The state before the first frame, of the decoder."""
        return self._decoder.open()

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The first frames of a video, uint8 [1 + group * n, H, W, 3], to latents [1 + n, C, H, W]; the state stays."""
        latents, _ = self._encoder.encode(frames, self._encoder.open())
        return latents, state

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Latents [F, C, H, W] to frames, as the decoder does."""
        return self._decoder.decode(latents, state)
