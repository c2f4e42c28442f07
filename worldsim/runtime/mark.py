"""A moment of a session to come back to."""

from __future__ import annotations

from dataclasses import replace

from worldsim.decoding.video import VideoDecoder, VideoState
from worldsim.errors import SessionClosed, SpillError
from worldsim.runtime.history import Histories, Moment
from worldsim.session.prompt import Coming


class Mark:
    """A moment of one session to come back to. It keeps that moment's memory until it is closed or dropped.

    The memory is pages of the pool while that has room, and then a copy outside of it. It is lost if a page could not
    be read for that copy: the moment then has to be lived again. A prompt that no block had heard is part of it.
    """

    def __init__(self, owner: object, moment: Moment, histories: Histories, coming: Coming | None) -> None:
        self._owner = owner
        self._moment = moment
        self._coming = coming
        self._copy: VideoState | None = None
        self._lost = False
        self._closed = False
        histories.hold(self)

    @property
    def block(self) -> int:
        """How many blocks had been made."""
        return self._moment.block

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages of the pool that it holds."""
        return self._moment.decoder.context.pages

    def close(self) -> None:
        """Give its memory back; the mark can no longer be used. Closing twice is fine."""
        self._moment.decoder.close()
        self._copy = None
        self._lost = False
        self._closed = True

    def leave_pool(self) -> None:
        """Give its pages back and keep a copy of what they held in the memory of the host, unless it is lost."""
        try:
            self._copy = kept_beside(self._moment.decoder)
        except SpillError:
            # Whoever needs the room has no part in it; who goes back to this mark finds out.
            self._lost = True
        self._moment.decoder.close()

    def _again(self) -> Moment:
        """A moment like it, to go on from.

        Raises:
            SessionClosed: it was closed.
            PoolFull: its memory was moved out of the pool, and there is no room to move it back.
        """
        if self._closed:
            raise SessionClosed("that mark was closed; rewind to another, and close a mark only when done with it")
        if self._copy is None:
            return self._moment.fork()
        was = self._moment.decoder
        decoder = VideoDecoder(was.backbone, was.pool, was.plan, was.seed)
        decoder.heard = was.heard
        decoder.resume(self._copy)
        return replace(self._moment, decoder=decoder)


def kept_beside(decoder: VideoDecoder) -> VideoState:
    """The state of a decoder in the memory of the host; raises SpillError if a page of it is lost."""
    state = decoder.state()
    tensors = {name: getattr(state, name).cpu() for name in ("latents", "controls", "keys", "values")}
    return replace(state, **tensors)
