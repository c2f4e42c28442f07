"""The player page of a world that is told in words what to show, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.apps.browsing import Served, Shown, browsing
from tests.apps.serving import doubled_world
from worldsim.session.events import MOST_PROMPT
from worldsim.testing.fakes import MOST_WORDS, tiny_world, told_world
from worldsim_apps.stage import Stage

pytestmark = pytest.mark.timeout(120)
WOOD, LAKE = "a wood in the rain", "a lake by night"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.fixture
def served(browser: Any, tmp_path: Path) -> Iterator[Served]:
    server = Served(told_world(), tmp_path)
    yield server
    server.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    found = browser.new_context(viewport={"width": 1200, "height": 800})
    yield found
    found.close()


@pytest.fixture
def page(context: Any, served: Served) -> Iterator[Shown]:
    """The page of a world that was begun with a prompt; the browser has nothing to complain about at its end."""
    shown = Shown(context.new_page()).open(f"{served.url}#prompt={WOOD}")
    yield shown
    assert shown.problems == []


def stage_of(served: Served) -> Stage:
    (room,) = served.server.hall.rooms.values()
    return room._stage


def says(shown: Shown, prompt: str) -> None:
    """Wait until the page says that this is shown."""
    shown.until(lambda: shown.page.inner_text("#say label") == f"Shows: {prompt}")


def focused(shown: Shown) -> str:
    return str(shown.page.evaluate("document.activeElement.id"))


def test_a_world_begins_with_the_prompt_of_the_address_and_enter_tells_it_another(page, served):
    says(page, WOOD)
    assert stage_of(served).prompt == WOOD
    page.pause()
    page.page.click("#prompt")
    page.page.keyboard.type(f"  {LAKE} ")
    page.page.keyboard.press("Enter")
    says(page, LAKE)
    assert (focused(page), page.page.input_value("#prompt")) == ("screen", "")
    assert stage_of(served).prompt == LAKE
    page.step()
    page.page.evaluate("worldsim.goBack(1)")
    says(page, WOOD)


def test_keys_that_are_typed_steer_nothing_and_escape_leaves_what_was_typed_unsaid(page, served):
    page.page.click("#prompt")
    page.page.keyboard.type("a dam")  # "a" and "d" would walk
    page.page.keyboard.down("ArrowRight")
    page.page.keyboard.up("ArrowRight")
    page.page.keyboard.press("m")  # and this would close what the world remembers
    assert (page.page.evaluate("worldsim.link.seq"), page.page.input_value("#prompt")) == (0, "a damm")
    assert page.page.evaluate("worldsim.memory.isOn")
    page.page.keyboard.press("Escape")
    assert (focused(page), page.page.input_value("#prompt")) == ("screen", "a damm")
    page.page.keyboard.down("d")
    page.until(lambda: page.page.evaluate("worldsim.link.keys")[:1] == ["KeyD"])
    page.page.keyboard.up("d")
    assert stage_of(served).prompt == WOOD


def test_a_prompt_that_is_too_long_to_be_heard_whole_is_said_to_be_once(page, served):
    page.page.click("#prompt")
    page.page.keyboard.insert_text("tree " * (MOST_WORDS + 7))
    page.page.keyboard.press("Enter")
    page.until(lambda: "its last 7 tokens are not heard" in page.page.inner_text("#notice"))
    page.pause()
    assert page.told == ""
    page.page.click("#pause")
    page.until(lambda: page.page.get_attribute("#pause", "aria-pressed") == "false")
    assert page.told == ""


def test_nothing_typed_tells_nothing(page, served):
    page.page.click("#prompt")
    page.page.keyboard.type("   ")
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("d")
    page.until(lambda: page.page.evaluate("worldsim.link.seq") >= 1)
    assert stage_of(served).prompt == WOOD


def test_a_lost_connection_neither_ends_the_typing_nor_loses_what_was_typed(page, served):
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 2)
    page.page.click("#prompt")
    page.page.keyboard.type("a lake ")
    served.cut()
    page.state("lost")
    page.page.keyboard.press("Enter")
    page.until(lambda: "connection is lost" in page.told)
    page.page.click("#prompt")
    page.state("live")
    page.page.keyboard.type("by night")
    assert focused(page) == "prompt"
    page.page.keyboard.press("Enter")
    says(page, LAKE)
    assert stage_of(served).prompt == LAKE


def test_who_begins_anew_or_loads_the_page_again_is_shown_the_same(page, served):
    page.page.fill("#prompt", LAKE)
    page.page.press("#prompt", "Enter")
    says(page, LAKE)
    page.page.click("#anew button")
    page.until(lambda: page.page.evaluate("worldsim.epoch") == 1)
    says(page, LAKE)
    assert stage_of(served).prompt == LAKE
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 2)
    page.page.reload()
    page.state("live")
    says(page, LAKE)


def test_a_world_that_ended_is_begun_anew_with_what_was_told_last(page, served):
    page.page.fill("#prompt", LAKE)
    page.page.press("#prompt", "Enter")
    says(page, LAKE)
    session = page.page.evaluate("worldsim.session")
    served.do(lambda: served.server.hall.rooms[session]._expire())
    page.state("ended")
    page.page.click("text=Begin anew >> nth=0")
    page.state("live")
    says(page, LAKE)
    assert page.page.evaluate("worldsim.session") != session


def test_spectators_see_what_is_told_and_have_nothing_to_type_into(page, context, served):
    other = Shown(context.new_page()).open(
        f"{served.url}#watch={page.page.evaluate('worldsim.session')}", until="watching"
    )
    says(other, WOOD)
    assert not other.page.is_visible("#prompt")
    page.page.fill("#prompt", LAKE)
    page.page.press("#prompt", "Enter")
    says(other, LAKE)
    assert other.problems == []


def test_what_is_told_is_text_however_it_looks_and_as_long_as_it_may_be(page, served):
    told = "<b onclick=alert(1)>wood & lake</b>"
    page.page.fill("#prompt", told)
    page.page.press("#prompt", "Enter")
    says(page, told)
    assert page.page.get_attribute("#prompt", "maxlength") == str(MOST_PROMPT)
    page.page.fill("#prompt", "x" * MOST_PROMPT)
    page.page.press("#prompt", "Enter")
    says(page, "x" * MOST_PROMPT)
    assert page.page.evaluate("document.querySelector('#say label').offsetHeight") < 60
    assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_world_that_begins_without_a_prompt_shows_nothing_in_particular(context, served):
    shown = Shown(context.new_page()).open(served.url)
    says(shown, "nothing in particular")
    assert not shown.page.is_visible("#place")
    assert shown.problems == []


def test_on_a_telephone_the_line_fits_and_a_tap_into_it_is_enough(browser, served):
    context = browser.new_context(**PHONE)
    shown = Shown(context.new_page()).open(served.url)
    shown.page.tap("#prompt")
    assert focused(shown) == "prompt"
    shown.page.keyboard.type(LAKE)
    shown.page.keyboard.press("Enter")
    says(shown, LAKE)
    assert shown.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert shown.page.evaluate("parseFloat(getComputedStyle(document.getElementById('prompt')).fontSize)") >= 16
    context.close()
    assert shown.problems == []


def test_a_world_that_is_steered_by_keys_alone_has_no_line(context, tmp_path):
    with closing(Served(tiny_world(), tmp_path)) as server:
        shown = Shown(context.new_page()).open(server.url)
        assert not shown.page.is_visible("#say")
        assert shown.page.is_visible("#place")
        assert shown.problems == []


def test_frames_of_a_shorter_first_block_are_remembered_where_they_belong(context, tmp_path):
    with closing(Served(doubled_world(), tmp_path)) as server:
        shown = Shown(context.new_page()).open(server.url)
        made = shown.pause()
        shown.control("rewind", blocks=made)
        shown.until(lambda: shown.page.evaluate("worldsim.memory.album.cells.size") == 0)
        for frames in ([1, 2, 3], [1, 2, 3, 4, 5, 6, 7]):
            shown.step()
            shown.until(lambda frames=frames: shown.page.evaluate("[...worldsim.memory.album.cells.keys()]") == frames)
        assert shown.page.inner_text("#memory .span") == "1.0 s"
        assert shown.problems == []


def test_an_address_with_a_prompt_begins_another_world_in_a_tab_that_plays_one(page, served):
    session = page.page.evaluate("worldsim.session")
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 2)
    page.page.goto(f"{served.url}#prompt={LAKE}")
    says(page, LAKE)
    page.state("live")
    assert page.page.evaluate("worldsim.session") != session
    assert page.page.evaluate("location.hash") == ""


def test_what_cannot_be_told_is_said_and_stays_to_be_mended(page, served):
    page.page.click("#memory summary")  # which asks the server now and then, and so has answers of its own
    page.page.evaluate("document.getElementById('prompt').value = 'a lake \\ud83c'")
    page.page.press("#prompt", "Enter")
    page.until(lambda: "half of one" in page.told)
    assert page.page.evaluate("document.getElementById('prompt').value.length") == 8
    page.page.fill("#prompt", LAKE)
    page.page.press("#prompt", "Enter")
    says(page, LAKE)
    page.until(lambda: page.page.input_value("#prompt") == "")
    assert page.told == ""
