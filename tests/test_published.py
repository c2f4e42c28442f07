"""Published models of all families lie behind one door."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from worldsim import matrixgame, pictures, wan
from worldsim.errors import ConfigError, LogError, WeightsError
from worldsim.published import (
    PUBLISHED,
    Place,
    Recipe,
    check_preview,
    check_room,
    fit_picture,
    fps_of,
    settings_of,
    size_of,
)
from worldsim.wan_memory import pages_of

WAN, GAME = wan.SELF_FORCING, matrixgame.RECIPES["matrix-game-2-gta"]


def test_every_recipe_has_a_name_of_its_own_and_says_what_it_is() -> None:
    assert len(PUBLISHED) == len(wan.RECIPES) + len(matrixgame.RECIPES)
    for name, recipe in PUBLISHED.items():
        assert recipe.name == name
        assert recipe.source
        assert "/" in recipe.weights
        plan = recipe.plan()
        assert plan.from_nothing
        assert plan.policy.limit is not None
        assert plan.frames_per_block == recipe.frames_per_block
        assert plan.sigmas == recipe.sigmas


def test_a_recipe_says_what_was_published_of_its_speed_and_on_what() -> None:
    told = {name: recipe.published for name, recipe in PUBLISHED.items() if recipe.published}
    untold = PUBLISHED.keys() - told.keys()
    assert untold == {"causvid-3step", "infinity-rope", "causal-forcing", "causal-forcing-framewise"}
    for said in told.values():
        assert re.match(r"\d+(\.\d)? frames a second (of \d+x\d+ )?on one (H100|GPU)\b", said)
    assert told["causvid"].startswith("9.4 frames a second of 640x352 on one GPU")
    assert told["rolling-forcing"] == "16 frames a second of 832x480 on one GPU"
    games = {told[name] for name in matrixgame.RECIPES}
    assert games == {"25 frames a second of 640x352 on one H100, said of Matrix-Game 2 as a whole"}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("players", [1, 2, 5])
def test_memory_that_is_planned_for_players_and_one_more_is_enough_to_serve_them(name: str, players: int) -> None:
    plan = PUBLISHED[name].plan()
    assert plan.limit is not None
    places = pages_of(plan, sessions=players + 1) // (plan.limit + 2 * plan.frames_per_block)
    assert places >= players + 1


def test_sizes_and_speeds_are_those_of_the_family() -> None:
    assert (size_of(WAN, None), fps_of(WAN)) == ((480, 832), 16)
    assert (size_of(GAME, None), fps_of(GAME)) == ((352, 640), 12)
    assert size_of(GAME, "64x96") == size_of(WAN, "64x96") == (96, 64)
    with pytest.raises(ConfigError, match="do not divide"):
        size_of(GAME, "65x96")


@pytest.mark.parametrize("recipe", [WAN, GAME])
def test_a_size_that_has_no_room_for_one_block_is_refused_at_once(recipe: Recipe, monkeypatch: Any) -> None:
    size, least = (64, 96), 3 * recipe.config((64, 96)).pages.bytes(torch.float32)
    for free in (least, None):
        monkeypatch.setattr("worldsim.published.free_bytes", lambda device, free=free: free)
        check_room(recipe, size, torch.device("cpu"))
    monkeypatch.setattr("worldsim.published.free_bytes", lambda device: least - 1)
    with pytest.raises(ConfigError, match=r"of pictures of 96x64 pixels the keys .* take 0\.0 GB .*; choose a smaller"):
        check_room(recipe, size, torch.device("cpu"))


def test_a_log_tells_what_such_a_world_was_loaded_with() -> None:
    assert settings_of(WAN, {"size": [96, 64], "on_prompt": "keep"}) == {"size": "64x96", "on_prompt": "keep"}
    fast = {"linears": "int8", "compiled": True, "offload": True}
    assert settings_of(GAME, {"size": [96, 64]}) == {"size": "64x96"}
    assert settings_of(GAME, {"size": [96, 64], "preview": None, **fast}) == {"size": "64x96", **fast}
    for recipe, plan in (
        (WAN, {"size": [96, 64]}),
        (GAME, {}),
        (GAME, {"size": "64x96"}),
        (WAN, {"on_prompt": "keep"}),
    ):
        with pytest.raises(LogError, match="does not tell its size"):
            settings_of(recipe, plan)


def test_a_log_tells_what_is_in_the_file_of_a_preview_and_not_where_it_lies(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in "abc")
    for path, text in ((one, b"tiny"), (same, b"tiny"), (other, b"other")):
        path.write_bytes(text)
    place = Place(size=(96, 64), device=torch.device("cpu"), preview=one)
    told = place.chosen
    preview = f"sha256:{hashlib.sha256(b'tiny').hexdigest()}"
    assert told == {"linears": None, "compiled": False, "preview": preview}
    for plan, preview in ((told, one), (told, str(same)), ({}, other), ({}, None), ({"preview": None}, None)):
        check_preview(plan, preview)
    for plan, wrong in ((told, other), (told, None), ({"preview": None}, one)):
        with pytest.raises(LogError, match="lived with preview"):
            check_preview(plan, wrong)
    with pytest.raises(WeightsError, match="there is no weights file"):
        check_preview({}, tmp_path / "d")


@pytest.mark.parametrize("needs_picture", [False, True])
def test_a_picture_is_cut_as_its_family_takes_it(tmp_path: Path, *, needs_picture: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    world = SimpleNamespace(needs_picture=needs_picture, size=(16, 32))
    family = matrixgame if needs_picture else pictures
    found = fit_picture(tmp_path / "a.png", world)  # type: ignore[arg-type]
    assert np.array_equal(found, family.fit_picture(tmp_path / "a.png", (16, 32)))
