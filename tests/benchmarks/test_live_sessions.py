"""The checks of lives and kills pass on sessions as they are, and find one that lies about its past."""

from __future__ import annotations

import pytest
import torch

from benchmarks import live_sessions
from benchmarks.live_sessions import kills, script, scripts
from worldsim.runtime.session import Session
from worldsim.testing.fakes import tiny_world


@pytest.mark.timeout(300)  # another process has to begin, which takes long where other work has the cores
def test_random_lives_come_out_the_same_every_way() -> None:
    assert scripts(6, seed=40) == {"scripts": 6, "equal": 6}


@pytest.mark.timeout(300)
def test_killed_sessions_go_on_from_the_disk() -> None:
    assert kills(4, seed=7) == {"kills": 4, "restored": 4, "most_blocks_lost": 0}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_rewind_that_goes_a_block_too_far_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rewind = Session.rewind

    def too_far(self: Session, to: object) -> None:
        rewind(self, min(to + 1, self.block) if isinstance(to, int) else to)

    monkeypatch.setattr(Session, "rewind", too_far)
    assert not all(script(tiny_world(), live_sessions.continued, seed) for seed in range(4))


@pytest.mark.usefixtures("one_thread")
def test_a_fork_that_forgets_what_was_held_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Session.step
    monkeypatch.setattr(Session, "step", lambda self, keys=(): step(self, () if self._journal is None else keys))
    assert not all(script(tiny_world(), live_sessions.continued, seed) for seed in range(4))


def test_a_log_that_lacks_blocks_is_counted_as_lost(tmp_path) -> None:
    world = tiny_world()
    with world.open(seed=1, log=tmp_path / "life.log") as session:
        for _ in range(3):
            session.step()
    left = live_sessions._left(tmp_path, {"open": 0, "step": 5, "save": 0})
    assert left == {"lost": 2, "restored": True}


def test_a_saved_session_that_is_torn_is_not_counted_as_restored(tmp_path) -> None:
    world = tiny_world()
    with world.open(seed=1, log=tmp_path / "life.log") as session:
        session.step()
        session.save(tmp_path / "life.save")
    saved = tmp_path / "life.save"
    saved.write_bytes(saved.read_bytes()[:-20])
    left = live_sessions._left(tmp_path, {"open": 0, "step": 1, "save": 1})
    assert left == {"lost": 0, "restored": False}
