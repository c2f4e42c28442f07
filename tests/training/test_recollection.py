"""What training recalls of recorded frames is what a decoder would have recalled when it was to make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldsim.codec.patches import PatchCodec
from worldsim.controls import Action, Controls, Keys
from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.training.data import Episodes, Recording, Series, record
from worldsim.training.recollection import AHEAD, Recollections, find_restless, places_of

CODEC = PatchCodec(side=2)
ROWS, COLUMNS = 4, 3


class Strip:
    """A land of tiles of one grey each, over which a view of 3 x 3 goes left and right; a row below shows no land."""

    controls = Controls(
        actions=(Action(name="left", keys=("KeyA",)), Action(name="right", keys=("KeyD",))), exclusive=True
    )
    fps = 4
    size = (2 * ROWS, 2 * COLUMNS)
    over = False
    hour = None
    event = ""

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._land = np.random.default_rng(seed).integers(0, 8, (ROWS - 1, 60)).astype(np.uint8) * 32
        self._at = 30
        return self._show()

    def close(self) -> None: ...

    def step(self, keys: Keys) -> NDArray[np.uint8]:
        by = ("KeyD" in keys) - ("KeyA" in keys)
        self._at += by if abs(self._at + by - 30) < 7 else 0
        return self._show()

    def _show(self) -> NDArray[np.uint8]:
        shown = np.concatenate((self._land[:, self._at : self._at + COLUMNS], np.full((1, COLUMNS), 255, np.uint8)))
        shown[1, 1] = 255
        return np.repeat(np.repeat(shown, 2, 0), 2, 1)[..., None].repeat(3, -1)


class Beetle(Strip):
    """The same, of seven greys, over which something of the eighth hops along: to the next place in two steps of three.

    It hops in the top row, from the left of the view to its right and on.
    """

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._hops = 0
        super().reset(seed)
        self._land %= 7 * 32
        return self._show()

    def step(self, keys: Keys) -> NDArray[np.uint8]:
        self._hops += 1
        return super().step(keys)

    def _show(self) -> NDArray[np.uint8]:
        frame = super()._show()
        place = 2 * ((self._hops * 2 // 3) % COLUMNS)
        frame[:2, place : place + 2] = 7 * 32
        return frame


class Wanderer:
    """Goes one way for a while, then the other."""

    def __init__(self, simulator: Strip, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._keys: Keys = frozenset(["KeyD"])

    def choose(self) -> Keys:
        if self._rng.random() < 0.2:
            self._keys = frozenset([str(self._rng.choice(["KeyA", "KeyD"]))])
        return self._keys if self._rng.random() < 0.8 else frozenset()


def backbone(scroll: Scroll | None) -> SmallBackbone:
    config = SmallConfig(channels=12, height=ROWS, width=COLUMNS, controls=2, dim=16, layers=1, heads=2, palette=9)
    made = SmallBackbone(SmallConfig(**(config.to_dict() | {"scroll": scroll})), torch.Generator().manual_seed(1))
    assert made.palette is not None
    greys = torch.tensor([*(level * 32 for level in range(8)), 255], dtype=torch.uint8)
    frames = greys[:, None, None, None].expand(9, 2 * ROWS, 2 * COLUMNS, 3)
    made.palette.fill(made.patchify(CODEC.encode(frames, None)[0][None])[0, :, 0])
    return made


SCROLL = Scroll(rows=3, body=(1, 1), moves=((0, 0, -1), (1, 0, 1)))


@pytest.fixture
def episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 120)
    record(Recording(world="strip", simulator=Strip, explorer=Wanderer, longest=40), tmp_path, Series(), frames=120)
    return Episodes(tmp_path, world="strip", held_out=False, device=torch.device("cpu"))


def test_training_recalls_what_decoding_does(episodes: Episodes) -> None:
    made = backbone(SCROLL)
    found = Recollections(episodes, CODEC, made).of(torch.arange(120)[None])[0]
    assert found.shape == (AHEAD, 120, ROWS, COLUMNS)
    latents = CODEC.encode(episodes.frames, None)[0][None]
    controls = episodes.controls[None]
    known = 0
    for begin, end in episodes.episodes:
        first = latents[:, begin : begin + 1]
        memory = made.remember({}, first, first, controls[:, begin : begin + 1])
        for now in range(begin + 1, end):
            wanted = made.recall(memory, controls[:, now : min(now + AHEAD, end)])[0]
            for ahead, recalled in enumerate(wanted):
                assert torch.equal(found[ahead, now + ahead], recalled), (now, ahead)
                known += int((recalled != UNKNOWN).sum())
            one = slice(now, now + 1)
            memory = made.remember(memory, latents[:, one], latents[:, now - 1 : now], controls[:, one])
    assert known > 300


def test_what_comes_back_into_view_is_recalled(episodes: Episodes) -> None:
    """Of the land that a frame shows, what had been in view before is recalled as it is."""
    made = backbone(SCROLL)
    recalled = Recollections(episodes, CODEC, made).of(torch.arange(120)[None])[0, 0, :, :3]
    assert made.palette is not None
    shown = made.palette.nearest(made.patchify(CODEC.encode(episodes.frames, None)[0][None]))[0].unflatten(1, (4, 3))
    moved = torch.tensor([False, *episodes.frames.diff(dim=0).ne(0).flatten(1).any(1).tolist()])
    judged = (recalled != UNKNOWN) & moved[:, None, None]
    assert int(judged.sum()) > 60
    assert torch.equal(recalled[judged], shown[:, :3][judged])


def test_nothing_is_recalled_below_the_land_or_before_the_first_frame(episodes: Episodes) -> None:
    found = Recollections(episodes, CODEC, backbone(SCROLL)).of(torch.arange(120)[None])[0]
    assert bool((found[:, :, 3:] == UNKNOWN).all())
    assert bool((found[:, [begin for begin, _ in episodes.episodes]] == UNKNOWN).all())


def test_who_has_no_scroll_recalls_nothing(episodes: Episodes) -> None:
    with pytest.raises(ConfigError, match="without a scroll"):
        Recollections(episodes, CODEC, backbone(None))


def test_a_place_is_where_the_moves_that_were_made_have_led(episodes: Episodes) -> None:
    places = places_of(episodes, CODEC, backbone(SCROLL))
    assert places.shape == (120, 2)
    for begin, end in episodes.episodes:
        assert places[begin].tolist() == [0, 0]
        assert set(places[begin:end].diff(dim=0)[:, 1].tolist()) == {-1, 0, 1}
        pictures = {
            tuple(place): picture
            for place, picture in zip(places[begin:end].tolist(), episodes.frames[begin:end], strict=True)
        }
        for place, picture in zip(places[begin:end].tolist(), episodes.frames[begin:end], strict=True):
            assert torch.equal(picture, pictures[tuple(place)])
    with pytest.raises(ConfigError, match="without a scroll"):
        places_of(episodes, CODEC, backbone(None))


def test_a_patch_that_is_often_gone_from_its_place_is_restless_and_land_that_scrolls_by_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a view of so few places that hops over each of them often."""
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 400)
    monkeypatch.setattr("worldsim.training.recollection.OFTEN", 0.4)
    record(Recording(world="strip", simulator=Beetle, explorer=Wanderer, longest=40), tmp_path, Series(), frames=400)
    episodes = Episodes(tmp_path, world="strip", held_out=False, device=torch.device("cpu"))
    assert find_restless(episodes, CODEC, backbone(SCROLL)).tolist() == [False] * 7 + [True, False]


def test_a_patch_that_turns_into_a_shade_of_itself_rests_and_so_does_one_hardly_ever_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 400)
    record(Recording(world="strip", simulator=Beetle, explorer=Wanderer, longest=40), tmp_path, Series(), frames=400)
    episodes = Episodes(tmp_path, world="strip", held_out=False, device=torch.device("cpu"))
    alike = backbone(SCROLL)
    assert alike.palette is not None
    alike.palette.kin.fill_(1)
    assert not find_restless(episodes, CODEC, alike).any()
    monkeypatch.setattr("worldsim.training.recollection.SEEN", 10_000)
    assert not find_restless(episodes, CODEC, backbone(SCROLL)).any()


def test_where_one_episode_follows_another_nothing_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 400)
    record(Recording(world="strip", simulator=Strip, explorer=Wanderer, longest=4), tmp_path, Series(), frames=400)
    episodes = Episodes(tmp_path, world="strip", held_out=False, device=torch.device("cpu"))
    assert not find_restless(episodes, CODEC, backbone(SCROLL)).any()
