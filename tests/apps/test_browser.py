"""The player page in a real browser: keys move the world, time goes back, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import worldsim
from tests.apps.browsing import Served, Shown, browsing, digest
from worldsim.cache.policy import Seen
from worldsim_apps.stage import Stage
from worldsim_apps.viewer import Viewer

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


def record(shown: Shown) -> None:
    """Film three blocks of a paused world."""
    shown.page.evaluate(KEEP)
    shown.page.click("#record")
    shown.until(lambda: shown.told == "Recording.")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        shown.step(key)


def filmed(shown: Shown) -> int:
    """How many frames the film has that has come, once it has; the button is up again then."""
    shown.until(lambda: "Recorded" in shown.told)
    film = base64.b64decode(shown.page.evaluate(TAKE).partition(",")[2])
    assert shown.page.inner_text("#record") == "Record"
    with av.open(io.BytesIO(film)) as container:
        assert container.streams.subtitles
        return len(list(container.decode(video=0)))


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
    assert not other.page.is_visible("#hint")
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
    page.until(lambda: "Saved" in page.told)
    link = page.page.locator("#notice a").get_attribute("href")
    blocks = page.page.evaluate("worldsim.blocks")
    future = [digest(page.step(key)) for key in ("ArrowDown", "ArrowDown")]
    page.page.close()
    opened = Shown(context.new_page()).open(link)
    opened.pause()
    if more := opened.page.evaluate("worldsim.blocks") - blocks:
        opened.control("rewind", blocks=more)
    assert [digest(opened.step(key)) for key in ("ArrowDown", "ArrowDown")] == future
    opened.page.close()
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
        assert "All 1 places are taken; try again in a while." in other.page.inner_text("#message")
        one.page.evaluate("worldsim.link.leave()")
        other.state("live")


def test_two_tabs_on_one_session_the_newer_plays_and_the_older_says_so(page, context, served):
    page.until(lambda: page.page.evaluate("worldsim.blocks") >= 2)
    kept = page.page.evaluate("sessionStorage.getItem('worldsim.ticket')")
    other = Shown(context.new_page())
    other.page.add_init_script(f"sessionStorage.setItem('worldsim.ticket', {kept!r})")
    other.open(served.url)
    assert "taken over by another tab" in page.state("replaced")
    blocks = page.page.evaluate("worldsim.blocks")
    assert other.page.get_attribute("#state", "data-state") == "live"
    other.page.close()
    page.page.reload()
    page.state("replaced")
    page.page.click("#choices button:text('Go on in this world')")
    page.state("live")
    assert page.page.evaluate("worldsim.blocks") >= blocks
    assert page.page.evaluate("worldsim.timeline.near") >= blocks


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
        answers = iter(("tahini", "sesame"))
        page.page.on("dialog", lambda dialog: dialog.accept(next(answers)))
        page.page.click("#choices button")
        page.until(lambda: page.page.inner_text("#message") == "That is not the token of this server.")
        page.page.click("#choices button")
        page.state("live")
        assert page.told == ""
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
    page.until(lambda: page.page.evaluate("worldsim.timeline.pictures.length"))
    path = tmp_path / f"{'0' * 32}.world"
    other = copy.copy(world)
    other.origin = replace(world.origin, weights="f" * 64) if spoil == "weights" else world.origin
    with other.open(seed=1) as session:
        session.save(path)
    if spoil == "bytes":
        path.write_bytes(path.read_bytes()[:-7])
    before = page.page.evaluate("[worldsim.world, worldsim.blocks, worldsim.timeline.pictures]")
    assert before[2]
    page.page.evaluate(f"worldsim.load('{'0' * 32}')")
    page.until(lambda: says in page.told)
    assert page.page.evaluate("[worldsim.world, worldsim.blocks, worldsim.timeline.pictures]") == before
    page.step("ArrowRight")


def test_back_beyond_the_beginning_goes_to_the_beginning(page):
    blocks = page.pause()
    page.page.evaluate(f"worldsim.blocks += 30; worldsim.goBack({blocks} + 20)")
    page.until(lambda: page.page.evaluate("worldsim.epoch") == 1)
    assert (page.page.evaluate("worldsim.blocks"), page.told) == (0, "")


def test_the_form_says_how_this_world_began_so_that_it_can_begin_again(page, served):
    page.pause()
    page.control("rewind", blocks=page.page.evaluate("worldsim.blocks"))
    first = digest(page.step("ArrowRight"))
    (room,) = served.server.hall.rooms.values()
    assert int(page.page.input_value("#seed")) == room._stage.live.session.log.opening.seed
    page.page.reload()
    page.state("paused")
    page.page.click("#anew button")
    page.until(lambda: page.page.evaluate("worldsim.epoch") == 2)
    assert digest(page.step("ArrowRight")) == first
    page.page.fill("#seed", "")
    page.page.select_option("#place", label="2")
    page.page.click("#anew button")
    page.until(lambda: page.page.evaluate("worldsim.epoch") == 3)
    assert page.page.input_value("#place") == "1"
    assert int(page.page.input_value("#seed")) == room._stage.live.session.log.opening.seed


def test_a_page_that_is_loaded_again_still_shows_its_timeline(page):
    page.until(lambda: page.page.locator("#timeline li").count() >= 2)
    page.pause()
    pictures = page.page.evaluate("worldsim.timeline.pictures")
    assert len(pictures) >= 2
    page.page.reload()
    page.state("paused")
    assert page.page.evaluate("worldsim.timeline.pictures") == pictures
    assert page.page.locator("#timeline li.far").count() == 0


def test_after_a_button_keys_go_to_the_world_and_one_that_is_held_still_counts(page):
    page.page.click("#save")
    page.until(lambda: "Saved" in page.told)
    page.page.keyboard.press("Space")
    assert page.page.evaluate("[document.activeElement.id, worldsim.shelf.all.length]") == ["screen", 1]
    page.page.keyboard.down("ArrowRight")
    page.page.click("#back")
    page.page.keyboard.down("ArrowRight")  # which repeats it
    assert page.page.evaluate("worldsim.link.keys") == ["ArrowRight"]


def test_a_saved_world_leaves_the_list_only_when_that_is_meant(page):
    page.page.click("#save")
    page.until(lambda: "Saved" in page.told)
    world = page.page.evaluate("worldsim.shelf.all[0].world")
    for answer, left in (("dismiss", 1), ("accept", 0)):
        with page.page.expect_event("dialog") as asked:
            page.page.once("dialog", lambda dialog, answer=answer: getattr(dialog, answer)())
            page.page.click("#shelf .forget")
        assert world in asked.value.message
        assert page.page.evaluate("worldsim.shelf.all.length") == left


def test_a_session_that_never_was_is_not_said_to_be_kept(context, served):
    shown = Shown(context.new_page()).open(f"{served.url}#watch={'0' * 32}", until="ended")
    assert "There was no session of that name" in shown.page.inner_text("#message")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (120, 80), (390, 844), (2_400, 1_400)])
def test_the_world_is_shown_by_whole_factors_in_a_window_of_any_size(page, width, height):
    page.page.set_viewport_size({"width": width, "height": height})
    page.until(lambda: page.page.evaluate("document.getElementById('screen').getBoundingClientRect().width % 72") == 0)
    assert page.page.evaluate("document.getElementById('screen').getBoundingClientRect().width") >= 72
    if width >= 390:
        assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@dataclass(frozen=True)
class FarAndNear:
    """Sees the frames of those ages, and says that some of them are retrieved."""

    ages: tuple[int, ...] = (9, 8, 3, 2, 1)
    retrieved: tuple[int, ...] = ()

    limit: ClassVar = 12
    sparse: ClassVar = None
    anew: ClassVar = False

    def see(self, held: Sequence[int], block: int, alike: Any = None) -> list[Seen]:
        seen = [frame for frame in held if block - frame in self.ages]
        return [Seen(frame, frame - block, block - frame in self.retrieved) for frame in seen]

    def keep(self, held: Sequence[int], next_frame: int) -> list[int]:
        return [frame for frame in held if frame >= next_frame - 9]


def tiles(shown: Shown, name: str) -> list[tuple[str, str, bool]]:
    """Of each small picture in that list: its pixels as a data URL, what is said below it, and whether it is known."""
    return [
        tuple(one)
        for one in shown.page.evaluate(
            """(name) => [...document.querySelectorAll(`#memory .${name} li`)].map((item) =>
              [item.children[0].toDataURL(), item.children[1].textContent, !item.classList.contains("unknown")])""",
            name,
        )
    ]


def test_the_page_shows_what_the_newest_block_saw_and_apart_from_it_what_lies_further_back(browser, context, tmp_path):
    served = Served(worldsim.load("crafter", policy=FarAndNear()), tmp_path)
    try:
        page = Shown(context.new_page()).open(served.url)
        page.pause()
        page.control("reset", seed=5, start=0)
        looks = []
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp") * 3:
            page.step(key)
            looks.append(tiles(page, "film")[-1][0])  # of the frame before this block
        near, far = tiles(page, "film"), tiles(page, "afar")
        assert [(said, known) for _, said, known in near] == [("0.4 s", True), ("0.3 s", True), ("0.1 s", True)]
        assert [(said, known) for _, said, known in far] == [("1.0 s", True)]
        assert page.page.inner_text("#memory .span") == "0.4 s"
        assert [look for look, _, _ in (*far, *near)] == [looks[at] for at in (4, 9, 10, 11)]
        assert len(set(looks)) > 6
        assert not page.page.is_visible("#memory .none")
        page.control("rewind", blocks=4)
        page.step("Space")
        assert [known for _, _, known in tiles(page, "afar")] == [True]
        assert tiles(page, "afar")[0][1] == "1.0 s"
        page.control("reset", seed=5, start=0)
        page.step()
        assert [known for _, _, known in (*tiles(page, "film"), *tiles(page, "afar"))] == [False] * 4
        assert page.problems == []
    finally:
        served.close()


@pytest.mark.parametrize(
    ("policy", "near", "far", "marked"),
    [
        (FarAndNear(retrieved=(9, 8)), ["0.4 s", "0.3 s", "0.1 s"], ["1.0 s"], [True]),
        (FarAndNear(ages=(9, 8, 6, 2, 1), retrieved=(6,)), ["0.3 s", "0.1 s"], ["1.0 s", "0.8 s"], [False, True]),
        (FarAndNear(ages=(4, 3, 2, 1), retrieved=(4, 3)), ["0.3 s", "0.1 s"], ["0.4 s"], [True]),
        (FarAndNear(ages=(2, 1), retrieved=(2, 1)), [], ["0.1 s"], [True]),
        (FarAndNear(), ["0.4 s", "0.3 s", "0.1 s"], ["1.0 s"], [False]),
    ],
)
def test_what_was_retrieved_is_marked_and_what_only_lies_further_back_is_not(
    context, tmp_path, policy, near, far, marked
):
    served = Served(worldsim.load("crafter", policy=policy), tmp_path)
    try:
        page = Shown(context.new_page()).open(served.url)
        page.pause()
        page.control("reset", seed=5, start=0)
        for _ in range(10):
            page.step("ArrowRight")
        assert [said for _, said, _ in tiles(page, "film")] == near
        assert [said for _, said, _ in tiles(page, "afar")] == far
        items = "[...document.querySelectorAll('#memory .afar li')]"
        assert page.page.evaluate(f"{items}.map((item) => item.classList.contains('retrieved'))") == marked
        assert page.page.is_visible("#memory .legend") is any(marked)
        assert page.problems == []
    finally:
        served.close()


def test_what_was_shown_stays_known_at_a_stride_however_long_it_lasts(page):
    kept = page.page.evaluate("""() => {
      const album = new worldsim.memory.album.constructor(), canvas = document.getElementById("screen");
      for (let at = 0; at < 5000; at += 1) album.keep(at, canvas);
      const tile = Object.assign(document.createElement("canvas"), { width: 40, height: 40 });
      const known = [0, 777, 2501, 4900, 4990, 4999].map((number) => album.draw(number, 0, tile));
      const size = album.cells.size, newest = [...Array(64).keys()].every((back) => album.cells.has(4999 - back));
      album.cut(10);
      return { known, size, newest, left: [...album.cells.keys()], after: album.draw(4999, 0, tile) };
    }""")
    assert kept["known"] == [True] * 6
    assert kept["size"] <= 1024
    assert kept["newest"]
    assert kept["left"] == [0, 8]
    assert kept["after"] is False


def test_the_memory_is_shown_or_not_as_its_key_says_and_the_server_is_told(page, served):
    (room,) = served.server.hall.rooms.values()
    page.until(lambda: room._player.asks_seen)
    page.until(lambda: page.page.inner_text("#memory .span") == "4.0 s")
    assert page.page.inner_text("#memory .none").startswith("Nothing")
    for _ in range(2):
        page.page.focus("#screen")
        page.page.keyboard.press("KeyM")
        page.until(lambda: not room._player.asks_seen)
        assert page.page.evaluate("worldsim.memory.isOn") is False
        page.page.reload()
        page.state("live")
        assert page.page.evaluate("worldsim.memory.isOn") is False
        page.page.keyboard.press("KeyM")
        page.until(lambda: room._player.asks_seen)
        served.cut()
        page.state("lost")
        page.state("live")
        page.until(lambda: room._player and room._player.asks_seen)


def test_the_map_shows_the_places_that_are_remembered(page, served):
    page.page.wait_for_selector("#memory .map", state="visible")
    page.pause()
    (room,) = served.server.hall.rooms.values()
    page.until(
        lambda: page.page.inner_text("#memory .count") == f"{room._stage.live.session.land().known.sum()} places"
    )
    rows, columns = room._stage.live.session.land().known.shape
    assert page.page.evaluate("(({ width, height }) => [width, height])(document.querySelector('#memory .map'))") == [
        6 * columns,
        6 * rows,
    ]


def test_on_a_telephone_the_memory_is_closed_until_it_is_asked_for(phone, served):
    (room,) = served.server.hall.rooms.values()
    phone.until(lambda: phone.page.evaluate("worldsim.blocks") >= 2)
    assert (phone.page.evaluate("worldsim.memory.isOn"), room._player.asks_seen) == (False, False)
    phone.page.tap("#memory summary")
    phone.until(lambda: room._player.asks_seen)
    phone.until(lambda: tiles(phone, "film"))
    assert phone.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.fixture
def phone(browser: Any, served: Served) -> Iterator[Shown]:
    """The page on a telephone that is held upright."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    shown = Shown(context.new_page())
    yield shown.open(served.url)
    assert shown.problems == []
    context.close()


def middle(shown: Shown, key: str) -> dict[str, float]:
    """Where that button of the touch pad is."""
    box = shown.page.locator(f"#pad [data-key={key}]").bounding_box()
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def test_fingers_walk_on_the_touch_pad_and_slide_from_one_arrow_to_another(phone):
    phone.page.touchscreen.tap(**middle(phone, "ArrowRight"))
    phone.until(lambda: phone.page.evaluate("worldsim.hands.number") >= 1)
    fingers = phone.page.context.new_cdp_session(phone.page)
    for kind, key in (("touchStart", "ArrowRight"), ("touchMove", "ArrowDown")):
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [middle(phone, key)]})
        phone.until(lambda key=key: phone.page.evaluate("worldsim.link.keys") == [key])
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    phone.until(lambda: phone.page.evaluate("worldsim.link.keys") == [])


def test_a_finger_is_asked_whether_to_go_back_or_to_fork(phone):
    phone.until(lambda: phone.page.evaluate("worldsim.blocks") >= 12)  # past the second picture, which is of block 9
    phone.pause()
    phone.page.locator("#timeline button").nth(1).tap()
    with phone.page.context.expect_page() as opened:
        phone.page.locator("#there button:text('Fork at 0:01')").tap()
    twin = Shown(opened.value)
    twin.state("live")
    twin.until(lambda: twin.page.evaluate("worldsim.epoch === 1 && worldsim.timeline.near === 0"))
    phone.page.locator("#timeline button").nth(1).tap()
    phone.page.locator("#there button:text('Back to 0:01')").tap()
    phone.until(lambda: phone.page.evaluate("worldsim.blocks") == 9)
    assert not phone.page.is_visible("#there")


@pytest.mark.parametrize(("width", "height"), [(802, 293), (667, 375)])
def test_a_telephone_that_is_held_sideways_shows_the_world_between_the_thumbs(phone, width, height):
    phone.page.set_viewport_size({"width": width, "height": height})
    phone.until(lambda: phone.page.evaluate("document.getElementById('screen').getBoundingClientRect().width") == 288)
    for box in phone.page.evaluate("""() => [...document.querySelectorAll("#screen, #pad button")].map((one) => {
      const { left, top, right, bottom } = one.getBoundingClientRect();
      return [left, top, right, bottom];
    })"""):
        assert min(box) >= 0
        assert box[2] <= width
        assert box[3] <= height


def test_a_recording_is_a_film_of_what_was_shown_with_its_keys(page):
    page.pause()
    record(page)
    page.page.click("#record")
    assert filmed(page) == 3


@pytest.mark.parametrize("when", ["while it is made", "after the stop", "while it arrives"])
def test_a_film_comes_whole_however_its_page_is_cut_off(page, served, monkeypatch, when):
    end, piece, cuts = Stage.end_film, Viewer._piece, iter(range(2))

    def cut(viewer: Viewer) -> None:
        if next(cuts, None) is not None:
            viewer._connection.transport.abort()

    async def end_and_cut(stage: Stage) -> Any:
        film = await end(stage)
        cut(next(iter(served.server.hall.rooms.values()))._player)
        return film

    def piece_and_cut(viewer: Viewer) -> bytes | None:
        if viewer._file is not None:
            cut(viewer)
        return piece(viewer)

    page.pause()
    record(page)
    if when == "while it is made":
        page.page.reload()
        page.state("paused")
        page.page.evaluate(KEEP)
        assert page.page.inner_text("#record") == "Stop"
    elif when == "after the stop":
        monkeypatch.setattr(Stage, "end_film", end_and_cut)
    else:
        monkeypatch.setattr(Viewer, "_piece", piece_and_cut)
    page.page.click("#record")
    assert filmed(page) == 3


def test_a_film_that_was_made_when_the_server_stopped_is_fetched_from_the_next_one(browser, world, tmp_path, context):
    served = Served(world, tmp_path)
    page = Shown(context.new_page()).open(served.url)
    page.pause()
    record(page)
    port = served.server.port
    served.close()
    again = Served(worldsim.load("crafter"), tmp_path, port=port)
    try:
        assert filmed(page) == 3
    finally:
        again.close()


def test_living_again_is_shown_with_its_progress_and_done_once(browser, world, tmp_path, context, monkeypatch):
    step, load, loaded = Stage.step, Stage.load.__func__, []

    async def slow(stage: Stage, keys: Any) -> Any:
        await asyncio.sleep(0.15 if loaded else 0)
        return await step(stage, keys)

    async def count(cls: Any, *arguments: Any, **named: Any) -> Stage:
        loaded.append(arguments)
        return await load(cls, *arguments, **named)

    monkeypatch.setattr(Stage, "step", slow)
    monkeypatch.setattr(Stage, "load", classmethod(count))
    monkeypatch.setattr(Stage, "put_away", lambda stage: asyncio.sleep(0))
    served = Served(world, tmp_path, resume_s=0.0)
    try:
        page = Shown(context.new_page()).open(served.url)
        page.until(lambda: page.page.evaluate("worldsim.blocks") >= 17)
        pictures = page.page.locator("#timeline li").count()
        served.cut()
        page.state("ended")
        page.page.evaluate("""() => {
          const button = document.querySelector("#choices button");
          for (let click = 0; click < 3; click += 1) button.click();
        }""")
        assert "Living it again: " in page.state("reliving")
        assert page.page.evaluate("[lived.hidden, lived.value > 0, document.querySelector('aside').inert]") == [
            False,
            True,
            True,
        ]
        page.state("live")
        assert page.page.evaluate("[lived.hidden, document.querySelector('aside').inert]") == [True, False]
        assert len(loaded) == 1
        assert page.page.locator("#timeline li.far").count() in (pictures - 1, pictures)
    finally:
        served.close()


def test_a_server_that_falls_silent_is_noticed_and_one_that_only_rests_is_not(context, served):
    context.route("**/link.js", quick)
    page = Shown(context.new_page()).open(served.url)
    page.pause()
    page.page.evaluate("window.first = worldsim.link.socket")
    page.page.wait_for_timeout(1_500)
    assert page.page.evaluate("worldsim.link.socket === first")
    served._loop.call_soon_threadsafe(time.sleep, 3)
    assert page.state("lost").startswith("The server does not answer.")
    page.state("paused")


def quick(route: Any) -> None:
    """A link that loses patience ten times sooner."""
    response = route.fetch()
    text = response.text()
    assert "const TICK_MS = 2000;" in text
    route.fulfill(response=response, body=text.replace("const TICK_MS = 2000;", "const TICK_MS = 200;"))


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
    shown.page.evaluate("pad.axes = [0.9, 0]")
    shown.until(lambda: shown.page.evaluate(held) == ["ArrowRight"])
    shown.page.evaluate("navigator.getGamepads = () => [null, null]")
    shown.until(lambda: shown.page.evaluate(held) == [])
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
