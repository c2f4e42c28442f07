"""The two loops of every decoder: block after block, and inside a block until its canvas closes.

Video, masked text and images, speculation and Jacobi decoding differ in their canvas, proposer and acceptor, and run
in these same loops.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Condition = TypeVar("Condition")
Condition_contra = TypeVar("Condition_contra", contravariant=True)
Block = TypeVar("Block")
Kept_co = TypeVar("Kept_co", covariant=True)
Proposal = TypeVar("Proposal")


class Guarantee(enum.IntEnum):
    """What a decoder, or a part of one, promises about its output. A larger one promises more."""

    APPROXIMATE = 0
    """The output may differ from the model's own in law; how far is measured, not promised."""
    EXACT_GREEDY = 1
    """Where the model is decoded greedily the output is the same, token for token."""
    EXACT_LAW = 2
    """The output is distributed exactly as the model's own; greedily, the same token for token."""


def weakest(first: Guarantee, *others: Guarantee) -> Guarantee:
    """What a composition of parts promises: no more than the part that promises least."""
    return min((first, *others))


class BlockDecoder(Protocol[Condition_contra, Block]):
    """A model together with everything it has decided so far."""

    def propose(self, condition: Condition_contra, /) -> Block:
        """The next finished block. Changes nothing, so a proposal can be thrown away and made again, the same.

        Whatever commit will need besides the kept values, such as a tail for the next canvas, travels in the block.
        """
        ...

    def commit(self, block: Block, /) -> None:
        """Make block part of the past that every later block sees."""
        ...


def decode_blocks(decoder: BlockDecoder[Condition, Block], conditions: Iterable[Condition]) -> Iterator[Block]:
    """Yield one finished block per condition, each seeing the blocks before it.

    Conditions are pulled one at a time, just before their block: an offline script passes a list, a live session an
    iterator that waits for its viewer, a text decoder one that ends once enough is written.
    """
    for condition in conditions:
        block = decoder.propose(condition)
        decoder.commit(block)
        yield block


class Canvas(Protocol[Kept_co]):
    """What is being decided inside a block. Never changed: an acceptor answers with the next one."""

    @property
    def is_open(self) -> bool:
        """Whether anything is left to decide."""
        ...

    @property
    def kept(self) -> Kept_co:
        """What a closed canvas hands over: all of it, or the part before a tail."""
        ...


OpenCanvas = TypeVar("OpenCanvas", bound=Canvas[object])


def decide(
    canvas: OpenCanvas,
    propose: Callable[[OpenCanvas], Proposal],
    accept: Callable[[OpenCanvas, Proposal], OpenCanvas],
) -> OpenCanvas:
    """Work on a canvas until it closes; returns the closed one.

    Args:
        canvas: as the block opens it.
        propose: answers a canvas with anything its acceptor understands: clean latents, laws of tokens, a draft.
        accept: answers a canvas and a proposal for it with the next canvas: a sampler's step, an unmasking rule, a
            verifier. It alone decides what stays and when to close.
    """
    while canvas.is_open:
        canvas = accept(canvas, propose(canvas))
    return canvas
