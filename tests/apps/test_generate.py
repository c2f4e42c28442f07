"""A film holds exactly what the session made under the scripted keys, however it ends."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from tests.signalling import send
from worldsim.cache.policy import Full
from worldsim.decoding.noise_plan import NoisePlan
from worldsim.errors import ConfigError, PoolFull, SpillError, VideoError
from worldsim.testing.fakes import tiny_world
from worldsim_apps.actions import Actions
from worldsim_apps.generate import Film, film, film_file, length_of, settings_of

SIZE = (9, 12)


class Played:
    """Stands in for a session: remembers the keys, and frame n is n times 5 bright."""

    def __init__(self, frames_per_block: int) -> None:
        self.keys: list[frozenset[str]] = []
        self.forgotten = 0
        self._frames_per_block = frames_per_block

    def step(self, keys: frozenset[str]) -> Any:
        first = len(self.keys) * self._frames_per_block
        self.keys.append(keys)
        bright = np.arange(first, first + self._frames_per_block, dtype=np.uint8) * 5
        return SimpleNamespace(frames=np.broadcast_to(bright[:, None, None, None], (len(bright), *SIZE, 3)))

    def forget(self) -> None:
        self.forgotten += 1


def play(path: Path, *, frames_per_block: int = 1, frames: int = 11, on_frames: Any = lambda _: None) -> Any:
    world: Any = SimpleNamespace(size=SIZE, fps=8, frames_per_block=frames_per_block)
    session: Any = Played(frames_per_block)
    actions = Actions(blocks=(1, 3), held=(frozenset({"KeyW"}), frozenset()))
    with film_file(world, path) as video:
        return film(world, session, actions, video, frames=frames, on_frames=on_frames), session


def brightness(path: Path) -> list[int]:
    with av.open(path) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(file.streams.video[0])]
    assert {picture.shape for picture in shown} == {(576, 768, 3)}
    return [round(float(picture.mean()) / 5) for picture in shown]


@pytest.mark.parametrize("frames_per_block", [1, 2, 4])
def test_a_film_has_the_frames_asked_for_even_within_a_block(tmp_path, frames_per_block):
    told: list[int] = []
    made, session = play(tmp_path / "a.mp4", frames_per_block=frames_per_block, on_frames=told.append)
    assert brightness(tmp_path / "a.mp4") == [*range(11)]
    assert len(session.keys) == -(-11 // frames_per_block)
    assert sum(told) == made.frames == 11
    assert not made.stopped


def test_every_block_gets_the_keys_that_its_number_has_in_the_script(tmp_path):
    _, session = play(tmp_path / "a.mp4", frames=5)
    assert session.keys == [set(), {"KeyW"}, {"KeyW"}, set(), set()]


def test_a_film_remembers_no_block_that_nobody_goes_back_to(tmp_path):
    _, session = play(tmp_path / "a.mp4", frames=5)
    assert session.forgotten == 5


def test_a_film_is_enlarged_by_a_whole_factor_up_to_576_pixels_high(tmp_path):
    made, _ = play(tmp_path / "a.mp4", frames=1)
    assert made.size == (576, 768)


def test_ctrl_c_ends_the_film_after_the_block_it_is_in(tmp_path):
    def press(_: int) -> None:
        send(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    made, session = play(tmp_path / "a.mp4", frames_per_block=2, on_frames=press)
    assert made.stopped
    assert made.frames == 2
    assert len(session.keys) == 1
    assert brightness(tmp_path / "a.mp4") == [0, 1]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_at_once_and_the_part_written_plays(tmp_path):
    def press(_: int) -> None:
        send(signal.SIGINT)
        send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "a.mp4", frames_per_block=2, on_frames=press)
    assert brightness(tmp_path / "a.mp4") == [0, 1]


def test_ctrl_c_means_what_it_did_after_an_error_too(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(VideoError):
        play(tmp_path / "a.mp4")

    def break_down(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(tmp_path / "b.mp4", on_frames=break_down)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_film_that_is_stopped_takes_no_place_of_another(tmp_path):
    def press(_: int) -> None:
        send(signal.SIGINT)

    play(tmp_path / "a.mp4", frames=3)
    made, _ = play(tmp_path / "a.mp4", on_frames=press)
    assert (made.path, made.frames, made.stopped) == (tmp_path / "a.unfinished.mp4", 1, True)
    assert (brightness(made.path), brightness(tmp_path / "a.mp4")) == ([0], [0, 1, 2])
    made, _ = play(tmp_path / "a.mp4", frames=4)
    assert (made.path, brightness(made.path)) == (tmp_path / "a.mp4", [0, 1, 2, 3])


def test_who_loses_what_was_moved_to_disk_is_told_how_to_make_the_walk_again(tmp_path, monkeypatch):
    def lose(self: Played, keys: frozenset[str]) -> Any:
        raise SpillError("keys and values were read back changed")

    monkeypatch.setattr(Played, "step", lose)
    with pytest.raises(SpillError) as caught:
        play(tmp_path / "a.mp4")
    assert caught.value.__notes__ == ["a walk by script is made again by the same command"]


@pytest.mark.parametrize("frames_per_block", [1, 2])
def test_a_film_is_as_long_as_there_is_memory_for_all_that_its_policy_keeps(tmp_path, frames_per_block):
    world = tiny_world(policy=Full(), pages=16, frames_per_block=frames_per_block)
    room = 11 // frames_per_block * frames_per_block
    assert length_of(world, room / world.fps, start=1, begun=None) == room
    with film_file(world, tmp_path / "a.mp4") as video, world.open(start=1) as session:
        assert film(world, session, Actions(), video, frames=room, on_frames=lambda _: None).frames == room
        with pytest.raises(PoolFull):
            session.step()
    told = rf"has memory for {room} frames, \d s, and {room + 1} are asked for; ask for --seconds \d or less, or for a"
    with pytest.raises(ConfigError, match=told):
        length_of(world, (room + 1) / world.fps, start=1, begun=None)
    begun = np.zeros((1, *world.size, 3), np.uint8)
    assert length_of(world, (room + 4) / world.fps, start=None, begun=begun) == room + 4
    endless = tiny_world(frames_per_block=frames_per_block)
    assert length_of(endless, 10**9 / endless.fps, start=None, begun=None) == 10**9
    assert length_of(endless, 1e-9, start=None, begun=None) == 1


@pytest.mark.parametrize("frames_per_block", [1, 2])
def test_a_film_that_outlasts_the_noise_of_its_video_is_refused_before_anything_is_made(frames_per_block):
    world = tiny_world(frames_per_block=frames_per_block)
    world.plan = replace(world.plan, noise=NoisePlan(published=6))
    assert length_of(world, 6 / world.fps, start=None, begun=None) == 6
    told = r"6 latent frames, which are 6 frames, and 7 are asked for; .* as in --noise published:frames="
    with pytest.raises(ConfigError, match=told + str(8 if frames_per_block == 2 else 7)):
        length_of(world, 7 / world.fps, start=None, begun=None)


@pytest.mark.parametrize(("begun", "most", "asked"), [(None, 21, 9), (np.zeros((9, 6, 10, 3), np.uint8), 24, 9)])
def test_a_film_from_nothing_lacks_the_frames_that_its_first_latent_frame_does_not_show(begun, most, asked):
    plan = replace(tiny_world(frames_per_block=3).plan, noise=NoisePlan(published=6), from_nothing=True)
    starts: list[Any] = []
    world: Any = SimpleNamespace(
        plan=plan, fps=16, frames_per_block=12, pool=SimpleNamespace(pages=99), origin=SimpleNamespace(starts=starts)
    )
    assert length_of(world, most / 16, start=None, begun=begun) == most
    told = rf"6 latent frames, which are {most} frames, and {most + 1} are asked for; .* published:frames={asked}"
    with pytest.raises(ConfigError, match=told):
        length_of(world, (most + 1) / 16, start=None, begun=begun)


def test_a_starting_place_that_is_none_is_refused_before_anything_is_made():
    with pytest.raises(ConfigError, match="there is no starting place 3; choose from 0 to 2"):
        length_of(tiny_world(), 1.0, start=3, begun=None)


def test_a_film_of_one_frame_is_told_as_such():
    made = Film(path=Path("a.mp4"), frames=1, fps=8, size=(576, 768), took_s=1.0, stopped=False)
    assert str(made) == "a.mp4: 1 frame, 0.1 s, made at 0.12 times the speed of the world"


def test_a_film_tells_world_time_and_its_ratio_to_the_time_it_took():
    made = Film(path=Path("a.mp4"), frames=24, fps=8, size=(576, 768), took_s=1.5, stopped=False)
    assert (made.seconds, made.speed) == (3.0, 2.0)
    assert json.loads(json.dumps(made.to_dict())) == {
        "path": "a.mp4",
        "frames": 24,
        "fps": 8,
        "size": [576, 768],
        "took_s": 1.5,
        "stopped": False,
        "seconds": 3.0,
        "speed": 2.0,
    }


def test_the_settings_of_a_world_are_those_it_was_loaded_with():
    world = tiny_world(policy=Full())
    world.plan = replace(world.plan, frames_per_block=2, clean_pass=False)
    steps = len(world.plan.sigmas)
    assert settings_of(world) == {"policy": "full", "steps": steps, "frames_per_block": 2, "clean_pass": False}
