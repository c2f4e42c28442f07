"""Sessions of a world that begins from pictures: every block hears of its own, whatever becomes of the session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldsim.errors import ConfigError, LogError
from worldsim.runtime.batching import step_together
from worldsim.runtime.journal import read_log
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import read_snapshot
from worldsim.testing.fakes import pictured_world, tiny_world, told_world

WORLD = pictured_world()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *WORLD.size, 3), np.uint8)


def frames(session: Session, blocks: int) -> np.ndarray:
    return np.concatenate([session.step(["KeyA"]).frames for _ in range(blocks)])


def test_it_begins_from_a_picture_which_is_what_it_looks_like_before_its_first_block() -> None:
    assert WORLD.needs_picture
    assert not any((WORLD.is_told, told_world().needs_picture, tiny_world().needs_picture))
    with WORLD.open(seed=3, frames=picture(1)) as session:
        assert np.array_equal(session.look(), picture(1)[0])
        assert session.prompt is None
        assert session._moment.decoder.context.frames == ()
        assert frames(session, 2).shape == (4, *WORLD.size, 3)


def test_another_picture_shows_another_world_and_the_same_one_the_same() -> None:
    made = []
    for seed in (1, 1, 2):
        with WORLD.open(seed=3, frames=picture(seed)) as session:
            made.append(frames(session, 2))
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


@pytest.mark.parametrize("keep", ["pages", "latents", "log"])
def test_it_goes_on_bit_for_bit_after_a_fork_a_rewind_a_save_and_from_its_log(tmp_path: Path, keep: Any) -> None:
    session = WORLD.open(seed=3, frames=picture(1), log=tmp_path / "log")
    frames(session, 3)
    twin, mark = session.fork(), session.mark()
    session.save(tmp_path / "saved", keep=keep)
    following = frames(session, 2)
    assert np.array_equal(frames(twin, 2), following)
    session.rewind(mark)
    assert np.array_equal(frames(session, 2), following)
    session.forget()
    session.rewind(2)
    assert np.array_equal(frames(session, 2), following)
    with WORLD.restore(read_snapshot(tmp_path / "saved")) as restored:
        made = frames(restored, 2)
        assert np.array_equal(made, following) or (keep == "latents" and np.abs(made.astype(int) - following).max() < 9)
    session.close()
    twin.close()
    other = pictured_world()
    other.replay(read_log(tmp_path / "log"))
    with other.go_on(tmp_path / "log") as gone_on:
        assert np.array_equal(gone_on.look(), following[-1])


def test_a_mark_that_left_the_pool_is_gone_back_to_with_its_picture() -> None:
    world = pictured_world(pages=22)
    with world.open(seed=3, frames=picture(1)) as session, world.open(seed=4, frames=picture(2)) as other:
        frames(session, 3)
        mark = session.mark()
        following = frames(session, 2)
        frames(other, 6)
        mark.leave_pool()
        session.rewind(mark)
        assert np.array_equal(frames(session, 2), following)


def test_sessions_with_pictures_of_their_own_share_calls() -> None:
    alone = []
    for seed in (1, 2):
        with WORLD.open(seed=3, frames=picture(seed)) as session:
            alone.append(frames(session, 2).astype(int))
    shared = [WORLD.open(seed=3, frames=picture(seed)) for seed in (1, 2)]
    for _ in range(2):
        made = [outcome.result().frames for outcome in step_together(shared, [["KeyA"], ["KeyA"]])]
    for session, own, together in zip(shared, alone, made, strict=True):
        assert np.abs(own[-2:] - together).max() <= 1
        session.close()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "got nothing"),
        ({"start": 0}, "got nothing"),
        ({"frames": np.repeat(picture(1), 2, axis=0)}, "got 2 frames and what was held at them"),
        ({"frames": picture(1), "keys": [["KeyA"]]}, "got 1 frames and what was held at them"),
        ({"frames": picture(1), "prompt": "a wood"}, "pictured is steered by keys alone"),
    ],
)
def test_what_is_not_one_picture_is_refused_and_holds_nothing(given: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        WORLD.open(**given)
    assert WORLD.pool.used == 0


def test_a_log_that_has_lost_its_picture_is_refused() -> None:
    with WORLD.open(seed=3, frames=picture(1)) as session:
        frames(session, 1)
        log = session.log
    with pytest.raises(LogError, match="pictured tells of no picture that it began from"):
        WORLD.replay(replace(log, opening=replace(log.opening, given=None, start=0)))


def test_a_log_of_another_size_is_refused() -> None:
    with WORLD.open(seed=3, frames=picture(1)) as session:
        log = session.log
    assert log.opening.plan["size"] == [*WORLD.size]
    wrong = replace(log, opening=replace(log.opening, plan={**log.opening.plan, "size": [8, 8]}))
    with pytest.raises(LogError, match=r"size \[8, 8\], here it is \[6, 10\]"):
        WORLD.replay(wrong)
