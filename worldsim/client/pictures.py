"""Frames as they were sent back to pixels."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import ProtocolError
from worldsim.session.wire import Media


class Pictures:
    """The frames of one connection after the other, in order: a frame of H.264 needs those before it in its block."""

    def __init__(self) -> None:
        self._decoder: Any = None

    def pixels(self, media: Media) -> NDArray[np.uint8]:
        """The pixels of a frame, uint8 [H, W, 3], RGB.

        Raises:
            ProtocolError: what was sent is no picture, or not of the size that it says.
        """
        try:
            pixels = self._unpacked(media)
        except (ValueError, cv2.error, av.FFmpegError) as error:
            self._decoder = None
            raise ProtocolError("bad_media", f"frame {media.block}:{media.frame} cannot be read: {error}") from error
        if pixels.shape != (media.height, media.width, 3):
            raise ProtocolError(
                "bad_media", f"a frame said to be {media.width} x {media.height} has the shape {list(pixels.shape)}"
            )
        return pixels

    def _unpacked(self, media: Media) -> NDArray[np.uint8]:
        if media.codec == "raw":
            return np.frombuffer(media.payload, np.uint8).reshape(media.height, media.width, 3)
        if media.codec == "jpeg":
            bgr = cv2.imdecode(np.frombuffer(media.payload, np.uint8), cv2.IMREAD_COLOR)
            if bgr is None:
                raise ValueError("no JPEG")
            return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        if self._decoder is None:
            self._decoder = av.CodecContext.create("h264", "r")
            self._decoder.flags |= av.codec.context.Flags.low_delay
        (picture,) = self._decoder.decode(av.Packet(media.payload))
        return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
