"""Windows that begin with what a policy brings back: which frames they hold, and in which order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.test_recollection import CODEC, SCROLL, Strip, Wanderer, backbone
from worldsim.cache.policies import parse_policy
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.likeness import Looks
from worldsim.errors import ConfigError, DataError
from worldsim.training.data import Episodes, Recording, Series, record
from worldsim.training.recollection import places_of
from worldsim.training.retrieving import RetrievedWindows
from worldsim.training.trainer import Windows

POLICY = Retrieval(recent=5, top=2, run=3, bank=4)
LEARNED = 4
LONG = 1 + POLICY.top * POLICY.run + POLICY.recent + LEARNED


@pytest.fixture
def episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    """Of 40 frames each, which are told apart by their numbers, as the last of their controls."""
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 120)
    record(Recording(world="strip", simulator=Strip, explorer=Wanderer, longest=40), tmp_path, Series(), frames=120)
    found = Episodes(tmp_path, world="strip", held_out=False, device=torch.device("cpu"))
    found.controls = torch.cat((found.controls, torch.arange(120.0)[:, None]), dim=1)
    return found


def numbers(windows: Windows, seed: int, frames: int = LONG) -> list[list[int]]:
    """Of the frames of eight windows."""
    play = windows.sample(np.random.default_rng(seed), windows=8, frames=frames)
    assert play.latents.shape[:2] == play.controls.shape[:2] == (8, frames)
    return play.controls[:, :, -1].long().tolist()


def alike(episodes: Episodes, begin: int, now: int) -> dict[int, float]:
    """How alike frames of an episode look to the one before `now`."""
    latents, _ = CODEC.encode(episodes.frames[begin:now], None)
    return Looks({}).of(dict(enumerate(latents))).like_newest()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ["blockvid", "mismatched", "random"])
def test_a_window_is_what_the_policy_lets_a_block_see_and_what_follows(
    episodes: Episodes, name: str, seed: int
) -> None:
    policy = parse_policy(f"{name}:recent=5,top=2,run=3,bank=4,tau=1")
    assert isinstance(policy, Retrieval)
    for window in numbers(RetrievedWindows(episodes=episodes, codec=CODEC, policy=policy), seed):
        now, begin = window[-LEARNED], window[-LEARNED] // 40 * 40
        assert window[-LEARNED:] == [*range(now, now + LEARNED)]
        held = policy.keep(range(now - begin), now - begin)
        seen = policy.see(held, now - begin, alike(episodes, begin, now).__getitem__)
        assert window[1:-LEARNED] == [begin + one.frame for one in seen]
        assert window[0] == max(begin, window[1] - 1)


@pytest.mark.parametrize("seed", [4])
def test_frames_and_what_steered_them_are_those_of_the_numbers(episodes: Episodes, seed: int) -> None:
    play = RetrievedWindows(episodes=episodes, codec=CODEC, policy=POLICY).sample(
        np.random.default_rng(seed), windows=3, frames=LONG
    )
    for latents, controls in zip(play.latents, play.controls, strict=True):
        assert torch.equal(latents, CODEC.encode(episodes.frames[controls[:, -1].long()], None)[0])
    assert play.recalled is None


@pytest.mark.parametrize("seed", [5])
def test_with_places_half_of_the_windows_begin_with_the_nearest_of_them(episodes: Episodes, seed: int) -> None:
    places = places_of(episodes, CODEC, backbone(SCROLL))
    near = 0
    windows = RetrievedWindows(episodes=episodes, codec=CODEC, policy=POLICY, places=places)
    for each in range(8):
        for window in numbers(windows, 10 * seed + each):
            now, begin = window[-LEARNED], window[-LEARNED] // 40 * 40
            away = (places[begin:now] - places[now]).abs().sum(1)
            held = POLICY.keep(range(now - begin), now - begin)
            wanted = POLICY.see(held, now - begin, (-away).tolist().__getitem__)
            looked = POLICY.see(held, now - begin, alike(episodes, begin, now).__getitem__)
            seen = [number - begin for number in window[1:-LEARNED]]
            assert seen in ([one.frame for one in wanted], [one.frame for one in looked])
            near += seen == [one.frame for one in wanted] != [one.frame for one in looked]
    assert 8 < near < 48


@pytest.mark.parametrize("seed", [6])
def test_what_is_drawn_depends_on_the_seed_alone(episodes: Episodes, seed: int) -> None:
    windows = RetrievedWindows(episodes=episodes, codec=CODEC, policy=POLICY)
    assert numbers(windows, seed) == numbers(windows, seed) != numbers(windows, seed + 1)


def test_windows_that_hold_nothing_to_be_learned_are_refused(episodes: Episodes) -> None:
    windows = RetrievedWindows(episodes=episodes, codec=CODEC, policy=POLICY)
    assert windows.past == 11
    assert numbers(windows, 0, frames=13)
    with pytest.raises(ConfigError, match=r"windows of 12 frames hold nothing behind 1 \+ 11 of the past"):
        numbers(windows, 0, frames=12)
    with pytest.raises(DataError, match=r"no train episode in .* has 41 frames"):
        numbers(windows, 0, frames=42)


@pytest.mark.parametrize(
    "settings", [{"like": 0.1}, {"pick": "first"}, {"within": 64}, {"top": 3, "bank": 2}, {"tau": 0.98}]
)
def test_a_policy_that_may_bring_back_less_is_refused(episodes: Episodes, settings: dict[str, Any]) -> None:
    policy = Retrieval(**settings)
    told = re.escape(
        f"windows hold {policy.top} whole runs each, and {policy} may bring back fewer of them, or less of"
    )
    with pytest.raises(ConfigError, match=told):
        RetrievedWindows(episodes=episodes, codec=CODEC, policy=policy)
