"""A page around the player: choose a world and begin it, fork it beside itself, go on in saved ones, see what it costs.

Gradio hands out the page and its still pictures. A world is played in the player page of its own server, shown in a
frame inside this one, so that no picture of it and no key goes through Gradio.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import count
from pathlib import Path
from threading import Event
from time import localtime, monotonic, strftime
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from worldsim.cache.policies import policy_text
from worldsim.controls import Controls
from worldsim.errors import ConfigError, MissingDependency, WorldSimError, installing
from worldsim.presets import WORLDS
from worldsim.runtime.starts import Starts
from worldsim_apps.meter import STAGES, Meter
from worldsim_apps.places import MOST_STEPS, Choice, Places, shipped_worlds
from worldsim_apps.saved import Saved, SavedWorlds

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
try:
    import gradio as gr
    import pandas as pd
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ModuleNotFoundError as error:
    raise MissingDependency(f"{error.name} is not installed; run: {installing('ui')}") from error

HOST = "127.0.0.1"
EVERY_S = 2.0
SHOWN = 7
POLICIES = ("window:frames=32", "window:frames=8", "sink:sink=4,window=20", "full")
MOST_SEED = 2**53 - 1
"""The largest whole number that a page can hand on as it is."""
THUMBNAIL_PX, CARD_PX = 216, 144
"""Starting places and saved worlds are enlarged by the whole factor that comes closest to this height."""
COLOURS = dict(zip(STAGES, ("#2f7d3b", "#b3801f", "#4f6fb3", "#a65a8a"), strict=True))
PALETTE = {
    "body_background_fill": ("#f6f5f1", "#141713"),
    "block_background_fill": ("#ffffff", "#1d211c"),
    "background_fill_primary": ("#ffffff", "#1d211c"),
    "background_fill_secondary": ("#f6f5f1", "#141713"),
    "body_text_color": ("#1d211c", "#eceee8"),
    "body_text_color_subdued": ("#62695f", "#9aa296"),
    "block_label_text_color": ("#62695f", "#9aa296"),
    "border_color_primary": ("#dcdcd2", "#333a31"),
    "input_background_fill": ("#ffffff", "#141713"),
    "input_border_color": ("#dcdcd2", "#333a31"),
    "input_border_width": ("1px", "1px"),
    "button_primary_background_fill": ("#2f7d3b", "#6cc07a"),
    "button_primary_background_fill_hover": ("#276a31", "#83cf8f"),
    "button_primary_text_color": ("#ffffff", "#10140f"),
    "slider_color": ("#2f7d3b", "#6cc07a"),
    "checkbox_background_color_selected": ("#2f7d3b", "#6cc07a"),
}
"""What Gradio calls them: by day and by night, as in web/style.css."""
ARROWS = {"ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓"}
TITLE = "<h1>worldsim <span>worlds that are made while you are in them</span></h1>"
WELCOME = """<div class="well"><strong>A world that is made while you are in it</strong>
<p>Choose a place and press Walk. Then hold the arrow keys; on a phone there are buttons.</p></div>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSettings:
    """How the page is run.

    port: where Gradio listens, on this machine alone; 0 is any that is free.
    folder: where worlds are kept.
    device: where they compute, as for worldsim.load.
    """

    port: int = 7860
    folder: Path = Path("worlds")
    device: str = "auto"


class Desk:
    """What the page does when something on it is pressed.

    Args:
        places: where worlds are played.
    """

    def __init__(self, places: Places) -> None:
        self.worlds = shipped_worlds()
        if not self.worlds:
            raise ConfigError("no world is shipped with this package; `worldsim doctor` says what to do")
        self._places = places
        self._meter = Meter(lambda: places.hosted)
        self._saved = SavedWorlds(places.folder)
        self._walks = count()

    def thumbnails(self, world: str) -> list[tuple[NDArray[np.uint8], str]]:
        """A picture uint8 [H, W, 3] of each starting place of a world, with its number for people."""
        starts = starts_of(world)
        last = (starts.get(number)[0][-1].numpy() for number in range(len(starts)))
        return [(enlarged(frame, THUMBNAIL_PX), str(number)) for number, frame in enumerate(last, 1)]

    def walk(
        self, world: str, policy: str, steps: float, frames_per_block: float, seed: float | None, start: int
    ) -> tuple[Any, str]:
        """The player of a world that begins, and a line that says how it is made, or why it cannot be."""
        try:
            choice = Choice(
                world=world, policy=policy or "", steps=int(steps or 0), frames_per_block=int(frames_per_block or 0)
            )
            if seed is None or not 0 <= seed <= MOST_SEED or seed != int(seed):
                raise ConfigError(f"a seed is a whole number from 0 to {MOST_SEED}, got {seed}")
            most = len(starts_of(world)) - 1
            if not 0 <= start <= most:
                raise ConfigError(f"a starting place is a number from 0 to {most}, got {start}")
            return self._player(choice, seed=int(seed), start=start), told(summary(choice))
        except (WorldSimError, OSError) as error:
            return gr.skip(), told(str(error), alarm=True)

    def go_on(self, name: str) -> tuple[Any, ...]:
        """The player of a saved world, a line about it, and what the controls show of how it was made."""
        found = next((saved for saved in self._saved.newest() if saved.name == name), None)
        try:
            if found is None:
                raise ConfigError("that world is not there any more")
            player = self._player(found.choice, world=name)
        except (WorldSimError, OSError) as error:
            return gr.skip(), told(str(error), alarm=True), *[gr.skip()] * SHOWN
        line = told(f"Saved {when(found)}, {lived(found.seconds)} long. {summary(found.choice)}")
        return player, line, *self.shown(found.choice)

    def shown(self, choice: Choice) -> tuple[Any, ...]:
        """What the controls show of a choice: SHOWN things, the first place among them."""
        blocks = gr.update(choices=list(choice.recipe.blocks), value=choice.frames_per_block)
        places = gr.update(value=self.thumbnails(choice.world), selected_index=0)
        return choice.world, choice.policy, choice.steps, blocks, places, 0, keys_of(choice.world)

    def kept(self, known: Sequence[str]) -> tuple[Any, Any, Any]:
        """The pictures of the saved worlds, their names and whether there is none, if others than those are known."""
        found = self._saved.newest()
        names = [saved.name for saved in found]
        if names == list(known):
            return gr.skip(), gr.skip(), gr.skip()
        cards = [(enlarged(saved.frame, CARD_PX), f"{when(saved)}, {lived(saved.seconds)}") for saved in found]
        return gr.update(value=cards, visible=bool(cards)), names, gr.update(visible=not cards)

    def plots(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """What blocks took, what memory the process held and how many pages were in use, over the last minutes."""
        readings = self._meter.read(now := monotonic())
        ago = [round(reading.at_s - now, 1) for reading in readings]
        blocks = [
            (at, round(ms, 2), stage)
            for at, one in zip(ago, readings, strict=True)
            for stage, ms in one.blocks_ms.items()
        ]
        return (
            # The plot never learns of a stage that it was not first drawn with, nor that an empty column has numbers.
            pd.DataFrame(blocks or [(0.0, 0.0, stage) for stage in STAGES], columns=["seconds", "ms", "stage"]),
            pd.DataFrame({"seconds": ago, "MB": [round(reading.resident_mb) for reading in readings]}),
            pd.DataFrame({"seconds": ago, "pages": [reading.pages for reading in readings]}),
        )

    def _player(self, choice: Choice, **asked: Any) -> str:
        """The frame with the player page of a choice, which begins what is asked of it."""
        # The number makes it another page: one that is the same would go on instead of beginning anew.
        query = urlencode({"embed": "first", "walk": next(self._walks)})
        url = f"{self._places.open(choice).url}?{query}#{urlencode(asked)}"
        return (
            f'<div class="players"><div><iframe src="{escape(url)}" title="The world" '
            'allow="gamepad; clipboard-write"></iframe></div>'
            '<div class="twin"><button type="button" class="close" aria-label="Close the fork">&times;</button></div>'
            "</div>"
        )


def default_of(world: str) -> Choice:
    """How a world is made if nobody says."""
    recipe = WORLDS[world]
    policy, frames_per_block = policy_text(recipe.policy), recipe.blocks[0]
    return Choice(world=world, policy=policy, steps=recipe.steps, frames_per_block=frames_per_block)


def starts_of(world: str) -> Starts:
    """The starting places that come with a world, read without its weights."""
    path = WORLDS[world].folder / "starts.safetensors"
    return Starts.load(path) if path.exists() else Starts.none()


def enlarged(frame: NDArray[np.uint8], height_px: int) -> NDArray[np.uint8]:
    """A frame uint8 [H, W, 3], every pixel a square of them, about so high."""
    factor = max(1, round(height_px / frame.shape[0]))
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def told(text: str, *, alarm: bool = False) -> str:
    """A line that says what was done, or what is wrong."""
    kind, role = ("told alarm", "alert") if alarm else ("told", "status")
    return f'<p class="{kind}" role="{role}">{escape(text)}</p>'


def summary(choice: Choice) -> str:
    """How a world is made, in a line."""
    frames = "1 frame" if choice.frames_per_block == 1 else f"{choice.frames_per_block} frames"
    return f"{choice.world}: {choice.policy}, {choice.steps} steps, blocks of {frames}."


def when(saved: Saved) -> str:
    """The time of day that a world was saved at, or the day if that is another."""
    at, now = localtime(saved.saved_s), localtime()
    return strftime("%H:%M" if at[:3] == now[:3] else "%Y-%m-%d", at)


def lived(seconds: float) -> str:
    """A length of time in minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def key_table(controls: Controls) -> str:
    """What can be done in a world, and the keys for it."""
    moves_first = sorted(controls.actions, key=lambda action: not ARROWS.keys() & set(action.keys))
    rows = (
        f"<div><dt>{escape(action.name.replace('_', ' '))}</dt><dd>"
        + "".join(f"<kbd>{escape(cap(key))}</kbd>" for key in action.keys)
        + "</dd></div>"
        for action in moves_first
    )
    return (
        f'<dl class="keys">{"".join(rows)}</dl><p class="told">Keys count while the world has the focus: '
        "click it once. Of two worlds side by side the one with the focus is steered. A gamepad works too.</p>"
    )


def cap(key: str) -> str:
    """What stands on a key, by its W3C name."""
    return ARROWS.get(key, key.removeprefix("Key").removeprefix("Digit"))


def keys_of(world: str) -> str:
    """The key_table of a world."""
    return key_table(WORLDS[world].simulator().controls)


def build(desk: Desk) -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="worldsim", analytics_enabled=False, fill_width=True, delete_cache=(3_600, 3_600)) as page:
        gr.HTML(TITLE, elem_id="title", apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=7, min_width=300, elem_id="left"):
                player = gr.HTML(WELCOME, js_on_load=_text("ui.js"), elem_id="player", apply_default_css=False)
                with gr.Accordion("Keys", open=True, elem_id="keys"):
                    keys = gr.HTML(keys_of(desk.worlds[0]), apply_default_css=False)
            with gr.Column(scale=4, min_width=300):
                controls = _controls(desk, player, keys)
                names, shelf = _shelf(desk, player, controls)
        with gr.Accordion("What it costs", open=True):
            plots = _plots()
        timer = gr.Timer(EVERY_S)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        for look in (page.load, timer.tick):
            look(desk.plots, None, plots, **quiet)
            look(desk.kept, names, shelf, **quiet)
    return page


def _controls(desk: Desk, player: gr.HTML, keys: gr.HTML) -> list[Any]:
    """What a walk begins with; returns the line about it, and what Desk.shown fills."""
    first = default_of(desk.worlds[0])
    start = gr.State(0)
    with gr.Group():
        world = gr.Radio(list(desk.worlds), value=first.world, label="World")
        place = gr.Gallery(
            desk.thumbnails(first.world),
            label="Place",
            columns=4,
            selected_index=0,
            object_fit="contain",
            height="auto",
            allow_preview=False,
            interactive=False,
            format="png",
            buttons=[],
            elem_classes="pixels",
            elem_id="places",
        )
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, min_width=120)
            blocks = gr.Radio(
                list(first.recipe.blocks), value=first.frames_per_block, label="Frames per block", min_width=160
            )
        policy = gr.Dropdown(
            list(dict.fromkeys((first.policy, *POLICIES))),
            value=first.policy,
            label="Policy: what a block sees of the past",
            allow_custom_value=True,
            elem_id="policy",
        )
        steps = gr.Slider(1, MOST_STEPS, value=first.steps, step=1, label="Steps: backbone calls for a block")
    walk = gr.Button("Walk", variant="primary", elem_id="walk")
    line = gr.HTML(told("A block is what the model decides at once."), elem_id="line", apply_default_css=False)
    made = [world, policy, steps, blocks]

    def chosen(name: str) -> tuple[Any, ...]:
        return desk.shown(default_of(name))

    def placed(event: gr.SelectData) -> int:
        return int(event.index)

    shown = [*made, place, start, keys]
    world.input(chosen, world, shown, api_visibility="private")
    place.select(placed, None, start, show_progress="hidden", api_visibility="private")
    walk.click(desk.walk, [*made, seed, start], [player, line], api_visibility="private", show_progress_on=[player])
    return [line, *shown]


def _shelf(desk: Desk, player: gr.HTML, controls: list[Any]) -> tuple[gr.State, list[Any]]:
    """The saved worlds; returns the names that are shown, and all that changes with them."""
    names = gr.State([])
    with gr.Accordion("Saved worlds", open=True):
        none = gr.HTML('<p class="told">None yet. Save keeps a world as it is; one that is left is kept too.</p>')
        cards = gr.Gallery(
            [],
            columns=4,
            object_fit="contain",
            height="auto",
            allow_preview=False,
            interactive=False,
            format="png",
            visible=False,
            show_label=False,
            fit_columns=False,
            buttons=[],
            elem_classes="pixels",
            elem_id="saved",
        )

    def loaded(shown: list[str], event: gr.SelectData) -> tuple[Any, ...]:
        return desk.go_on(shown[event.index] if 0 <= event.index < len(shown) else "")

    cards.select(loaded, names, [player, *controls], api_visibility="private", show_progress_on=[player])
    return names, [cards, names, none]


def _plots() -> list[gr.LinePlot]:
    """Block time, memory and pages over the last minutes."""
    shared: dict[str, Any] = {"x": "seconds", "x_title": "seconds ago", "height": 250, "buttons": [], "min_width": 280}
    with gr.Row():
        return [
            gr.LinePlot(
                y="ms",
                color="stage",
                y_title="ms a block",
                label="Block time by stage",
                color_map=COLOURS,
                color_title=" ",
                colors_in_legend=list(STAGES),
                elem_id="times",
                **shared,
            ),
            gr.LinePlot(y="MB", y_title="MB", label="Memory of the process", elem_id="memory", **shared),
            gr.LinePlot(y="pages", y_title="pages", label="Pages in use", elem_id="pages", **shared),
        ]


def theme() -> gr.themes.Base:
    """The colours of the player page, and fonts that are on every machine."""
    base = gr.themes.Base(
        primary_hue="green",
        neutral_hue="stone",
        radius_size="md",
        spacing_size="sm",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    light = {name: colours[0] for name, colours in PALETTE.items()}
    dark = {f"{name}_dark": colours[1] for name, colours in PALETTE.items()}
    return base.set(**light, **dark, color_accent=PALETTE["slider_color"][0])


@contextmanager
def opened(settings: UiSettings) -> Iterator[str]:
    """The address of the page, for as long as the context lasts; then every world is saved.

    Raises:
        ConfigError: the port is taken, or no world is shipped.
    """
    port = _free_port(settings.port)
    pages = tuple(f"http://{name}:{port}" for name in (HOST, "localhost"))
    with Places(settings.folder, origins=pages, device=settings.device) as places:
        page = build(Desk(places))
        try:
            page.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                allowed_paths=[],
                max_file_size="1kb",
                footer_links=[],
                theme=theme(),
                css=_text("ui.css"),
                # Names that resolve to this machine but are none of its own would let other pages in.
                app_kwargs={
                    "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
                    "openapi_url": None,
                },
            )
            yield f"{pages[0]}/"
        finally:
            page.close(verbose=False)


def run(settings: UiSettings, on_ready: Callable[[str], None]) -> None:
    """Show the page until SIGTERM or Ctrl-C, then save every world.

    Args:
        settings: how.
        on_ready: told its address, once it is there.
    """
    stop = Event()
    with ExitStack() as ended:
        for number in (signal.SIGTERM, signal.SIGINT):
            ended.callback(signal.signal, number, signal.signal(number, lambda *_: stop.set()))
        on_ready(ended.enter_context(opened(settings)))
        stop.wait()


def _free_port(wanted: int) -> int:
    """That port, or any that is free if it is 0; Gradio has to know it before its page is built."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ConfigError(
                f"port {wanted} is taken; choose another with --port, or 0 for any that is free"
            ) from error
        return int(probe.getsockname()[1])


def _text(name: str) -> str:
    return (files("worldsim_apps") / name).read_text()
