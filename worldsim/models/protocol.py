"""What a decoder needs of any backbone and codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.geometry import LatentGeometry


class Attend(Protocol):
    """Attention of one layer over whatever the caller lets a token see.

    A backbone never sees a cache: it hands over un-rotated queries, keys and values of its own tokens and gets
    the attended values back. Positions, pages and masks live behind this call.
    """

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        """Attend. All of q, k, v and the answer are [B, F * tokens_per_frame, heads, head_dim], frame after frame.

        Layers are numbered as worldsim.cache.pool.PageShape says. In those of a stream the heads are its own, and of
        other frames a token sees itself alone; in those of a steered one k and v are [B, F, heads, head_dim].
        """
        ...


class Backbone(Protocol):
    """A network that estimates the clean frames from noisy ones."""

    @property
    def geometry(self) -> LatentGeometry:
        """The latent layout it was built for."""
        ...

    @property
    def pages(self) -> PageShape:
        """The shape of one page (one frame) of the keys and values it writes."""
        ...

    @property
    def rotary(self) -> Rotary:
        """How its keys turn with position."""
        ...

    @property
    def controls(self) -> int:
        """How many numbers steer one frame."""
        ...

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend, /) -> Tensor:
        """Estimate the clean frames.

        Args:
            noisy: (1 - sigma) * clean + sigma * noise, [B, F, C, H, W].
            previous: for every frame the one before it as the model may see it, like noisy. Inside a block that is
                the noisy frame of the same block, at its start the last committed frame.
            sigma: noise level of each frame in [0, 1], [B, F].
            controls: what steers each frame, [B, F, A].
            attend: attention, see Attend. Called once per layer, layers 0, 1, 2 ... in order, those of a stream in
                theirs.

        Returns:
            The clean estimate, [B, F, C, H, W], in the dtype of noisy.
        """
        ...


class DrawingBackbone(Backbone, Protocol):
    """A backbone that holds beliefs, and so can answer with a draw from them as well as with their mean."""

    def __call__(
        self,
        noisy: Tensor,
        previous: Tensor,
        sigma: Tensor,
        controls: Tensor,
        attend: Attend,
        dice: Tensor | None = None,
        /,
    ) -> Tensor:
        """Estimate the clean frames; see Backbone.

        Args:
            noisy, previous, sigma, controls, attend: see Backbone.
            dice: uniform numbers in [0, 1), one a token, [B, F, rows, columns], that decide the draw; None asks for
                the mean. Tokens are drawn apart from each other.
        """
        ...

    def weighed(
        self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend, clean: Tensor, /
    ) -> tuple[Tensor, Tensor]:
        """How little the clean frames [B, n, C, H, W] were expected of the last n of noisy, and what was.

        Returns:
            The surprise, [B, n, rows, columns] in nats, and the logarithm of how likely each code was, float32
            [B, n, rows, columns, K].
        """
        ...


UNKNOWN = -1
"""What is recalled where nothing is known."""
Memory = Mapping[str, Tensor]
"""What a backbone remembers beside keys and values, as named tensors, empty before the first frame. It never changes:
with a frame more it is another, so that forks share it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chart:
    """The places that a backbone remembers, seen from above, each as one of a number of sorts.

    places: the sort of each, whole numbers [rows, columns], UNKNOWN where nothing was seen.
    sorts: what each sort looks like, clean latents of one token, [sorts, C, patch, patch].
    view: (top, left, rows, columns) of the places that are in view.
    """

    places: Tensor
    sorts: Tensor
    view: tuple[int, int, int, int]


class RememberingBackbone(DrawingBackbone, Protocol):
    """A backbone that keeps a memory of its own of all frames, not only of those that are still in the cache."""

    def remember(self, memory: Memory, latents: Tensor, before: Tensor, controls: Tensor, /) -> Memory:
        """The memory with frames more.

        Args:
            memory: of the frames before these.
            latents: clean, [1, F, C, H, W].
            before: the frame before them, [1, 1, C, H, W].
            controls: what steered each of them, [1, F, A].
        """
        ...

    def recall(self, memory: Memory, controls: Tensor, /) -> Tensor:
        """What is remembered of a block to come, from what will steer its frames, [1, F, A]: [1, F, ...]."""
        ...

    def chart(self, memory: Memory, /) -> Chart | None:
        """The places that are remembered, for whoever wants to see them; None where there are none.

        Raises:
            ConfigError: it is no memory of such a backbone.
        """
        ...

    def enters(self, controls: Tensor, /) -> Tensor:
        """Which tokens may show what was not in view, of frames steered by [B, F, A]: bool [B, F, rows, columns].

        It is told from the controls alone, so that weighing what is learned by it does not change what is believed.
        """
        ...

    def recalling(self, recalled: Tensor, /) -> DrawingBackbone:
        """The same backbone, that recalls so much of the last n frames of every call: what `recall` said, [B, n, ...].

        Of the others, and without this, it recalls nothing, as on a clean pass.
        """
        ...


class SteeredBackbone(Backbone, Protocol):
    """A backbone whose pages name a steered stream, see worldsim.cache.pool.PageShape."""

    def steered(self, controls: Tensor, /) -> Tensor:
        """Keys and values of frames steered by [F, A], before rotary embedding, [2, layers, F, heads, head_dim]."""
        ...


class PromptedBackbone(Backbone, Protocol):
    """A backbone that is told in words what to show."""

    def hear(self, embeddings: Tensor, /) -> Tensor:
        """What all its calls need of one prompt, [...], from the embeddings of its words, [L, E]; made once a prompt.

        Raises:
            ShapeError: more words than it takes, or embeddings of another size.
        """
        ...

    def gist(self, heard: Tensor, /) -> Tensor | None:
        """What that is about, float32 [E] of length 1: the cosine of two tells how like their prompts are.

        None of what is heard that was not said in words.
        """
        ...

    def prompted(self, heard: Tensor, first: Sequence[int], /) -> Backbone:
        """The same backbone, told a prompt for each row of a call.

        Args:
            heard: what `hear` said of each, [B, ...].
            first: the number of the first frame of each row, counted from the beginning of its video, for what is told
                of some frames and not of others.
        """
        ...


State = TypeVar("State")


class Codec(Protocol[State]):
    """Pixels to latents and back, streaming: the state comes in as an argument and goes out with the answer.

    Coding a video in pieces, each with the state of the piece before, equals coding it whole. A state never changes, so
    that what went on from it can go on from it again; it is None, a tensor, or tensors by name.
    """

    @property
    def group(self) -> int:
        """How many frames of pixels a latent frame stands for; the first of a video stands for one alone."""
        ...

    def open(self) -> State:
        """The state before the first frame."""
        ...

    def encode(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """Frames uint8 [group * F, height, width, 3] to latents float32 [F, C, H, W].

        Of the first piece of a video the first latent frame takes one frame of pixels.
        """
        ...

    def decode(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """Latents [F, C, H, W] to frames uint8 [group * F, height, width, 3]; of the first one frame, as above."""
        ...
