"""A live world: what is made next depends on the keys held now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.controls import Controls, Keys
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import ConfigError, SessionClosed
from worldsim.models.protocol import Codec

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chunk:
    """What one step shows.

    frames: uint8 [F, H, W, 3], RGB.
    block: number of the block they belong to, from 0.
    keys: the keys it was made under.
    """

    frames: Frames
    block: int
    keys: Keys


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """A past to go on from, and what the codec knew at that point."""

    decoder: VideoDecoder
    codec_state: Any

    def fork(self) -> _Moment:
        return _Moment(self.decoder.fork(), self.codec_state)


class Mark:
    """A moment of one session to come back to. It keeps that moment's memory until it is closed or dropped."""

    def __init__(self, owner: object, moment: _Moment) -> None:
        self._owner = owner
        self._moment = moment
        self._closed = False

    @property
    def block(self) -> int:
        """How many blocks had been made."""
        return self._moment.decoder.blocks

    def close(self) -> None:
        """Give its memory back; the mark can no longer be used. Closing twice is fine."""
        self._moment.decoder.close()
        self._closed = True


class Session:
    """One world being lived in. Made by World.open; a context manager.

    Equal worlds, seeds, starts and keys give equal frames, bit for bit, on one machine and number of threads.
    """

    def __init__(self, decoder: VideoDecoder, codec: Codec[Any], codec_state: Any, controls: Controls) -> None:
        self._codec = codec
        self._controls = controls
        self._moment = _Moment(decoder, codec_state)
        self._line = object()
        self._closed = False

    @property
    def block(self) -> int:
        """How many blocks have been made, which is the number of the next."""
        return self._moment.decoder.blocks

    def step(self, keys: Iterable[str] = ()) -> Chunk:
        """Make the next block with these keys held.

        Args:
            keys: W3C `event.code` names, of those in World.keys; none means wait.

        Raises:
            UnknownName: a key that the world does not understand; nothing was made.
            PoolFull: no memory for another block under this policy; nothing was made.
            SessionClosed: the session was closed.
        """
        held = self._controls.check(keys)
        self._check_open()
        decoder = self._moment.decoder
        frames = decoder.plan.frames_per_block
        vector = torch.tensor([self._controls.vector(held)], device=decoder.pool.device)
        block = decoder.propose(vector.expand(frames, -1)[None])
        pixels, state = self._codec.decode(block.latents[0], self._moment.codec_state)
        decoder.commit(block)
        self._moment = _Moment(decoder, state)
        return Chunk(frames=pixels.cpu().numpy(), block=decoder.blocks - 1, keys=held)

    def mark(self) -> Mark:
        """This moment, to rewind to. No key or value is copied."""
        self._check_open()
        return Mark(self._line, self._moment.fork())

    def rewind(self, mark: Mark) -> None:
        """Go back to a moment of this session, or of one that it shares a beginning with through forks.

        The same keys then make the same frames again, and the mark can be used again.

        Raises:
            ConfigError: the mark is of another session.
            SessionClosed: the mark or the session was closed.
        """
        self._check_open()
        if mark._owner is not self._line:
            raise ConfigError("that mark is of another session; rewind the session that made it, or a fork of it")
        if mark._closed:
            raise SessionClosed("that mark was closed; rewind to another, and close a mark only when done with it")
        moment = mark._moment.fork()
        self._moment.decoder.close()
        self._moment = moment

    def fork(self) -> Session:
        """A second session that begins with this one's past and goes its own way."""
        self._check_open()
        moment = self._moment.fork()
        twin = Session(moment.decoder, self._codec, moment.codec_state, self._controls)
        twin._line = self._line
        return twin

    def close(self) -> None:
        """Give the memory back. Closing twice is fine."""
        self._moment.decoder.close()
        self._closed = True

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("this session was closed; open another")
