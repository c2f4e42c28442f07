"""The page around the player: what is chosen is walked in, and nothing on it is wider than a phone."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.apps.browsing import browsing
from worldsim.errors import installing
from worldsim.runtime.snapshot import read_snapshot
from worldsim.simulators.crafter import CONTROLS
from worldsim_apps.cli import main
from worldsim_apps.meter import STAGES
from worldsim_apps.places import Places

pytestmark = [
    pytest.mark.timeout(180),
    # Gradio leaves the sockets and the loops of its own threads to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # Its queue asks pandas 3 for an option and for a keyword that are going away.
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
    pytest.mark.filterwarnings("ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning"),
]
RUN = "import sys; from worldsim_apps.cli import main; sys.exit(main())"
LONGEST_S = 40.0
FIRST, BESIDE = ".players > div:first-child iframe", ".twin iframe"
PIXELS = "document.getElementById('screen').toDataURL()"
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def ui() -> Iterator[Any]:
    pytest.importorskip("gradio", reason=f"the page needs gradio: {installing('ui')}")
    import worldsim_apps.ui

    yield worldsim_apps.ui
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)  # gradio leaves one behind, which is to be collected here and nowhere else
        gc.collect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def url(ui: Any, folder: Path) -> Iterator[str]:
    with ui.opened(ui.UiSettings(port=0, folder=folder)) as found:
        yield found


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Any]:
    with browsing() as found:
        yield found


class Around:
    """The page in a browser; `player` is what is shown in one of its frames.

    problems: what the browser complained about, but for Gradio's own plots, which warn of their version.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _hear(self, told: Any) -> None:
        if told.type in ("error", "warning") and "current version of Vega-Lite" not in told.text:
            self.problems.append(told.text)

    def until(self, is_so: Callable[[], Any]) -> Any:
        end = monotonic() + LONGEST_S
        while not (found := is_so()):
            assert monotonic() < end, self.page.inner_text("body")
            sleep(0.05)
        return found

    def walk(self) -> Any:
        before = self.page.locator(FIRST).get_attribute("src") if self.page.locator(FIRST).count() else ""
        self.page.click("#walk")
        self.until(lambda: self.page.locator(FIRST).count())
        self.until(lambda: self.page.locator(FIRST).get_attribute("src") != before)
        walk = self.page.locator(FIRST).get_attribute("src").partition("#")[0]
        self.until(lambda: walk in self.page.query_selector(FIRST).content_frame().url)  # until then it is the old one
        return self.player()

    def player(self, which: str = FIRST) -> Any:
        """The frame of a player, in which a world is lived in."""
        self.page.wait_for_selector(which, timeout=LONGEST_S * 1_000)
        frame = self.page.query_selector(which).content_frame()
        frame.wait_for_selector("#state[data-state=live]", timeout=LONGEST_S * 1_000)
        self.until(lambda: frame.evaluate("worldsim.blocks") > 0)
        return frame

    def pause(self, frame: Any) -> int:
        frame.click("#pause")
        frame.wait_for_selector("#state[data-state=paused]")
        blocks = frame.evaluate("worldsim.link.control('look')")["blocks"]
        self.until(lambda: frame.evaluate("worldsim.blocks") == blocks)
        return int(blocks)

    def step(self, frame: Any, key: str) -> str:
        """The picture, as text, of one more block of a paused world under a key of the keyboard."""
        before = frame.evaluate("worldsim.blocks")
        frame.focus("#screen")
        self.page.keyboard.down(key)
        frame.evaluate("worldsim.link.control('step', { blocks: 1 })")
        self.until(lambda: frame.evaluate("worldsim.blocks") == before + 1)
        self.page.keyboard.up(key)
        return str(frame.evaluate(PIXELS))

    def is_too_wide(self) -> bool:
        # Not window.innerWidth: a phone zooms out until all of a page that is too wide is in the window.
        return bool(self.page.evaluate("document.documentElement.scrollWidth") > self.page.viewport_size["width"])


@pytest.fixture
def around(browser: Any, url: str) -> Iterator[Around]:
    """The page, wide; the browser has nothing to complain about at its end."""
    context = browser.new_context(viewport=WIDE)
    found = Around(context.new_page())
    found.page.goto(url)
    found.page.wait_for_selector("#walk")
    yield found
    context.close()
    assert found.problems == []


@pytest.fixture
def desk(ui: Any, tmp_path: Path) -> Iterator[Any]:
    with Places(tmp_path) as places:
        yield ui.Desk(places)


GOOD: dict[str, Any] = {"world": "crafter", "policy": "full", "steps": 1, "frames_per_block": 1, "seed": 0, "start": 0}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"policy": "windw:frames=24"}, "there is no policy &#x27;windw&#x27;"),
        ({"policy": None}, "there is no policy"),
        ({"policy": "<b>"}, "&lt;b&gt;"),
        ({"policy": f"window:frames={'9' * 5_000}"}, "a whole number of at most 18 digits"),
        ({"steps": 9}, "1 to 4 steps, got 9"),
        ({"steps": None}, "1 to 4 steps, got 0"),
        ({"frames_per_block": 3}, "blocks of 1, 2, 4 frames"),
        ({"world": "atlantis"}, "there is no world"),
        ({"seed": -1}, "a seed is a whole number from 0"),
        ({"seed": None}, "a seed is a whole number from 0"),
        ({"seed": 2**53}, "a seed is a whole number from 0"),
        ({"start": 8}, "a number from 0 to 7, got 8"),
        ({"start": -1}, "a number from 0 to 7, got -1"),
    ],
)
def test_what_cannot_be_walked_in_is_told_and_nothing_is_loaded(desk, wrong, text):
    player, line = desk.walk(**(GOOD | wrong))
    assert "iframe" not in str(player)
    assert 'class="told alarm" role="alert"' in line
    assert text in line
    assert desk._places.hosted == ()


def test_a_folder_that_cannot_be_made_is_told_on_the_page(ui, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with Places(tmp_path / "file" / "worlds") as places:
        player, line = ui.Desk(places).walk(**GOOD)
    assert "iframe" not in str(player)
    assert 'class="told alarm" role="alert"' in line
    assert str(tmp_path / "file" / "worlds") in line


def test_a_picture_is_enlarged_by_a_whole_factor(ui):
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    large = ui.enlarged(frame, 7)
    assert large.shape == (8, 12, 3)
    assert np.array_equal(large[::4, ::4], frame)
    assert np.array_equal(large[3::4, 3::4], frame)
    assert ui.enlarged(frame, 1).shape == frame.shape


def test_every_place_has_a_picture_of_its_own(desk):
    pictures = desk.thumbnails("crafter")
    assert [name for _, name in pictures] == [str(number) for number in range(1, 9)]
    assert len({picture.tobytes() for picture, _ in pictures}) == 8
    assert {picture.shape for picture, _ in pictures} == {(216, 216, 3)}


def test_every_key_is_in_the_table_and_moves_come_first(ui):
    table = ui.key_table(CONTROLS)
    for action in CONTROLS.actions:
        assert f"<dt>{action.name.replace('_', ' ')}</dt>" in table
        for key in action.keys:
            assert f"<kbd>{ui.cap(key)}</kbd>" in table
    assert table.index("<dt>move left</dt>") < table.index("<dt>do</dt>")


def test_a_saved_world_that_is_gone_is_told(desk, ui):
    player, line, *made = desk.go_on("0" * 32)
    assert "not there any more" in line
    assert "iframe" not in str(player)
    assert len(made) == ui.SHOWN


def test_the_controls_show_how_a_world_is_made(desk, ui):
    world, policy, steps, blocks, places, start, keys = shown = desk.shown(ui.default_of("crafter"))
    assert len(shown) == ui.SHOWN
    assert (world, policy, steps, start) == ("crafter", "window:frames=32", 2, 0)
    assert (blocks["choices"], blocks["value"]) == ([1, 2, 4], 1)
    assert len(places["value"]) == 8
    assert keys == ui.key_table(CONTROLS)


def test_another_name_that_leads_to_this_machine_is_refused(url):
    with urlopen(url, timeout=10) as answer:
        assert answer.status == 200
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(url, headers={"Host": "evil.example"}), timeout=10)
    assert refused.value.code == 400
    refused.value.close()


def test_without_gradio_it_is_said_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "worldsim_apps.ui", raising=False)
    assert main(["ui"]) == 2
    assert capsys.readouterr().err == f"worldsim: gradio is not installed; run: {installing('ui')}\n"


def test_a_port_that_is_taken_is_told_in_a_line(ui, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port), "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"worldsim: port {port} is taken; choose another with --port")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as it was


def test_the_command_says_where_the_page_is_and_ends_when_it_is_told_to(ui, tmp_path):
    command = [sys.executable, "-c", RUN, "ui", "--port", "0", "--json", "--folder", str(tmp_path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        told = json.loads(running.stdout.readline())
        with urlopen(told["page"], timeout=10) as answer:
            assert b"worldsim" in answer.read()
        running.send_signal(signal.SIGTERM)
        assert running.wait(LONGEST_S) == 0
    assert told["folder"] == str(tmp_path / "kept")


def test_what_was_chosen_is_walked_in_and_a_key_changes_the_picture(around, folder):
    around.page.wait_for_selector("#places button >> nth=7")
    around.page.click("#places button >> nth=3")
    around.page.fill("input[aria-label='Seed']", "7")
    around.page.click("input[type=radio][value='2']")
    around.page.fill("#policy input", "window:frames=8")
    around.page.keyboard.press("Enter")
    around.page.fill("input[aria-label^='number input for Steps']", "2")
    around.page.keyboard.press("Tab")
    frame = around.walk()
    around.pause(frame)
    pictures = {around.step(frame, "ArrowUp")}
    for key in ("ArrowLeft", "ArrowDown"):
        frame.evaluate("worldsim.link.control('rewind', { blocks: 1 })")
        pictures.add(around.step(frame, key))
    assert len(pictures) == 3  # of one moment, each under a key of its own
    log = read_snapshot(folder / f"{frame.evaluate('worldsim.link.control(`save`)')['world']}.world").log
    assert log.steps[-1].keys == {"ArrowDown"}
    opening = log.opening
    assert (opening.seed, opening.start) == (7, 3)
    assert (opening.plan["policy"], len(opening.plan["sigmas"])) == ("window:frames=8", 2)
    assert opening.plan["frames_per_block"] == 2
    assert "window:frames=8, 2 steps, blocks of 2 frames" in around.page.inner_text("#line")


def test_a_second_walk_begins_anew(around):
    world = around.walk().evaluate("worldsim.world")
    assert around.walk().evaluate("worldsim.world") != world


def test_a_fork_beside_its_parent_goes_its_own_way_and_can_be_closed(around):
    first = around.walk()
    blocks = around.pause(first)
    first.click("#fork")
    twin = around.player(BESIDE)
    made = around.pause(twin)
    if made > blocks:
        twin.evaluate("(blocks) => worldsim.link.control('rewind', { blocks })", made - blocks)
        around.until(lambda: twin.evaluate("worldsim.blocks") == blocks)
    assert around.step(first, "ArrowRight") == around.step(twin, "ArrowRight")
    assert around.step(first, "ArrowUp") != around.step(twin, "ArrowDown")
    assert first.evaluate("worldsim.world") != twin.evaluate("worldsim.world")
    assert twin.evaluate("sessionStorage.length") == 0  # which both would share
    boxes = [around.page.locator(which).bounding_box() for which in (FIRST, BESIDE)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert not around.is_too_wide()
    around.page.click(".close")
    around.until(lambda: around.page.locator(BESIDE).count() == 0)
    assert around.step(first, "ArrowLeft")


def test_a_saved_world_goes_on_where_it_was(around):
    frame = around.walk()
    around.pause(frame)
    around.step(frame, "ArrowRight")
    known = around.page.locator("#saved button").count()
    frame.click("#save")
    blocks = frame.evaluate("worldsim.blocks")
    future = [around.step(frame, key) for key in ("ArrowDown", "ArrowDown")]
    around.until(lambda: around.page.locator("#saved button").count() > known)
    around.page.click("#saved button >> nth=0")
    around.until(lambda: "#world=" in around.page.locator(FIRST).get_attribute("src"))
    later = around.player()
    made = around.pause(later)
    later.evaluate("(blocks) => worldsim.link.control('rewind', { blocks })", made - blocks)
    around.until(lambda: later.evaluate("worldsim.blocks") == blocks)
    assert [around.step(later, key) for key in ("ArrowDown", "ArrowDown")] == future


def test_the_plots_get_points_while_a_world_is_walked_in(around):
    around.walk()
    points = "[...document.querySelectorAll('#{} [aria-roledescription=point]')].map((one) => one.ariaLabel)"
    for name, unit in {"times": "ms a block", "memory": "MB", "pages": "pages"}.items():
        found = around.until(lambda name=name: around.page.evaluate(points.format(name)))
        assert all(unit in label for label in found)
    for stage in STAGES:
        around.until(lambda stage=stage: stage in str(around.page.evaluate(points.format("times"))))
    known = len(around.page.evaluate(points.format("memory")))
    around.until(lambda: len(around.page.evaluate(points.format("memory"))) > known)


def test_a_policy_that_is_none_is_told_on_the_page(around):
    around.page.fill("#policy input", "windw:frames=24")
    around.page.keyboard.press("Enter")
    around.page.click("#walk")
    around.page.wait_for_selector("#line .alarm")
    assert "there is no policy 'windw'" in around.page.inner_text("#line")
    assert around.page.locator("iframe").count() == 0


def test_a_seed_that_is_none_is_told_on_the_page(around):
    around.page.fill("input[aria-label='Seed']", "-5")
    around.page.keyboard.press("Tab")
    around.page.click("#walk")
    around.page.wait_for_selector("#line .alarm")
    assert "a seed is a whole number from 0 to 9007199254740991, got -5" in around.page.inner_text("#line")
    assert around.page.locator("iframe").count() == 0


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, url):
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    try:
        around = Around(context.new_page())
        around.page.goto(url)
        around.page.wait_for_selector("#places button >> nth=7")
        assert not around.is_too_wide()
        shelf = "document.querySelector('#places .grid-wrap')"
        assert around.page.evaluate(f"{shelf}.scrollWidth <= {shelf}.clientWidth")
        frame = around.walk()
        assert not around.is_too_wide()
        assert not frame.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        around.until(lambda: frame.evaluate("document.documentElement.scrollHeight <= window.innerHeight + 1"))
        frame.locator("#pad [data-key=ArrowRight]").tap()
        around.until(lambda: frame.evaluate("worldsim.hands.number >= 1"))
        assert around.problems == []
    finally:
        context.close()
