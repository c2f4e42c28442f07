"""The player page in a real browser: keys move the world, time goes back, and nothing is lost on the way."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import worldsim
from tests.apps.browsing import Served, Shown, browsing, digest

pytestmark = pytest.mark.timeout(120)
TILE = 8
GROUND = slice(0, 7 * TILE)
MOVES = {"ArrowRight": (0, 1), "ArrowLeft": (0, -1), "ArrowDown": (1, 0), "ArrowUp": (-1, 0)}
KEEP = """() => {
  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => { window.film = blob; return make(blob); };
}"""
TAKE = """() => new Promise((done) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.readAsDataURL(window.film);
})"""
LETTERS = {"KeyD": (0, 1), "KeyA": (0, -1), "KeyS": (1, 0), "KeyW": (-1, 0)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def world() -> worldsim.World:
    return worldsim.load("crafter")


@pytest.fixture
def served(browser: Any, world: worldsim.World, tmp_path: Path) -> Iterator[Served]:
    server = Served(world, tmp_path)
    yield server
    server.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    found = browser.new_context(viewport={"width": 1200, "height": 800})
    yield found
    found.close()


@pytest.fixture
def page(context: Any, served: Served) -> Iterator[Shown]:
    """The page, in which a world has begun; the browser has nothing to complain about at its end."""
    shown = Shown(context.new_page())
    yield shown.open(served.url)
    assert shown.problems == []


def moved(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[int, int]:
    """By how many tiles the view has moved over the ground, down and across: at most one, where it fits best."""
    errors = {}
    for by in [(0, 0), *MOVES.values()]:
        down, across = (TILE * each for each in by)
        old = before[GROUND].astype(float)
        new = after[GROUND].astype(float)
        height, width = old.shape[:2]
        rows = slice(max(0, down), height + min(0, down)), slice(max(0, -down), height + min(0, -down))
        columns = slice(max(0, across), width + min(0, across)), slice(max(0, -across), width + min(0, -across))
        errors[by] = float(np.abs(old[rows[0], columns[0]] - new[rows[1], columns[1]]).mean())
    return min(errors, key=errors.__getitem__)


@pytest.mark.parametrize("keys", [MOVES, LETTERS], ids=["arrows", "letters"])
def test_each_key_moves_the_picture_the_right_way(page, keys):
    ways: dict[str, set[tuple[int, int]]] = {key: set() for key in keys}
    for place in range(3):
        page.control("reset", seed=1, start=place)
        page.pause()
        before = page.step()
        for key in keys:
            after = page.step(key)
            ways[key].add(moved(before, after))
            before = after
    for key, way in keys.items():
        assert way in ways[key]
        assert ways[key] <= {way, (0, 0)}


def test_keys_count_only_while_the_canvas_has_the_focus_and_go_up_when_it_is_lost(page):
    page.page.focus("#seed")
    page.page.keyboard.down("ArrowUp")
    assert page.page.evaluate("[...worldsim.hands.down.keys()]") == []
    page.page.keyboard.up("ArrowUp")
    page.page.focus("#screen")
    page.page.keyboard.down("ArrowRight")
    assert page.page.evaluate("[...worldsim.hands.down.keys()]") == ["ArrowRight"]
    page.page.evaluate("document.activeElement.blur()")
    assert page.page.evaluate("worldsim.link.keys") == []


def test_a_key_that_is_only_tapped_is_held_until_a_frame_has_shown_it(page):
    page.page.focus("#screen")
    page.page.keyboard.press("ArrowRight")
    number = page.page.evaluate("worldsim.hands.down.get('ArrowRight').action")
    assert page.page.evaluate("worldsim.link.keys") == ["ArrowRight"]
    page.until(lambda: page.page.evaluate("worldsim.link.keys.length") == 0)
    assert page.page.evaluate("worldsim.hands.seen") >= number


def test_a_rewind_shows_the_same_pixels_again(page):
    page.pause()
    first = [digest(page.step(key)) for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "Space")]
    page.control("rewind", blocks=4)
    assert [digest(page.step(key)) for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "Space")] == first


def test_the_buttons_and_the_timeline_go_back_and_the_present_is_shown_at_once(page):
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 20)
    page.pause()
    page.step("ArrowUp")
    blocks = page.page.evaluate("worldsim.blocks")
    pictures = page.page.locator("#timeline button")
    assert pictures.count() == (blocks - 1) // 8 + 1
    seen = page.page.locator("#timeline img").nth(1).get_attribute("src")
    pictures.nth(1).click()
    page.until(lambda: page.page.evaluate("worldsim.blocks") == 9)
    page.until(lambda: page.page.evaluate("document.getElementById('screen').toDataURL()") == seen)
    assert pictures.count() == 2
    page.page.click("#pause")
    page.state("live")
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 26)
    page.page.click("#back")
    page.until(lambda: page.page.evaluate("worldsim.epoch") == 2)


def test_a_fork_begins_as_its_parent_and_goes_its_own_way(page, context):
    page.pause()
    page.step("ArrowRight")
    with context.expect_page() as opened:
        page.page.click("#fork")
    twin = Shown(opened.value)
    twin.state("live")
    twin.pause()
    twin.control("rewind", blocks=twin.page.evaluate("worldsim.blocks") - page.page.evaluate("worldsim.blocks"))
    same = [(digest(page.step(key)), digest(twin.step(key))) for key in ("ArrowRight", "Space")]
    assert all(one == other for one, other in same)
    assert digest(page.step("ArrowUp")) != digest(twin.step("ArrowDown"))
    assert twin.problems == []


def test_a_connection_that_is_cut_is_taken_up_again_without_a_gap(page, served):
    page.page.evaluate("""() => {
      window.seen = [];
      const shown = worldsim.screen.shown;
      worldsim.screen.shown = (frame, more) => { if (!(frame.flags & 16)) seen.push(frame.block); shown(frame, more); };
    }""")
    for count in range(1, 4):
        page.until(lambda count=count: page.page.evaluate("seen.length") >= 4 * count)
        served.cut()
        page.state("lost")
        page.state("live")
    page.until(lambda: page.page.evaluate("seen.length") >= 16)
    seen = page.page.evaluate("seen")
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_a_page_that_is_loaded_again_goes_on_in_its_world(page):
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 8)
    world, blocks = page.page.evaluate("[worldsim.world, worldsim.blocks]")
    page.page.reload()
    page.state("live")
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= blocks)
    assert page.page.evaluate("worldsim.world") == world


def test_a_spectator_sees_what_the_player_sees_and_steers_nothing(page, context, served):
    page.page.click("#watch")
    other = Shown(context.new_page()).open(page.page.locator("#notice a").get_attribute("href"), until="watching")
    page.pause()
    page.step("ArrowRight")
    for key in ("ArrowDown", "ArrowLeft"):
        pixels = page.step(key)
        other.until(lambda pixels=pixels: digest(other.read()[1]) == digest(pixels))
    assert other.page.evaluate("getComputedStyle(document.querySelector('.player')).display") == "none"
    other.page.focus("#screen")
    other.page.keyboard.press("ArrowUp")
    served.cut()
    other.until(lambda: other.page.inner_text("#state") == "The player is away")
    page.state("paused")
    other.until(lambda: other.page.inner_text("#state") == "Watching")
    assert other.problems == []


def test_a_world_that_was_saved_goes_on_after_the_page_was_closed(page, context, served):
    page.pause()
    page.step("ArrowRight")
    page.page.click("#save")
    page.until(lambda: "Saved as" in page.told)
    future = [digest(page.step(key)) for key in ("ArrowDown", "ArrowDown")]
    page.page.close()
    later = Shown(context.new_page()).open(served.url)
    later.pause()
    later.page.click("#shelf li > button:first-child")
    later.until(lambda: "Loaded" in later.told)
    assert [digest(later.step(key)) for key in ("ArrowDown", "ArrowDown")] == future
    assert later.problems == []


def test_h264_shows_about_the_same_as_jpeg(page, context, served):
    if not page.page.evaluate("VideoDecoder.isConfigSupported({codec: 'avc1.42c00a'}).then((told) => told.supported)"):
        pytest.skip("this browser has no H.264")
    other = Shown(context.new_page()).open(f"{served.url}?codec=h264")
    shown = []
    for one in (page, other):
        one.control("reset", seed=5, start=0)
        one.pause()
        one.control("rewind", blocks=max(1, one.page.evaluate("worldsim.blocks")))
        shown.append([one.step(key) for key in ("ArrowRight", "ArrowRight", "ArrowDown")])
    assert other.page.evaluate("worldsim.link.who.codec") == "h264"
    for jpeg, h264 in zip(*shown, strict=True):
        assert np.abs(jpeg.astype(int) - h264).mean() < 6
    assert other.problems == []


def test_what_this_browser_cannot_read_goes_on_as_jpeg(context, served):
    shown = Shown(context.new_page())
    shown.page.add_init_script("VideoDecoder.prototype.decode = function () { throw new Error('no such codec'); };")
    shown.open(f"{served.url}?codec=h264", until="live")
    shown.until(lambda: shown.page.evaluate("worldsim.link.who.codec") == "jpeg")
    shown.until(lambda: shown.page.evaluate("worldsim.blocks") >= 3)
    assert "cannot show H.264 (no such codec); the world goes on as JPEG" in shown.told


def test_without_webcodecs_h264_is_not_asked_for(context, served):
    shown = Shown(context.new_page())
    shown.page.add_init_script("delete window.VideoDecoder;")
    shown.open(f"{served.url}?codec=h264")
    assert shown.page.evaluate("worldsim.link.who.codec") == "jpeg"
    assert shown.problems == []


def test_a_server_that_is_full_says_so_and_lets_in_who_waits(browser, world, tmp_path):
    with ExitStack() as stack:
        served = Served(world, tmp_path, sessions=1)
        stack.callback(served.close)
        contexts = [browser.new_context() for _ in range(2)]
        for context in contexts:
            stack.callback(context.close)
        one = Shown(contexts[0].new_page()).open(served.url)
        other = Shown(contexts[1].new_page()).open(served.url, until="full")
        assert "all 1 places are taken; try again in a while" in other.page.inner_text("#message")
        one.page.evaluate("worldsim.link.leave()")
        other.state("live")


def test_two_tabs_on_one_session_the_newer_plays_and_the_older_says_so(page, context, served):
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 2)
    kept = page.page.evaluate("sessionStorage.getItem('worldsim.ticket')")
    other = Shown(context.new_page())
    other.page.add_init_script(f"sessionStorage.setItem('worldsim.ticket', {kept!r})")
    other.open(served.url)
    assert "played in another tab" in page.state("replaced")
    page.page.click("#choices button")
    page.state("live")
    assert other.page.get_attribute("#state", "data-state") == "live"


def test_a_session_that_has_ended_can_be_gone_on_with(browser, world, tmp_path, context):
    served = Served(world, tmp_path, resume_s=0.0)
    try:
        page = Shown(context.new_page()).open(served.url)
        page.until(lambda: page.page.evaluate("worldsim.blocks") >= 4)
        world_name = page.page.evaluate("worldsim.world")
        served.cut()
        assert "This session has ended" in page.state("ended") or "has ended" in page.page.inner_text("#message")
        page.page.click("#choices button >> nth=0")
        page.state("live")
        page.until(lambda: page.page.evaluate("worldsim.blocks") >= 5)
        assert page.page.evaluate("worldsim.world") != world_name
    finally:
        served.close()


def test_a_server_that_stops_and_comes_back_goes_on_with_the_world(browser, world, tmp_path, context):
    served = Served(world, tmp_path)
    page = Shown(context.new_page()).open(served.url)
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 4)
    port, blocks = served.server.port, page.page.evaluate("worldsim.blocks")
    served.close()
    assert "saved" in page.state("restarting") or page.page.get_attribute("#state", "data-state") == "connecting"
    again = Served(worldsim.load("crafter"), tmp_path, port=port)
    try:
        page.state("live")
        page.until(lambda: page.page.evaluate("worldsim.blocks") >= blocks)
    finally:
        again.close()


def test_a_token_is_asked_for(browser, world, tmp_path, context):
    served = Served(world, tmp_path, token="sesame")
    try:
        page = Shown(context.new_page()).open(served.url, until="refused")
        assert page.page.inner_text("#message") == "This server asks for a token."
        page.page.on("dialog", lambda dialog: dialog.accept("sesame"))
        page.page.click("#choices button")
        page.state("live")
        other = Shown(context.new_page()).open(f"{served.url}#token=sesame")
        assert other.problems == []
    finally:
        served.close()


@pytest.mark.parametrize(
    ("spoil", "says"), [("weights", "that session was lived with weights"), ("bytes", "is no whole snapshot")]
)
def test_a_saved_world_of_other_weights_or_a_torn_one_is_refused_and_nothing_is_lost(
    page, world, tmp_path, spoil, says
):
    page.pause()
    path = tmp_path / f"{'0' * 32}.world"
    other = copy.copy(world)
    other.origin = replace(world.origin, weights="f" * 64) if spoil == "weights" else world.origin
    with other.open(seed=1) as session:
        session.save(path)
    if spoil == "bytes":
        path.write_bytes(path.read_bytes()[:-7])
    before = page.page.evaluate("[worldsim.world, worldsim.blocks]")
    page.page.evaluate(f"worldsim.load('{'0' * 32}')")
    page.until(lambda: says in page.told)
    assert page.page.evaluate("[worldsim.world, worldsim.blocks]") == before
    page.step("ArrowRight")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (120, 80), (390, 844), (2_400, 1_400)])
def test_the_world_is_shown_by_whole_factors_in_a_window_of_any_size(page, width, height):
    page.page.set_viewport_size({"width": width, "height": height})
    page.until(lambda: page.page.evaluate("document.getElementById('screen').getBoundingClientRect().width % 72") == 0)
    assert page.page.evaluate("document.getElementById('screen').getBoundingClientRect().width") >= 72
    if width >= 390:
        assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_fingers_walk_on_the_touch_pad(browser, served):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    try:
        page = Shown(context.new_page()).open(served.url)
        box = page.page.locator("#pad [data-key=ArrowRight]").bounding_box()
        assert box is not None
        page.page.touchscreen.tap(box["x"] + 5, box["y"] + 5)
        page.until(lambda: page.page.evaluate("worldsim.hands.number") >= 1)
        assert page.problems == []
    finally:
        context.close()


def test_a_recording_is_a_film_of_what_was_shown_with_its_keys(page, context):
    page.pause()
    page.page.evaluate(KEEP)
    page.page.click("#record")
    page.until(lambda: page.told == "Recording.")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.step(key)
    page.page.click("#record")
    page.until(lambda: "Recorded" in page.told)
    film = base64.b64decode(page.page.evaluate(TAKE).partition(",")[2])
    with av.open(io.BytesIO(film)) as container:
        shown = list(container.decode(video=0))
        assert len(shown) == 3
        assert container.streams.subtitles
    assert page.page.inner_text("#record") == "Record"


def test_a_gamepad_walks(context, served):
    shown = Shown(context.new_page())
    shown.page.add_init_script("""
      const button = (pressed) => ({ pressed });
      window.pad = { axes: [0, 0], buttons: Array.from({ length: 16 }, () => button(false)) };
      navigator.getGamepads = () => [window.pad, null];
    """)
    shown.open(served.url)
    shown.page.evaluate("window.dispatchEvent(new Event('gamepadconnected'))")
    held = "[...worldsim.hands.down.keys()].sort()"
    for push, keys in {
        "pad.axes = [0.9, -0.9]": ["ArrowRight", "ArrowUp"],
        "pad.axes = [0.1, 0]; pad.buttons[0] = { pressed: true }": ["Space"],
        "pad.buttons[0] = { pressed: false }": [],
    }.items():
        shown.page.evaluate(push)
        shown.until(lambda keys=keys: shown.page.evaluate(held) == keys)
    assert shown.problems == []


def test_blocks_of_several_frames_that_are_cut_in_the_middle_are_shown_once_and_whole(browser, tmp_path, context):
    served = Served(worldsim.load("crafter", frames_per_block=4), tmp_path)
    try:
        shown = Shown(context.new_page())
        # The connection breaks after the first frames of a block have arrived, as often as there is a count of them.
        shown.page.add_init_script("""
          const Real = WebSocket;
          window.breaks = [7, 8, 11];
          window.WebSocket = class extends Real {
            set onmessage(hear) {
              let frames = 0;
              super.onmessage = (event) => {
                if (this.isCut) return;
                this.isCut = typeof event.data !== "string" && ++frames === breaks[0];
                if (!this.isCut) return hear(event);
                breaks.shift();
                this.close();
              };
            }
          };
        """)
        shown.open(served.url)
        shown.page.evaluate("""() => {
          window.seen = [];
          const draw = worldsim.screen.shown;
          worldsim.screen.shown = (frame, more) => {
            if (!(frame.flags & 16)) seen.push(4 * frame.block + frame.frame);
            draw(frame, more);
          };
        }""")
        shown.until(lambda: shown.page.evaluate("breaks.length === 0 && seen.length >= 28"))
        seen = shown.page.evaluate("seen")
        assert seen == list(range(seen[0], seen[0] + len(seen)))
    finally:
        served.close()
