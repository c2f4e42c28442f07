"""The two loops themselves; the laws of what runs in them are judged in test_laws_*.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import pytest

from worldsim.decoding.loop import Guarantee, decide, decode_blocks, weakest


class Recorder:
    """A decoder whose blocks say what they were asked and how many were committed before them."""

    def __init__(self) -> None:
        self.past: list[tuple[str, int]] = []

    def propose(self, condition: str) -> tuple[str, int]:
        return condition, len(self.past)

    def commit(self, block: tuple[str, int]) -> None:
        self.past.append(block)


@dataclass(frozen=True)
class Countdown:
    """A canvas that closes at zero and keeps the steps it was given."""

    left: int
    kept: tuple[int, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.left > 0


def test_every_block_sees_the_blocks_committed_before_it():
    decoder = Recorder()
    assert list(decode_blocks(decoder, ["sea", "storm", "calm"])) == [("sea", 0), ("storm", 1), ("calm", 2)]
    assert decoder.past == [("sea", 0), ("storm", 1), ("calm", 2)]


def test_a_condition_is_read_only_when_its_block_is_due():
    asked = []

    def viewer() -> Iterator[str]:
        for wish in ("sea", "storm"):
            asked.append(wish)
            yield wish

    blocks = decode_blocks(Recorder(), viewer())
    assert asked == []
    assert next(blocks) == ("sea", 0)
    assert asked == ["sea"]
    assert next(blocks) == ("storm", 1)


def test_a_block_is_committed_before_anybody_gets_it():
    decoder = Recorder()
    for block in decode_blocks(decoder, ["sea", "storm"]):
        assert decoder.past[-1] == block


def test_conditions_may_end_by_what_was_decoded():
    decoder = Recorder()

    def until_three() -> Iterator[str]:
        while len(decoder.past) < 3:
            yield "on"

    assert len(list(decode_blocks(decoder, until_three()))) == 3


def test_no_condition_means_no_block():
    assert list(decode_blocks(Recorder(), [])) == []


def test_the_acceptor_is_given_the_canvas_and_the_proposal_made_for_it():
    def accept(canvas: Countdown, proposal: int) -> Countdown:
        assert proposal == 10 * canvas.left
        return replace(canvas, left=canvas.left - 1, kept=(*canvas.kept, proposal))

    closed = decide(Countdown(left=3), lambda canvas: 10 * canvas.left, accept)
    assert closed == Countdown(left=0, kept=(30, 20, 10))


def test_a_canvas_may_close_before_all_is_done():
    closed = decide(
        Countdown(left=9), lambda canvas: None, lambda canvas, _: replace(canvas, left=0, kept=(canvas.left,))
    )
    assert closed.kept == (9,)


def test_a_closed_canvas_is_asked_for_nothing():
    def refuse(*_: object) -> Countdown:
        raise AssertionError("the canvas was closed")

    closed = Countdown(left=0, kept=(1,))
    assert decide(closed, refuse, refuse) is closed


@pytest.mark.parametrize("order", list(permutations(Guarantee)))
def test_a_composition_promises_what_its_weakest_part_promises(order):
    assert weakest(*order) is Guarantee.APPROXIMATE
    assert weakest(*(part for part in order if part is not Guarantee.APPROXIMATE)) is Guarantee.EXACT_GREEDY


def test_one_part_keeps_its_promise():
    assert weakest(Guarantee.EXACT_LAW) is Guarantee.EXACT_LAW
