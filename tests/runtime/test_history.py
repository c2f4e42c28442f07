"""What a session remembers, and who forgets first."""

from __future__ import annotations

import sys

import numpy as np

from worldsim.runtime.history import Histories, History, Moment
from worldsim.session.log import Step, Trail


class Decoder:
    """Stands for a decoder: so many blocks made, and whether it was closed."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.closed = False

    def fork(self) -> Decoder:
        return Decoder(self.blocks)

    def close(self) -> None:
        self.closed = True


def moments(count: int, before: Trail | None = None, first: int = 0) -> list[Moment]:
    """Moments of one line, block after block."""
    made, trail = [], before
    for block in range(first, first + count):
        made.append(Moment(Decoder(block), None, trail, np.zeros((1, 1, 3), np.uint8)))
        trail = Trail(Step(block=block, keys=frozenset(), latents="", frames=""), trail)
    return made


def filled(history: History, line: list[Moment]) -> list[Moment]:
    for moment in line:
        history.add(moment)
    return line


def test_the_latest_moments_are_found_by_their_block_and_older_ones_closed():
    history = History(longest=3)
    line = filled(history, moments(5))
    assert [history.at(block) for block in range(6)] == [None, None, *line[2:], None]
    assert [moment.decoder.closed for moment in line] == [True, True, False, False, False]
    history.clear()
    assert all(moment.decoder.closed for moment in line)


def test_only_what_led_to_a_moment_is_kept_for_it():
    history = History(longest=10)
    line = moments(6)
    filled(history, line[:4])
    branch = filled(history, moments(2, before=line[4].trail, first=4))
    other = moments(3, before=line[2].trail, first=2)
    history.keep_before(branch[1])
    assert [moment.decoder.closed for moment in (*line[:4], *branch)] == [False] * 5 + [True]
    history.keep_before(other[2])
    assert [history.at(block) is not None for block in range(5)] == [True, True, True, False, False]


def test_a_fork_remembers_the_same_moments_and_each_forgets_on_its_own():
    histories = Histories()
    first = histories.open(longest=4)
    line = filled(first, moments(4))
    second = histories.fork(first)
    assert [second.at(block).trail for block in range(4)] == [moment.trail for moment in line]
    second.keep_before(line[2])
    assert (len(first), len(second)) == (4, 2)
    first.clear()
    assert [second.at(block).decoder.closed for block in range(2)] == [False, False]
    second.add(moments(1, first=9)[0])
    assert histories.make_room()
    assert len(second) == 2


def test_whoever_remembers_most_makes_room_and_the_dead_do_not_count():
    histories = Histories()
    assert not histories.make_room()
    short, long = histories.open(9), histories.open(9)
    filled(short, moments(2))
    line = filled(long, moments(4))
    for _ in range(3):
        assert histories.make_room()
    assert [moment.decoder.closed for moment in line[:2]] == [True, True]
    assert {len(short), len(long)} == {1, 2}
    del long
    while histories.make_room():
        pass
    assert not len(short)


def test_no_line_of_python_runs_when_a_history_or_a_mark_is_dropped():
    class Mark:
        pages = (3,)

    histories, ran = Histories(), []
    dropped = [histories.open(longest=3), Mark()]
    histories.hold(dropped[1])
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: ran.append(frame.f_code.co_name) if event == "call" else None)
    del dropped[:]
    sys.setprofile(before)
    assert not ran, "Ctrl-C would raise there, and nobody would hear of it"
    assert not histories.make_room()
