"""A world that begins from pictures, over real connections: from that of its client, or of whoever serves it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tests.apps.serving import bounded, player, serving, talk
from worldsim.testing.fakes import pictured_world, tiny_world
from worldsim_apps.encoding import png_of

WORLD = pictured_world()
KEYS = frozenset({"KeyD"})


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *WORLD.size, 3), np.uint8)


def sent(seed: int) -> str:
    """That picture as a client sends it."""
    shown = picture(seed)[0]
    return base64.b64encode(png_of(shown, np.ones(shown.shape[:2], bool))).decode()


def lived(seed: int, *, chance: int = 3, blocks: int = 2) -> list[bytes]:
    """The payloads of blocks that nobody served."""
    with pictured_world().open(seed=chance, frames=picture(seed)) as session:
        return [frame.tobytes() for _ in range(blocks) for frame in session.step(KEYS).frames]


@bounded
async def test_without_a_picture_a_client_is_told_what_is_needed(tmp_path: Any) -> None:
    async with serving(tmp_path, world=pictured_world()) as (_, url), talk(url, role="player") as one:
        await one.say("start", seed=3)
        told = await one.hear("error")
        assert (told["to"], told["code"]) == ("start", "no_picture")
        assert told["message"] == "pictured begins from a picture, and got none"


@bounded
async def test_a_session_begins_from_the_picture_of_its_client_or_else_of_the_server(tmp_path: Any) -> None:
    async with serving(tmp_path, world=pictured_world(), picture=picture(1)) as (_, url):
        async with player(url, seed=3, image=sent(2)) as one:
            assert await one.walk([KEYS] * 2) == lived(2)
        async with player(url, seed=3) as one:
            assert await one.walk([KEYS] * 2) == lived(1)


@bounded
async def test_begun_anew_it_has_the_same_picture(tmp_path: Any) -> None:
    async with (
        serving(tmp_path, world=pictured_world(), picture=picture(1)) as (_, url),
        player(url, seed=3, image=sent(2)) as one,
    ):
        await one.walk([KEYS])
        await one.jump("reset", seed=5)
        assert await one.walk([KEYS] * 2) == lived(2, chance=5)


@bounded
async def test_begun_anew_from_another_picture_it_has_that_one_from_then_on(tmp_path: Any) -> None:
    async with (
        serving(tmp_path, world=pictured_world(), picture=picture(1)) as (_, url),
        player(url, seed=3, image=sent(2)) as one,
    ):
        assert "neither" in await one.refused("reset", "bad_image", image=base64.b64encode(b"none").decode())
        await one.jump("reset", seed=5, image=sent(4))
        assert await one.walk([KEYS] * 2) == lived(4, chance=5)
        await one.jump("reset", seed=6)
        assert await one.walk([KEYS] * 2) == lived(4, chance=6)


@bounded
async def test_the_welcome_says_whether_a_world_begins_from_a_picture(tmp_path: Any) -> None:
    for world, needs in ((pictured_world(), True), (tiny_world(), False)):
        async with serving(tmp_path, world=world) as (_, url), talk(url) as one:
            await one.say("hello")
            assert (await one.hear("welcome"))["pictures"] is needs
