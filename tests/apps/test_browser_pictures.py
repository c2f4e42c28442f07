"""The player page of a world that begins from a picture: whoever plays it chooses one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.apps.browsing import Served, Shown, browsing
from worldsim.testing.fakes import pictured_world, tiny_world
from worldsim_apps.room import Room

pytestmark = pytest.mark.timeout(120)
HEIGHT, WIDTH = pictured_world().size
RED, BLUE = (200, 30, 30), (20, 40, 220)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.fixture
def served(browser: Any, tmp_path: Path) -> Iterator[Served]:
    server = Served(pictured_world(), tmp_path)
    yield server
    server.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Shown]:
    with closing(browser.new_context()) as context:
        yield Shown(context.new_page()).open(served.url, until="unbegun")


def file_of(colour: tuple[int, int, int]) -> dict[str, Any]:
    """A wide picture of one colour whose sides, which the world's aspect leaves out, are green."""
    picture = np.full((4 * HEIGHT, 16 * WIDTH, 3), (0, 255, 0), np.uint8)
    picture[:, 5 * WIDTH : 11 * WIDTH] = colour
    data = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    return {"name": "picture.png", "mimeType": "image/png", "buffer": data}


def begun_from(served: Served) -> NDArray[np.uint8]:
    """The picture that the session on the server began from."""
    (room,) = served.server.hall.rooms.values()
    assert isinstance(room, Room)
    given = room._stage.live.session.log.opening.given
    assert given is not None
    return np.frombuffer(given.pixels, np.uint8).reshape(given.shape)[0]


def test_without_a_picture_the_page_asks_for_one_and_begins_from_it(page: Shown, served: Served) -> None:
    assert page.state("unbegun") == "Pictured begins from a picture, and got none."
    with page.page.expect_file_chooser() as asked:
        page.page.click("text=Choose a picture")
    asked.value.set_files([file_of(RED)])
    page.state("live")
    assert np.abs(begun_from(served).astype(int) - RED).max() < 12
    page.page.set_input_files("#picture", [file_of(BLUE)])
    assert np.abs(begun_from(served).astype(int) - RED).max() < 12
    page.page.click("#anew button")
    page.until(lambda: page.page.evaluate("worldsim.epoch") == 1)
    assert np.abs(begun_from(served).astype(int) - BLUE).max() < 12
    assert page.problems == []


def test_a_file_that_is_no_picture_is_said_to_be_none_and_a_large_one_is_made_small(
    page: Shown, served: Served
) -> None:
    page.state("unbegun")
    page.page.set_input_files("#picture", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"}])
    page.until(lambda: page.told == "a.txt is no picture that this browser can read.")
    noise = np.random.default_rng(2).integers(0, 256, (900, 1500, 3), np.uint8)
    large = {"name": "b.png", "mimeType": "image/png", "buffer": cv2.imencode(".png", noise)[1].tobytes()}
    page.page.set_input_files("#picture", [large])
    page.state("live")
    packed = page.page.evaluate("worldsim.picture.size = [480, 832], worldsim.picture.packed()")
    assert 20_000 < len(packed) < 61_000
    assert page.problems == []


def test_a_world_that_begins_from_no_picture_asks_for_none(browser: Any, tmp_path: Path) -> None:
    server = Served(tiny_world(), tmp_path)
    with closing(browser.new_context()) as context:
        shown = Shown(context.new_page()).open(server.url)
        shown.state("live")
        assert not shown.page.is_visible("#picture")
    server.close()
