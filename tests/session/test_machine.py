"""Who may say what, when a block is due and under which keys, and what a slow spectator misses."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from worldsim.errors import ProtocolError
from worldsim.session.events import Ack, Act, Bye, Control, Hello, Message, Ping, Prompt, Start, Tell, write_message
from worldsim.session.machine import SILENCE_S, WINDOW, Dialogue, Limits, Play, Relay, Sample

NO_LIMITS = Limits(messages_per_s=1e9, burst=10**9)
HELLO = write_message("hello")
WATCH = write_message("hello", role="spectator")
START = write_message("start")
ACTION = write_message("action", seq=1, keys=["KeyA"])
PROMPT = write_message("prompt", text="rain")
ACK = write_message("ack", epoch=0, blocks=0)
PAUSE = write_message("control", op="pause")
LOAD = write_message("control", op="load", world="0" * 32)
PING = write_message("ping", t=1)
BYE = write_message("bye")
EVERYTHING = (HELLO, START, ACTION, PROMPT, ACK, PAUSE, LOAD, PING, BYE)


def dialogue(*said: str, live: bool = False, limits: Limits = NO_LIMITS) -> Dialogue:
    talk = Dialogue(limits, 0.0)
    for message in said:
        talk.hear(message, 0.0)
    talk.live = live
    return talk


def refusal(talk: Dialogue, message: str | bytes, now: float = 0.0) -> tuple[str, int | None]:
    with pytest.raises(ProtocolError) as caught:
        talk.hear(message, now)
    return caught.value.code, caught.value.close


@pytest.mark.parametrize("role", ["player", "spectator"])
def test_a_hello_gives_a_connection_its_role(role):
    talk = dialogue()
    assert talk.role is None
    assert talk.hear(write_message("hello", role=role), 0.0) == Hello(role=role)
    assert talk.role == role
    assert not talk.live


@pytest.mark.parametrize("message", [START, ACTION, PROMPT, ACK, PAUSE, LOAD])
def test_before_a_hello_nothing_is_done(message):
    talk = dialogue()
    assert refusal(talk, message) == ("no_hello", 3000)
    assert talk.role is None


@pytest.mark.parametrize("role", [HELLO, WATCH])
@pytest.mark.parametrize("live", [False, True])
def test_a_second_hello_ends_the_connection_and_changes_no_role(role, live):
    talk = dialogue(role, live=live)
    was = talk.role
    for again in (HELLO, WATCH):
        assert refusal(talk, again) == ("hello_twice", 4400)
        assert talk.role == was


def test_a_hello_that_cannot_be_read_is_none():
    talk = dialogue()
    assert refusal(talk, '{"type":"hello","role":"god"}') == ("bad_field", None)
    assert talk.role is None
    assert refusal(talk, START) == ("no_hello", 3000)


def test_a_player_begins_a_session_once():
    talk = dialogue(HELLO)
    assert talk.hear(START, 0.0) == Start()
    talk.live = True
    assert refusal(talk, START) == ("started", None)


@pytest.mark.parametrize("message", [ACTION, PROMPT, ACK, PAUSE])
def test_before_a_session_has_begun_there_is_nothing_to_steer(message):
    talk = dialogue(HELLO)
    assert refusal(talk, message) == ("no_session", None)
    talk.live = True
    talk.hear(message, 0.0)


def test_a_session_may_begin_with_a_world_that_was_kept():
    assert dialogue(HELLO).hear(LOAD, 0.0) == Control(op="load", world="0" * 32)
    assert dialogue(HELLO, live=True).hear(LOAD, 0.0) == Control(op="load", world="0" * 32)


@pytest.mark.parametrize("op", ["pause", "resume", "step", "mark", "rewind", "fork", "save", "reset", "map"])
def test_no_other_verb_begins_a_session(op):
    assert refusal(dialogue(HELLO), write_message("control", op=op)) == ("no_session", None)
    assert dialogue(HELLO, live=True).hear(write_message("control", op=op), 0.0) == Control(op=op)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("message", [START, ACTION, PROMPT, PAUSE, LOAD])
def test_a_spectator_steers_nothing(message, live):
    assert refusal(dialogue(WATCH, live=live), message) == ("not_yours", None)


@pytest.mark.parametrize("message", [PING, BYE, ACK])
def test_a_spectator_may_ping_acknowledge_and_leave(message):
    assert isinstance(dialogue(WATCH, live=True).hear(message, 0.0), Ping | Bye | Ack)


@pytest.mark.parametrize("role", [HELLO, WATCH])
@pytest.mark.parametrize("live", [False, True])
def test_who_has_said_hello_may_say_what_to_be_told(role, live):
    assert dialogue(role, live=live).hear(write_message("tell", seen=True), 0.0) == Tell(seen=True)
    assert refusal(dialogue(live=live), write_message("tell", seen=True)) == ("no_hello", 3000)


@pytest.mark.parametrize("said", [[], [HELLO], [WATCH]])
@pytest.mark.parametrize("live", [False, True])
def test_everybody_may_ping_and_leave_at_any_time(said, live):
    talk = dialogue(*said, live=live)
    assert talk.hear(PING, 0.0) == Ping(t=1.0)
    assert talk.hear(BYE, 0.0) == Bye()


@pytest.mark.parametrize("said", [[], [HELLO], [WATCH]])
@pytest.mark.parametrize("message", [b"", b"\x00", HELLO.encode(), b"\xff" * 70_000])
def test_a_binary_message_ends_the_connection(said, message):
    assert refusal(dialogue(*said), message) == ("binary", 1003)


@pytest.mark.parametrize(
    ("talk", "message", "says"),
    [
        ((), START, "the first message is a hello"),
        ((HELLO,), HELLO, "this connection has said hello before"),
        ((HELLO,), ACTION, "no session has begun on this connection; say start first"),
        ((HELLO,), PAUSE, "no session has begun on this connection; say start or load first"),
        ((WATCH,), PAUSE, "a spectator watches; only the player of a session steers it"),
        ((), b"{}", "a client says everything in text; got a binary message"),
    ],
)
def test_a_refusal_says_why(talk, message, says):
    with pytest.raises(ProtocolError) as caught:
        dialogue(*talk).hear(message, 0.0)
    assert str(caught.value) == says


def test_so_many_messages_at_once_are_heard_and_one_more_ends_the_connection():
    talk = dialogue(limits=Limits(messages_per_s=10, burst=25))
    for _ in range(25):
        talk.hear(PING, 0.0)
    with pytest.raises(ProtocolError, match="more than 10 messages a second") as caught:
        talk.hear(PING, 0.0)
    assert (caught.value.code, caught.value.close) == ("too_fast", 4429)


def test_a_message_that_is_refused_counts_as_much_as_any():
    talk = dialogue(HELLO, limits=Limits(messages_per_s=10, burst=3))
    assert refusal(talk, "{}") == ("no_type", 4400)
    assert refusal(talk, b"") == ("binary", 1003)
    assert refusal(talk, b"") == ("too_fast", 4429)


def test_whoever_was_silent_for_long_may_not_make_up_for_all_of_it():
    talk = dialogue(limits=Limits(messages_per_s=10, burst=5))
    for _ in range(5):
        talk.hear(PING, 1e6)
    assert refusal(talk, PING, 1e6) == ("too_fast", 4429)


@settings(deadline=None)
@given(
    rate=st.integers(1, 200),
    burst=st.integers(1, 50),
    pauses=st.lists(st.sampled_from([0, 0, 1, 5, 50, 2_000]) | st.integers(0, 100), max_size=120),
)
def test_messages_are_heard_up_to_the_rate_and_the_burst_and_no_further(rate, burst, pauses):
    """The first refusal comes with the first message that is one too many over some span up to it, and not before."""
    talk = dialogue(limits=Limits(messages_per_s=rate, burst=burst))
    now, times = 0.0, []
    for pause in pauses:
        now += pause / 1024
        times.append(now)
        too_many = max(len(times) - at - burst - (now - since) * rate for at, since in enumerate(times))
        if too_many > 0:
            assert refusal(talk, PING, now) == ("too_fast", 4429)
            return
        talk.hear(PING, now)


PERIOD = 0.125
KEYS = frozenset({"KeyA"})


def play(now: float = 0.0, *, period: float = PERIOD, blocks: int = 0) -> Play:
    return Play(period, now, blocks)


def make(one: Play, now: float) -> Sample:
    sample = one.begin(now)
    one.finish()
    return sample


def act(seq: int, *keys: str) -> tuple[Act, frozenset[str]]:
    return Act(seq=seq, keys=keys), frozenset(keys)


def test_the_first_block_is_due_at_once():
    assert play(7.0).due_in(7.0) == 0.0


def test_a_world_is_never_further_ahead_than_its_window():
    one, now = play(), 0.0
    for _ in range(WINDOW):
        assert one.due_in(now) == 0.0
        make(one, now)
        now += 1
    assert one.due_in(now) is None
    one.ack(Ack(epoch=0, blocks=1))
    assert one.due_in(now) == 0.0
    make(one, now)
    assert one.due_in(now) is None
    assert one.made - one.acked == WINDOW


def test_what_was_made_before_counts_as_acknowledged():
    one = play(blocks=40)
    assert (one.made, one.acked, one.due_in(0.0)) == (40, 40, 0.0)


def test_a_block_that_is_being_made_has_not_been_sent():
    one = play()
    one.begin(0.0)
    with pytest.raises(ProtocolError, match="blocks below 0 of epoch 0 were sent"):
        one.ack(Ack(epoch=0, blocks=1))


@pytest.mark.parametrize(("epoch", "blocks"), [(0, 3), (0, 2**64 - 1), (1, 0), (1, 1), (2**64 - 1, 0)])
def test_an_acknowledgement_of_what_was_not_sent_is_refused(epoch, blocks):
    one = play()
    make(one, 0.0)
    make(one, 1.0)
    with pytest.raises(
        ProtocolError,
        match=f"blocks below 2 of epoch 0 were sent; acknowledged were those below {blocks} of epoch {epoch}",
    ) as no:
        one.ack(Ack(epoch=epoch, blocks=blocks))
    assert (no.value.code, no.value.close) == ("bad_ack", None)
    assert one.acked == 0


def test_an_acknowledgement_takes_none_back():
    one = play()
    make(one, 0.0)
    make(one, 1.0)
    for blocks in (2, 1, 0):
        one.ack(Ack(epoch=0, blocks=blocks))
        assert one.acked == 2


def test_a_jump_begins_an_epoch_for_which_older_acknowledgements_say_nothing():
    one = play(blocks=10)
    make(one, 0.0)
    make(one, 1.0)
    assert one.due_in(1.0) is None
    one.jump(4)
    assert (one.epoch, one.made, one.acked) == (1, 4, 4)
    assert one.due_in(2.0) == 0.0
    for blocks in (12, 10**9):
        one.ack(Ack(epoch=0, blocks=blocks))
        assert one.acked == 4
    make(one, 2.0)
    one.ack(Ack(epoch=1, blocks=5))
    assert one.acked == 5


def test_blocks_keep_to_the_world_s_own_time():
    """A block that begins a little late does not make those behind it late."""
    one = play()
    for block in range(50):
        due = block * PERIOD
        now = due + 0.03 * (block % 3)
        assert one.due_in(due - 0.01) == pytest.approx(0.01)
        assert one.due_in(now) == pytest.approx(0.0)
        make(one, now)
        one.ack(Ack(epoch=0, blocks=block + 1))
    assert one.due_in(50 * PERIOD) == pytest.approx(0.0)


def begun(one: Play, moments: list[float]) -> list[float]:
    """When blocks begin if they are begun as soon as they are due at one of these moments, and acknowledged at once."""
    times = []
    for now in moments:
        while one.due_in(now) == 0.0:
            make(one, now)
            one.ack(Ack(epoch=one.epoch, blocks=one.made))
            times.append(now)
    return times


@given(st.floats(0.01, 1.0), st.lists(st.floats(0, 5) | st.floats(0, 0.2), min_size=1, max_size=60))
def test_time_that_was_lost_is_not_made_up_for_in_a_burst(period, pauses):
    """Whatever held blocks up: any span has as many as fit in it, one at its beginning and one to catch up."""
    moments = [sum(pauses[: count + 1]) for count in range(len(pauses))]
    times = begun(play(period=period), moments)
    for first, since in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= (times[last] - since) / period + 2 + 1e-6


@pytest.mark.parametrize("late", [1.0, 60.0, 1e6])
def test_after_a_long_wait_for_acknowledgements_blocks_come_in_their_own_time_again(late):
    one = play()
    make(one, 0.0)
    make(one, PERIOD)
    assert one.due_in(late) is None
    one.ack(Ack(epoch=0, blocks=2))
    moments = [late + tick / 1024 for tick in range(1024)]
    times = begun(one, moments)
    assert 8 <= len(times) <= 10
    assert all(after - before == pytest.approx(PERIOD, abs=0.002) for before, after in pairwise(times[1:]))


@pytest.mark.parametrize("moment", [0.0, 5.0])
def test_without_a_pace_only_acknowledgements_hold_blocks_up(moment):
    one = play(period=0.0)
    for block in range(20):
        assert one.due_in(moment) == 0.0
        make(one, moment)
        one.ack(Ack(epoch=0, blocks=block))
    assert one.due_in(moment) == 0.0


def test_paused_means_that_no_block_is_due_until_it_goes_on():
    one = play()
    make(one, 0.0)
    one.ack(Ack(epoch=0, blocks=1))
    one.pause()
    assert one.due_in(0.0) is None
    assert one.due_in(1e9) is None
    one.resume(100.0)
    assert not one.paused
    assert one.due_in(100.0) == 0.0


def test_a_pause_is_not_made_up_for():
    one = play()
    make(one, 0.0)
    one.ack(Ack(epoch=0, blocks=1))
    one.pause()
    one.resume(100.0)
    times = begun(one, [100 + tick / 64 for tick in range(65)])
    assert times == pytest.approx([100 + block * PERIOD for block in range(9)], abs=0.02)


def test_going_on_without_a_pause_changes_nothing():
    one = play()
    make(one, 0.0)
    one.ack(Ack(epoch=0, blocks=1))
    one.resume(0.05)
    assert one.due_in(0.05) == pytest.approx(PERIOD - 0.05)


@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_so_many_steps_are_made_although_it_is_paused(blocks):
    one = play()
    one.pause()
    one.allow(blocks)
    assert len(begun(one, [float(second) for second in range(20)])) == blocks
    assert one.paused


def test_steps_are_made_at_once_and_delay_nothing_that_comes_after_them():
    one = play()
    make(one, 0.0)
    one.ack(Ack(epoch=0, blocks=1))
    one.pause()
    one.allow(100)
    assert len(begun(one, [0.01])) == 100
    one.resume(0.02)
    assert one.due_in(0.02) == pytest.approx(PERIOD - 0.02)
    one.pause()
    one.resume(9.0)
    assert one.due_in(9.0) == 0.0


def test_steps_add_up_and_wait_for_acknowledgements_like_any_block():
    one = play()
    one.pause()
    one.allow(2)
    one.allow(3)
    make(one, 0.0)
    make(one, 1.0)
    assert one.due_in(9.0) is None
    one.ack(Ack(epoch=0, blocks=2))
    assert len(begun(one, [float(second) for second in range(10, 20)])) == 3


def test_steps_that_were_not_made_when_it_goes_on_are_not_owed_at_the_next_pause():
    one = play()
    one.pause()
    one.allow(5)
    make(one, 0.0)
    one.resume(1.0)
    one.pause()
    one.ack(Ack(epoch=0, blocks=1))
    assert one.due_in(2.0) is None


def test_a_pause_ends_the_steps_that_are_being_made():
    one = play()
    one.pause()
    one.allow(10**6)
    make(one, 0.0)
    one.pause()
    assert one.due_in(1.0) is None
    one.allow(1)
    assert one.due_in(1.0) == 0.0


@pytest.mark.parametrize("connected", [False, True])
def test_without_a_player_the_world_stands_still(connected):
    one = play()
    one.connected = connected
    assert (one.due_in(5.0) == 0.0) is connected


def test_the_newest_action_wins_and_is_held():
    one = play()
    one.act(*act(1, "KeyA"))
    one.act(*act(2, "KeyD", "Space"))
    for now in (0.0, 1.0):
        assert make(one, now) == Sample(frozenset({"KeyD", "Space"}), 2)


def test_before_any_action_nothing_is_held():
    assert make(play(), 0.0) == Sample(frozenset(), 0)


@pytest.mark.parametrize("seq", [0, 1, 4, 5])
def test_an_action_that_is_not_newer_is_left_out(seq):
    one = play()
    one.act(*act(5, "KeyA"))
    one.act(*act(seq, "KeyD"))
    assert make(one, 0.0) == Sample(KEYS, 5)


@given(st.permutations(range(1, 9)), st.lists(st.integers(1, 8)))
def test_actions_that_overtake_each_other_or_come_twice_end_with_the_newest(order, again):
    one = play()
    for seq in (*order, *again):
        one.act(*act(seq, f"Digit{seq}"))
    assert make(one, 0.0) == Sample(frozenset({"Digit8"}), 8)


def test_a_block_that_has_begun_is_not_changed():
    one = play()
    one.act(*act(1, "KeyA"))
    sample = one.begin(0.0)
    one.act(*act(2, "KeyD"))
    one.finish()
    assert sample == Sample(KEYS, 1)
    assert make(one, 1.0) == Sample(frozenset({"KeyD"}), 2)


def test_keys_are_released_when_the_player_has_been_silent_and_stay_so_until_its_next_action():
    one = play()
    one.act(*act(3, "KeyA"))
    one.hear(1.0)
    assert make(one, 1.0 + SILENCE_S) == Sample(KEYS, 3)
    assert make(one, 1.001 + SILENCE_S) == Sample(frozenset(), 3)
    one.hear(10.0)
    assert make(one, 10.0) == Sample(frozenset(), 3)
    one.act(*act(3, "KeyA"))
    assert make(one, 10.0) == Sample(frozenset(), 3)
    one.act(*act(4, "KeyA"))
    assert make(one, 10.0) == Sample(KEYS, 4)


def test_any_word_keeps_keys_held():
    one = play()
    one.act(*act(1, "KeyA"))
    for second in range(20):
        one.hear(2.0 * second)
        assert make(one, 2.0 * second + 1.9) == Sample(KEYS, 1)


class Naive:
    """A session as the protocol's page tells it, with everything that ever happened in lists."""

    def __init__(self) -> None:
        self.epoch = 0
        self.sent: set[int] = set()
        self.base = 0
        self.acks = [0]
        self.actions: list[tuple[int, frozenset[str]]] = []
        self.released_at = -1
        self.heard = 0.0
        self.paused = False
        self.steps = 0

    @property
    def made(self) -> int:
        return self.base + len(self.sent)

    @property
    def held(self) -> Sample:
        newest = max(self.actions, key=lambda one: one[0], default=(0, frozenset()))
        return Sample(frozenset() if newest[0] <= self.released_at else newest[1], newest[0])

    def may(self) -> bool:
        return self.made - max(self.acks) < WINDOW and (not self.paused or self.steps > 0)


class Plays(RuleBasedStateMachine):
    """A Play beside its naive double, under anything that a room may do to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.naive = Naive()
        self.real = play()
        self.connected = True
        self.times: list[float] = []

    @rule(seconds=st.sampled_from([0.0, 0.01, PERIOD, 0.5, 4.0]) | st.floats(0, 10))
    def wait(self, seconds):
        self.now += seconds

    @rule(seq=st.integers(0, 30), keys=st.frozensets(st.sampled_from(["KeyA", "KeyD"])), counts=st.booleans())
    def act(self, seq, keys, counts):
        if counts:
            self.real.hear(self.now)
            if self.now - self.naive.heard > SILENCE_S:
                self.naive.released_at = self.naive.held.action
            self.naive.heard = self.now
        self.real.act(Act(seq=seq, keys=tuple(keys)), keys)
        if seq > max((one for one, _ in self.naive.actions), default=0):
            self.naive.actions.append((seq, keys))

    @rule(back=st.integers(0, 4))
    def ack(self, back):
        blocks = max(0, self.naive.made - back)
        self.real.ack(Ack(epoch=self.naive.epoch, blocks=blocks))
        self.naive.acks.append(blocks)

    @rule(blocks=st.integers(0, 10**6))
    def ack_of_an_epoch_that_is_over(self, blocks):
        if self.naive.epoch:
            self.real.ack(Ack(epoch=self.naive.epoch - 1, blocks=blocks))

    @rule(ahead=st.integers(1, 3), epochs=st.integers(0, 2))
    def ack_of_what_was_not_sent(self, ahead, epochs):
        with pytest.raises(ProtocolError, match="acknowledged were"):
            self.real.ack(Ack(epoch=self.naive.epoch + epochs, blocks=self.naive.made + ahead))

    @rule()
    def pause(self):
        self.real.pause()
        self.naive.paused, self.naive.steps = True, 0

    @rule()
    def resume(self):
        self.real.resume(self.now)
        self.naive.paused, self.naive.steps = False, 0

    @precondition(lambda self: self.naive.paused)
    @rule(blocks=st.integers(0, 3))
    def step(self, blocks):
        self.real.allow(blocks)
        self.naive.steps += blocks

    @rule(there=st.booleans())
    def connect(self, there):
        self.real.connected = self.connected = there

    @rule(back=st.integers(0, 5))
    def jump(self, back):
        blocks = max(0, self.naive.made - back)
        self.real.jump(blocks)
        self.naive.epoch += 1
        self.naive.steps = 0
        self.naive.base, self.naive.sent, self.naive.acks = blocks, set(), [blocks]

    @precondition(lambda self: self.real.due_in(self.now) == 0.0)
    @rule(succeeds=st.booleans(), seconds=st.sampled_from([0.0, 0.02, 1.0]))
    def make(self, succeeds, seconds):
        assert self.connected
        assert self.naive.may()
        if not self.naive.paused:
            self.times.append(self.now)
        if self.now - self.naive.heard > SILENCE_S:
            self.naive.released_at = self.naive.held.action
        assert self.real.begin(self.now) == self.naive.held
        self.naive.steps = max(0, self.naive.steps - self.naive.paused)
        self.now += seconds
        if succeeds:
            self.real.finish()
            self.naive.sent.add(self.naive.made)

    @invariant()
    def credit_is_kept(self):
        assert (self.real.epoch, self.real.made) == (self.naive.epoch, self.naive.made)
        assert self.real.acked == max(self.naive.acks)
        assert 0 <= self.real.made - self.real.acked <= WINDOW

    @invariant()
    def a_block_is_due_when_it_may_be_made(self):
        due = self.real.due_in(self.now)
        assert (due is not None) is (self.connected and self.naive.may())
        assert due is None or 0.0 <= due <= PERIOD * (not self.naive.paused) + 1e-9

    @invariant()
    def there_are_no_bursts(self):
        for since, third in zip(self.times, self.times[2:], strict=False):
            assert third - since >= PERIOD - 1e-9


def test_a_play_does_what_its_naive_double_does():
    run_state_machine_as_test(
        Plays,
        settings=settings(
            max_examples=200,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
        ),
    )


MESSAGES_A_STEP, STEPS, RUNS = 50, 25, 30


class Attacked(RuleBasedStateMachine):
    """A server's half of connection after connection, whose clients say messages that chance has garbled."""

    heard: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.seq = 0
        self.play = play()
        self.talk = Dialogue(NO_LIMITS, 0.0)
        self.was = (0, 0)

    @rule(seed=st.integers(0, 2**32))
    def hear(self, seed):
        rng = random.Random(seed)
        for _ in range(MESSAGES_A_STEP):
            self.now += rng.choice([0.0, 0.001, 0.1, 5.0])
            message = garbled(self._sensible(rng), rng)
            try:
                self._do(self.talk.hear(message, self.now))
                self.heard["done"] += 1
            except ProtocolError as error:
                self.heard[error.code] += 1
                if error.close is not None:
                    self.talk = Dialogue(NO_LIMITS, self.now)
                    self.play.connected = False
            self._make(rng)
            self._check()

    def _sensible(self, rng: random.Random) -> str:
        if self.talk.role is None and rng.random() < 0.8:
            return rng.choice([HELLO, HELLO, HELLO, WATCH])
        if not self.talk.live and rng.random() < 0.8:
            return rng.choice([START, START, LOAD])
        self.seq += 1
        action = write_message("action", seq=self.seq - rng.randrange(3), keys=rng.choice([[], ["KeyA"], ["Space"]]))
        acked = max(0, self.play.made - rng.randrange(-1, 3))
        ack = write_message("ack", epoch=self.play.epoch - (rng.random() < 0.1), blocks=acked)
        verbs = ["pause", "resume", "resume", "step", "rewind", "reset", "save", "fork", "mark", "load"]
        verb = write_message("control", op=rng.choice(verbs), blocks=rng.choice([0, 1, 2, 10**6]))
        return rng.choice([action, action, ack, ack, ack, verb, *EVERYTHING])

    def _do(self, heard: Message) -> None:
        match heard:
            case Start() if self.talk.role == "player":
                self._enter()
            case Control() if not self.talk.live:
                self._enter()
            case Control(op="pause"):
                self.play.pause()
            case Control(op="resume"):
                self.play.resume(self.now)
            case Control(op="step") if self.play.paused:
                self.play.allow(heard.blocks)
            case Control(op="rewind") | Control(op="reset") | Control(op="load"):
                self.play.jump(max(0, self.play.made - heard.blocks))
            case Act():
                self.play.act(heard, frozenset(heard.keys))
            case Ack() if self.talk.role == "player":
                self.play.ack(heard)
            case Hello() | Ping() | Prompt() | Control() | Bye() | Ack():
                pass
        if self.talk.live:
            self.play.hear(self.now)

    def _enter(self) -> None:
        self.talk.live = self.play.connected = True

    def _make(self, rng: random.Random) -> None:
        if self.play.due_in(self.now) == 0.0:
            sample = self.play.begin(self.now)
            assert sample.action < 2**32
            if rng.random() < 0.9:
                self.play.finish()

    def _check(self) -> None:
        epoch, acked = self.was
        assert 0 <= self.play.made - self.play.acked <= WINDOW
        assert self.play.epoch > epoch or (self.play.epoch == epoch and self.play.acked >= acked)
        assert self.talk.role is not None or not self.talk.live
        self.was = self.play.epoch, self.play.acked


def garbled(text: str, rng: random.Random) -> str | bytes:
    """That message, or something near it that a broken or an evil client might say."""
    match rng.randrange(12):
        case 0:
            at = rng.randrange(len(text) + 1)
            return text[:at] + chr(rng.choice([0, 34, 92, 123, 0xD800, 0x10FFFF, rng.randrange(128)])) + text[at:]
        case 1:
            at = rng.randrange(len(text))
            return text[:at] + text[at + rng.randrange(1, 6) :]
        case 2:
            fields = json.loads(text)
            odd = [None, True, -1, 0, 1, 2**32, 2**64, 1.5, "", "x", [], {}, ["KeyA"], [[]], "\ud800", 10**400]
            fields[rng.choice([*fields, "seq", "epoch", "blocks", "keys"])] = rng.choice(odd)
            return json.dumps(fields)
        case 3 if rng.random() < 0.3:
            return text.encode()
        case 4 if rng.random() < 0.3:
            return rng.choice(["", "null", "[]", "[" * 5_000, "9" * 4_500, '{"type":[]}', "NaN", text * 2])
        case _:
            return text


def test_ten_thousand_garbled_messages_do_no_more_than_be_refused():
    run_state_machine_as_test(
        Attacked,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    assert Attacked.heard.total() >= 10_000
    assert Attacked.heard["done"] >= 5_000
    assert Attacked.heard.keys() >= {"not_json", "unknown_type", "bad_field", "binary", "hello_twice", "no_hello"}
    assert Attacked.heard.keys() >= {"not_yours", "no_session", "started", "bad_ack"}


def block(number: int, frames: int = 2, *, keys: bool = False) -> list[tuple[tuple[int, int], bool]]:
    """The packets of a block, each with whether it needs none before it: all of them, or the first alone."""
    return [((number, at), keys or at == 0) for at in range(frames)]


def drained(relay: Relay) -> list[tuple[int, int]]:
    found = []
    while (packet := relay.take()) is not None:
        found.append(packet)
    return found


def test_a_player_misses_nothing_and_gets_it_in_order():
    relay = Relay()
    assert sum(relay.put(block(number, 3)) for number in range(100)) == 0
    assert len(relay) == 300
    assert drained(relay) == [(number, at) for number in range(100) for at in range(3)]
    assert relay.take() is None


def test_a_spectator_begins_with_a_packet_that_needs_none_before_it():
    relay = Relay(8)
    assert relay.put([((0, 1), False), ((0, 2), False)]) == 2
    assert relay.put(block(1)) == 0
    assert drained(relay) == [(1, 0), (1, 1)]


def test_whoever_comes_in_the_middle_of_a_block_begins_in_the_middle_if_that_can_be_shown():
    relay = Relay(8)
    assert relay.put([((0, 1), False), ((0, 2), True), ((0, 3), False)]) == 1
    assert drained(relay) == [(0, 2), (0, 3)]


def test_a_slow_spectator_misses_all_that_waits_and_goes_on_with_the_newest_block():
    relay = Relay(4)
    assert [relay.put(block(number)) for number in range(5)] == [0, 0, 4, 0, 4]
    assert drained(relay) == [(4, 0), (4, 1)]


def test_after_a_drop_a_spectator_waits_for_a_packet_that_needs_none_before_it():
    relay = Relay(2)
    relay.put(block(0))
    assert relay.put([((1, 0), False), ((1, 1), False)]) == 4
    assert relay.put([((2, 0), False)]) == 1
    assert drained(relay) == []
    assert relay.put(block(3)) == 0
    assert drained(relay) == [(3, 0), (3, 1)]


def test_a_block_longer_than_all_that_may_wait_is_sent_when_nothing_waits():
    relay = Relay(2)
    assert relay.put(block(0, 5)) == 0
    assert relay.put(block(1, 5)) == 5
    assert drained(relay) == [(1, at) for at in range(5)]


def test_what_is_forgotten_is_not_sent_and_what_follows_can_be_shown():
    relay = Relay()
    relay.put(block(0))
    relay.clear()
    assert len(relay) == 0
    assert relay.put([((1, 1), False)]) == 1
    assert relay.put(block(2)) == 0
    assert drained(relay) == [(2, 0), (2, 1)]


def can_be_shown(shown: list[tuple[int, int]], frames: int, *, keys: bool) -> bool:
    """Whether each packet needs none before it or follows the one that it needs."""
    before: tuple[int, int] | None = None
    for number, at in shown:
        if not keys and at > 0 and before != (number, at - 1):
            return False
        before = number, at
    return all(at < frames for _, at in shown)


@given(
    most=st.none() | st.integers(1, 12),
    frames=st.integers(1, 5),
    keys=st.booleans(),
    reads=st.lists(st.integers(0, 6), max_size=60),
)
def test_whatever_a_viewer_reads_is_in_order_and_can_be_shown(most, frames, keys, reads):
    relay, shown, dropped = Relay(most), [], 0
    for number, count in enumerate(reads):
        dropped += relay.put(block(number, frames, keys=keys))
        assert most is None or len(relay) <= max(most, frames)
        for _ in range(count):
            packet = relay.take()
            shown += [] if packet is None else [packet]
    rest = drained(relay)
    assert rest == [] or rest[-1] == (len(reads) - 1, frames - 1)
    shown += rest
    assert shown == sorted(set(shown))
    assert can_be_shown(shown, frames, keys=keys)
    assert len(shown) + dropped == frames * len(reads)
    assert most is not None or dropped == 0


@given(st.lists(st.lists(st.booleans(), max_size=4), max_size=30))
def test_a_relay_without_an_end_holds_back_only_what_comes_before_the_first_key(blocks):
    relay, told = Relay(), deque()
    for number, flags in enumerate(blocks):
        relay.put([((number, at), is_key) for at, is_key in enumerate(flags)])
        told.extend(((number, at), is_key) for at, is_key in enumerate(flags))
    while told and not told[0][1]:
        told.popleft()
    assert drained(relay) == [packet for packet, _ in told]
