"""A codec whose state is the last latents: small enough to be kept for every moment that a session can go back to."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any, Protocol

import torch
from torch import Tensor

from worldsim.errors import ConfigError


class ForgetfulCodec(Protocol):
    """A codec, see worldsim.models.protocol.Codec, that forgets what lies further back than so many latent frames."""

    @property
    def group(self) -> int:
        """Frames of pixels that a latent frame stands for."""
        ...

    @property
    def horizon(self) -> int:
        """`decode(latents[-horizon:], open())` has the state of decoding all of them, bit for bit."""
        ...

    def open(self) -> Any:
        """The state before the first frame."""
        ...

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Frames to latents."""
        ...

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Latents to frames."""
        ...


class TailCodec:
    """Another codec, and for a state the last latents that were decoded, [n, C, H, W] with n at most its horizon.

    What the other one carries from frame to frame can take gigabytes. It is kept for the states that were made last,
    and made again, by decoding their latents, for one that is gone back to.

    Args:
        codec: whose states are large.
        lively: how many of its states are kept; as many as there are sessions that go on in turn.
    """

    def __init__(self, codec: ForgetfulCodec, *, lively: int = 1) -> None:
        if lively < 1:
            raise ConfigError(f"the state of 1 session or more is kept, got lively={lively}")
        self.codec = codec
        self._lively = lively
        self._kept: OrderedDict[int, tuple[weakref.ref[Tensor], Any]] = OrderedDict()

    @property
    def group(self) -> int:
        """As of the other one."""
        return self.codec.group

    def open(self) -> None:
        """The state before the first frame."""

    def encode(self, frames: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames uint8 [1 + group * n, H, W, 3], the first of a video, to latents float32 [1 + n, C, H, W].

        Raises:
            ConfigError: with a state: what was encoded before these is not known.
        """
        if state is not None:
            raise ConfigError("this codec encodes whole videos, from their first frame on; give it all frames at once")
        latents, _ = self.codec.encode(frames, self.codec.open())
        return latents, self._tail(latents)

    def decode(self, latents: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents [F, C, H, W] to frames uint8 [group * F, H, W, 3], 1 for the first of all, and the state after."""
        frames, after = self.codec.decode(latents, self._whole(state))
        tail = self._tail(latents if state is None else torch.cat((state.to(latents), latents)))
        self._keep(tail, after)
        return frames, tail

    def _tail(self, latents: Tensor) -> Tensor:
        return latents[-self.codec.horizon :].clone()

    def _whole(self, state: Tensor | None) -> Any:
        """The other codec's state."""
        if state is None:
            return self.codec.open()
        # Whoever goes on from a state seldom comes back to it: its place is for the state that follows.
        found, whole = self._kept.pop(id(state), (None, None))
        if found is None or found() is not state:
            _, whole = self.codec.decode(state, self.codec.open())
        return whole

    def _keep(self, state: Tensor, whole: Any) -> None:
        self._kept[id(state)] = weakref.ref(state), whole
        while len(self._kept) > self._lively:
            self._kept.popitem(last=False)
