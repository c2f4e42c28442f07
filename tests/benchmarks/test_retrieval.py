"""What benchmarks.retrieval calls the place, and who finds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import retrieval
from benchmarks.retrieval import Told, coming, judge, likenesses, shown, shows, tell
from benchmarks.tiles import COLUMNS, ROWS
from worldsim.cache.policy import Window
from worldsim.testing.fakes import tiny_world


def there_and_back(steps: int) -> Any:
    """An episode that walks to the right and back again."""
    columns = [*range(steps), *range(steps, -1, -1)]
    return SimpleNamespace(
        frames=np.zeros((len(columns), 6, 10, 3), np.uint8),
        play=SimpleNamespace(places=np.array([(0, column) for column in columns])),
    )


def told(places: np.ndarray, *, latents: Tensor) -> Told:
    nothing = torch.zeros(1, len(places), 4)
    return Told(latents=latents, queries=nothing, keys=nothing, coming=nothing[:, 1:])


def test_what_is_coming_is_the_ground_of_the_step_that_no_recent_frame_shows() -> None:
    episode = there_and_back(40)
    assert len(shown((3, 4))) == ROWS * COLUMNS
    at = 20
    assert coming(episode, at) == {(row, 21 + COLUMNS // 2) for row in range(-(ROWS // 2), ROWS // 2 + 1)}
    assert coming(episode, 42) == frozenset(), "just turned: all of it was in view"
    later = coming(episode, 60)
    assert later == {(row, 19 - COLUMNS // 2) for row in range(-(ROWS // 2), ROWS // 2 + 1)}
    assert shows(episode, range(16, 20), later)
    assert not shows(episode, range(40, 44), later)


def test_a_likeness_that_knows_the_place_is_right_and_one_that_hides_it_is_not() -> None:
    episode = there_and_back(40)
    columns = episode.play.places[:, 1]
    spot = torch.exp(-((torch.arange(41)[None] - torch.tensor(columns)[:, None]) ** 2) / 8.0)
    latents = spot[:, :, None, None].expand(-1, -1, 3, 3)
    found = judge(episode, told(episode.play.places, latents=latents))
    assert found["the true distance"].judged > 20
    best = found["the true distance"].right / found["the true distance"].judged
    for name in ("latents, whole", "latents, means of 3 x 3 parts"):
        assert found[name].right / found[name].judged == pytest.approx(best, abs=0.1)
    assert best > 0.6
    assert found["mismatched"].right / found["mismatched"].judged < 0.3
    assert found["random"].judged == found["mismatched"].judged


def test_queries_ask_and_keys_answer() -> None:
    queries, keys = torch.eye(4)[None, [0, 1, 2, 3]], torch.eye(4)[None, [3, 2, 1, 0]]
    told = Told(latents=torch.randn(4, 2, 3, 3), queries=queries, keys=keys, coming=queries[:, 1:])
    asked = likenesses(told, np.zeros((4, 2)))
    alike = asked["queries and keys of layer 0"](1)
    assert [alike(frame) for frame in range(4)] == [0, 0, 1, 0]
    alike = asked["queries of what comes, keys of layer 0"](1)
    assert [alike(frame) for frame in range(4)] == [0, 1, 0, 0]


def test_every_frame_of_an_episode_is_committed_and_tells_of_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(policy=Window(frames=3))
    latents = torch.randn(1, 7, *world.backbone.geometry.frame_shape, generator=torch.Generator().manual_seed(1))
    codec = SimpleNamespace(open=lambda: None, encode=lambda frames, state: (latents[0], None))
    monkeypatch.setattr(retrieval, "CRAFTER", SimpleNamespace(codec=codec))
    episode: Any = SimpleNamespace(frames=np.zeros((7, 6, 10, 3), np.uint8), keys=[frozenset[str]()] * 7)
    found = tell(world, episode)
    shape = world.pool.shape
    assert found.queries.shape == found.keys.shape == (shape.layers, 7, shape.heads * shape.head_dim)
    assert not torch.equal(found.keys[:, 0], found.keys[:, 1])
    assert found.coming.shape == found.queries[:, 1:].shape
    assert torch.equal(found.latents, latents[0])
    assert world.pool.used == 0


def test_what_comes_asks_under_the_keys_that_steer_it_and_before_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(policy=Window(frames=3))
    made = torch.randn(2, 1, 5, *world.backbone.geometry.frame_shape, generator=torch.Generator().manual_seed(2))
    found = []
    for latents, last in (
        (made[0], "KeyA"),
        (torch.cat((made[0][:, :4], made[1][:, 4:]), dim=1), "KeyA"),
        (made[0], "KeyD"),
    ):
        codec = SimpleNamespace(open=lambda: None, encode=lambda frames, state, latents=latents: (latents[0], None))
        monkeypatch.setattr(retrieval, "CRAFTER", SimpleNamespace(codec=codec))
        keys = [*[frozenset[str]()] * 4, frozenset({last})]
        found.append(tell(world, SimpleNamespace(frames=np.zeros((5, 6, 10, 3), np.uint8), keys=keys)))  # type: ignore[arg-type]
    one, otherwise, elsewhere = found
    assert torch.equal(one.coming, otherwise.coming)
    assert not torch.equal(one.queries, otherwise.queries)
    assert torch.equal(one.coming[:, :-1], elsewhere.coming[:, :-1])
    assert not torch.equal(one.coming[:, -1], elsewhere.coming[:, -1])
