"""The next block of several sessions by shared backbone calls; what goes wrong in one stays in that one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from worldsim.controls import Keys
from worldsim.decoding.batch import propose_together, write_together
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import BrokenBlock, PoolFull
from worldsim.interrupts import undivided
from worldsim.runtime.chunk import Chunk, Frames
from worldsim.runtime.history import Moment
from worldsim.session.log import Step, Trail
from worldsim.session.prompt import Coming, Told

if TYPE_CHECKING:
    from worldsim.runtime.session import Session


Answer = TypeVar("Answer")


class Stopped(Exception):
    """Somebody asked between two steps that the work ends; nothing was made."""


@dataclass(slots=True, eq=False)
class _Turn:
    """One session's part of a shared block: what it is made under, what came out, and who waits for it.

    decoder: that of the session, or a fork of it where it is told something new, so that nothing changes unless a block
        is made.
    told: what the block hears; None where nothing is ever told.
    prompt: what is new of that, and over how many blocks; None if nothing is.
    before: the moment that the session goes on from if its block cannot be kept.
    """

    session: Session
    outcome: Future[Chunk]
    keys: Keys
    decoder: VideoDecoder
    steering: Tensor
    told: Told | None = None
    prompt: Coming | None = None
    before: Moment | None = None
    block: LatentBlock | None = None
    frames: Frames | None = None
    codec_state: Any = None
    seconds: dict[str, float] = field(default_factory=dict)


def step_together(
    sessions: Sequence[Session], keys: Sequence[Iterable[str]], *, between: Callable[[], None] = lambda: None
) -> list[Future[Chunk]]:
    """Make the next block of every session, each once.

    Args:
        sessions: of one world.
        keys: held in each.
        between: called before every backbone call; raise Stopped to end the work, and nothing was made.

    Returns:
        For each session, done: its chunk, or what went wrong with it, in which case it is where it was and the others
        are not. See Session.step for what that can be; a block that came out broken is a BrokenBlock.
    """
    outcomes: list[Future[Chunk]] = [Future() for _ in sessions]
    turns: list[_Turn] = []
    with ExitStack() as busy, ExitStack() as ends:
        ends.callback(_drop_forks, turns)
        for session, held, outcome in zip(sessions, keys, outcomes, strict=True):
            with _into(outcome):
                busy.enter_context(session._busy)
                turns.append(_turn(session, session._check(held), outcome))
        _take_turns(turns, between)
    return outcomes


def _drop_forks(turns: Sequence[_Turn]) -> None:
    """Give back what turns have apart from their sessions."""
    for turn in turns:
        if turn.decoder is not turn.session._moment.decoder:
            turn.decoder.close()


def _take_turns(turns: Sequence[_Turn], between: Callable[[], None]) -> None:
    """Make the block of every turn, and give each its outcome."""
    began = perf_counter()
    _propose(turns, between)
    denoised = perf_counter()
    for turn in _left(turns):
        with _into(turn.outcome):
            _decode(turn)
            turn.seconds |= {"denoise": denoised - began, "decode": perf_counter() - denoised}
    decoded = perf_counter()
    with undivided():
        for turn in _commit(_left(turns)):
            with _into(turn.outcome):
                turn.outcome.set_result(_adopt(turn, decoded))


def _left(turns: Sequence[_Turn]) -> list[_Turn]:
    """The turns that nothing went wrong with."""
    return [turn for turn in turns if not turn.outcome.done()]


def attempt(call: Callable[[], Answer], outcome: Future[Answer]) -> None:
    """Call, and give the outcome what comes of it: an answer, or whatever went wrong.

    That includes what ends a thread, such as SystemExit: the thread that calls goes on for the others.
    """
    try:
        outcome.set_result(call())
    except BaseException as error:
        outcome.set_exception(error)


@contextmanager
def _into(outcome: Future[Any]) -> Iterator[None]:
    """Whatever goes wrong inside goes wrong with that outcome alone."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        outcome.set_exception(error)


def _propose(turns: Sequence[_Turn], between: Callable[[], None]) -> None:
    """Give every turn its block; if the shared calls fail, each is made alone, to find whose fault it is."""
    if not turns:
        return
    shared = turns[0].outcome if len(turns) == 1 else Future[Any]()
    with _into(shared):
        decoders = [turn.decoder for turn in turns]
        steering = [turn.steering for turn in turns]
        made = _with_room(turns[0].session, lambda: propose_together(decoders, steering, between=between))
        for turn, (latents, recording) in zip(turns, made, strict=True):
            turn.block = LatentBlock(latents=latents, controls=turn.steering, recording=recording)
    if len(turns) > 1 and shared.done():
        for turn in turns:
            _propose([turn], between)


def _turn(session: Session, keys: Keys, outcome: Future[Chunk]) -> _Turn:
    """Its part of a block under these keys; PoolFull if there is no room for what it is told."""
    moment, prompt = session._moment, session.coming
    told = moment.told
    if prompt is not None and told is not None:
        told = Told(text=prompt[0], before=told.text, since=moment.block, over=prompt[1])
    steering = _controls(session, keys)
    return _Turn(session, outcome, keys, _listener(session, told), steering, told=told, prompt=prompt)


def _listener(session: Session, told: Told | None) -> VideoDecoder:
    """The decoder of the session, or a fork that was told what its next block is the first to hear."""
    moment = session._moment
    if told is None or moment.told is None or (told is moment.told and not told.since < moment.block < told.until):
        return moment.decoder
    assert session._home.hear is not None
    heard, again = session._home.hear(told, moment.block), told is moment.told
    return _with_room(session, lambda: _told(session._moment.decoder, heard, again=again))


def _told(decoder: VideoDecoder, heard: Tensor, *, again: bool) -> VideoDecoder:
    """A fork of the decoder that hears this, a further step of what it heard or not; PoolFull leaves nothing behind."""
    fork = decoder.fork()
    try:
        fork.tell(heard, again=again)
    except PoolFull:
        fork.close()
        raise
    return fork


def _with_room(session: Session, work: Callable[[], Answer]) -> Answer:
    """What work returns, which begins anew whenever a memory is forgotten for the room it wants; PoolFull without."""
    while True:
        try:
            return work()
        except PoolFull:
            if not session._home.histories.make_room():
                raise


def _controls(session: Session, keys: Keys) -> Tensor:
    """What steers its next block under these keys, [1, frames_per_block, A]."""
    decoder, controls = session._moment.decoder, session._home.controls
    before = decoder.steering
    vector: Sequence[float] | None = None if before is None else before.tolist()
    vectors = [vector := controls.next(keys, vector) for _ in range(decoder.plan.frames_per_block)]
    return torch.tensor([vectors], device=decoder.pool.device)


def _decode(turn: _Turn) -> None:
    assert turn.block is not None
    moment = turn.session._moment
    if not torch.isfinite(turn.block.latents).all():
        otherwise = "step again with other keys" if turn.session._home.controls.keys else "tell it another prompt"
        raise BrokenBlock(
            f"block {moment.block} came out with numbers that are none; the session is back at its last block: "
            f"{otherwise}, or rewind further; where all blocks come out so, load other weights"
        )
    turn.decoder.foresee(turn.block)
    pixels, turn.codec_state = turn.session._home.codec.decode(turn.block.latents[0], moment.codec_state)
    turn.frames = pixels.cpu().numpy()


def _commit(turns: list[_Turn]) -> Iterator[_Turn]:
    """Make the blocks part of the past, together if there is memory for all; gives the turns that it was done for."""
    for turn in turns:
        with _into(turn.outcome):
            turn.before = _change_over(turn)
    turns, failed = _left(turns), Future[Any]()
    with _into(failed):
        _write(turns)
    if not failed.done():
        yield from turns
        return
    for turn in turns:
        # Some may have been written before it failed, and nobody is to be written twice.
        assert turn.before is not None
        turn.session._take(turn.before)
        turn.decoder = _listener(turn.session, turn.told)
    for turn in turns:
        if len(turns) > 1:
            yield from _commit([turn])
        else:
            turn.outcome.set_exception(failed.exception())


def _change_over(turn: _Turn) -> Moment:
    """Have the session go on with the decoder of its turn; returns the moment to go back to."""
    moment = turn.session._moment
    if turn.decoder is moment.decoder:
        return moment.fork()
    turn.session._moment = replace(moment, decoder=turn.decoder)
    return moment


def _write(turns: Sequence[_Turn]) -> None:
    if turns:
        blocks = [turn.block for turn in turns if turn.block is not None]
        _with_room(turns[0].session, lambda: write_together([turn.session._moment.decoder for turn in turns], blocks))


def _adopt(turn: _Turn, decoded: float) -> Chunk:
    """Let the session go on from its block; if that fails, as when it cannot be logged, it goes on from before it."""
    assert turn.block is not None
    assert turn.frames is not None
    assert turn.before is not None
    session, decoder = turn.session, turn.session._moment.decoder
    with ExitStack() as undo:
        undo.callback(session._take, turn.before)
        step = Step(
            block=decoder.blocks,
            keys=turn.keys,
            latents=hashlib.sha256(turn.block.latents.cpu().numpy().tobytes()).hexdigest(),
            frames=hashlib.sha256(turn.frames.tobytes()).hexdigest(),
            prompt=turn.prompt[0] if turn.prompt else None,
            over=turn.prompt[1] if turn.prompt else 1,
        )
        after = Moment(decoder, turn.codec_state, Trail(step, turn.before.trail), turn.frames[-1].copy(), turn.told)
        session._write(step)
        undo.pop_all()
    decoder.blocks += 1
    session._adopt(after, turn.before)
    if session.coming is turn.prompt:
        session.coming = None
    turn.seconds["commit"] = perf_counter() - decoded
    session._show(step, turn.frames)
    return Chunk(frames=turn.frames, block=step.block, keys=turn.keys, seconds=turn.seconds, seen=session.seen)
