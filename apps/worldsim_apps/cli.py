"""The command `worldsim`: generate a walk, live one again, record and train a world, say what is here.

Exit codes: 0 done; 1 something that the bundled world needs is missing, says `doctor`; 2 wrong input, told in one line
on stderr; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from worldsim.presets import WorldRecipe

# Importing torch takes seconds, so everything that needs it is imported inside the commands: --help and a mistyped
# option answer at once.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Worlds that are generated block by block while somebody is inside them.",
)

Name = Annotated[str, typer.Argument(help="Which world.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")]
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give equal results.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, or a GPU by torch's name for it.")]
Weights = Annotated[Path | None, typer.Option(help="A weights file of worldsim train in place of the shipped one.")]
Script = Annotated[
    Path | None, typer.Option(help='JSON lines such as {"block": 12, "keys": ["KeyW"]}; without it, wait.')
]
Start = Annotated[int | None, typer.Option(help="Which of its starting places; by default one drawn by the seed.")]
Steps = Annotated[int | None, typer.Option(help="Backbone calls that denoise a block; by default the world's own.")]
Log = Annotated[Path | None, typer.Option(help="A new file for the log of the walk, which worldsim replay reads.")]
Policy = Annotated[
    str | None,
    typer.Option(help="What a block sees of the past, such as window:frames=32; by default the world's own."),
]
Kv = Annotated[
    str | None,
    typer.Option(help="How older keys and values are kept, such as int8 or kivi2:recent=16; by default exactly."),
]
Noise = Annotated[
    str,
    typer.Option(help="Noise that blocks begin with, such as cosine:low=60,period=32 or shuffled:window=4."),
]
NoCleanPass = Annotated[
    bool, typer.Option("--no-clean-pass", help="A block is a call less, and later ones see what its last call saw.")
]
Budget = Annotated[
    str | None,
    typer.Option(help="Memory for keys and values, such as 256MB; others lie on disk. By default all lie in memory."),
]
Spill = Annotated[
    Path | None, typer.Option(help="Folder that those beyond it lie in; by default the system's for temporary files.")
]
Explain = Annotated[
    Path | None, typer.Option(help="A .png that shows how much attention each block paid to what lies how far back.")
]
STOPPED = 130


class Refused(Exception):
    """What was asked cannot be done; the text says why, to the user."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what worldsim and the file system refuse into a line for the user."""
    from worldsim.errors import WorldSimError

    try:
        yield
    except (WorldSimError, OSError) as error:
        raise Refused(str(error)) from error


@app.command()
@refusals()
def generate(
    world: Annotated[str, typer.Option(help="Which world.")] = "crafter",
    actions: Script = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON lines for a world that is told in words.")] = None,
    seconds: Annotated[float, typer.Option(help="How much world time.")] = 20.0,
    seed: Seed = 0,
    start: Start = None,
    policy: Policy = None,
    kv: Kv = None,
    budget: Budget = None,
    spill: Spill = None,
    noise: Noise = "plain",
    no_clean_pass: NoCleanPass = False,
    steps: Steps = None,
    frames_per_block: Annotated[int, typer.Option(help="Frames made at once.")] = 1,
    device: Device = "auto",
    weights: Weights = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The video, an .mp4 file.")] = Path("out/world.mp4"),
    log: Log = None,
    explain: Explain = None,
    as_json: Json = False,
) -> int:
    """Walk through a learned world under scripted keys, and write what is seen as a video."""
    import worldsim
    from worldsim_apps.actions import Actions, read_actions
    from worldsim_apps.explain import Explained
    from worldsim_apps.generate import film
    from worldsim_apps.progress import progress

    _check_walk(seconds, output, log, explain)
    place = worldsim.load(
        world,
        device=device,
        policy=policy,
        steps=steps,
        frames_per_block=frames_per_block,
        weights=weights,
        kv=kv,
        noise=noise,
        clean_pass=not no_clean_pass,
        budget=budget,
        spill=spill,
    )
    _refuse_prompts(prompts, world)
    script = read_actions(actions, place.controls) if actions else Actions()
    frames = max(1, round(seconds * place.fps))
    explained = Explained(place, explain)
    with (
        place.open(seed=seed, start=start, log=log) as session,
        progress(f"generate {world}", frames, quiet=as_json) as bar,
    ):
        on_frames = explained.follow(session, bar.advance)
        made = film(place, session, script, output, frames=frames, on_frames=on_frames)
        pages, tiers = asdict(place.pool.bytes), asdict(place.pool.tier_bytes)
    fields = {"world": world, "seed": seed, "start": start, "kv": kv, "kv_bytes": pages, "noise": noise}
    fields |= {"budget": budget, "tier_bytes": tiers} | made.to_dict() | explained.write()
    _report(fields if as_json else str(made))
    return STOPPED if made.stopped else 0


@app.command()
@refusals()
def replay(
    log: Annotated[Path, typer.Argument(help="A log that a session wrote.", show_default=False)],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every block with what was recorded of it, bit for bit.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A video of it, an .mp4 file; without it, none.")
    ] = None,
    device: Device = "auto",
    weights: Annotated[
        Path | None, typer.Option(help="The weights file it was lived with, if not the shipped one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Live a session again from its log alone."""
    from worldsim.presets import world_of
    from worldsim.runtime.journal import read_log
    from worldsim_apps.generate import film_log
    from worldsim_apps.progress import progress

    read = read_log(log)
    world = world_of(read, device=device, weights=weights)
    blocks = len(read.steps)
    with progress(f"replay {log}", max(1, blocks), quiet=as_json) as bar:
        film_log(world, read, output, verify=verify, on_block=lambda: bar.advance(1))
    done = "are as they were recorded, bit for bit" if verify else "were made again, and compared with nothing"
    torn = f"; a record after them, of which {read.torn} bytes were written, was left out" if read.torn else ""
    text = f"{log}: {blocks} blocks {done}{torn}" + (f"; {output}" if output else "")
    fields = {
        "log": str(log),
        "blocks": blocks,
        "torn_bytes": read.torn,
        "verified": verify,
        "output": str(output) if output else None,
    }
    _report(fields if as_json else text)


@app.command()
@refusals()
def serve(
    world: Annotated[str, typer.Option(help="Which world.")] = "crafter",
    host: Annotated[str, typer.Option(help="The address to listen at; any other than this machine needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen at; 0 is any that is free.")] = 8765,
    max_sessions: Annotated[
        int | None, typer.Option(min=1, help="Sessions at once; by default as many as there is memory for.")
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="WORLDSIM_TOKEN", show_envvar=True, help="What clients must know to connect.")
    ] = "",
    origin: Annotated[list[str] | None, typer.Option(help="A page of another server that may connect.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="Another name of this server, such as host:port.")] = None,
    folder: Annotated[Path, typer.Option(help="Where worlds are kept: logs, and what was saved.")] = Path("worlds"),
    frames_per_block: Annotated[int, typer.Option(help="Frames made at once.")] = 1,
    device: Device = "auto",
    weights: Weights = None,
    show: Annotated[bool, typer.Option("--open", help="Open the player page in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Serve a world over WebSocket, and a page to play it, until SIGTERM or Ctrl-C; every world is then saved."""
    import asyncio
    import webbrowser

    import worldsim
    from worldsim_apps.gate import Door
    from worldsim_apps.server import Settings, run

    door = Door(host=host, port=port, token=token, origins=tuple(origin or ()), hosts=tuple(name or ()))
    settings = Settings(door=door, folder=folder, sessions=max_sessions)
    loaded = worldsim.load(world, device=device, frames_per_block=frames_per_block, weights=weights)

    def on_ready(port: int) -> None:
        place = f"{f'[{host}]' if ':' in host else host}:{port}"
        page, url = f"http://{place}/", f"ws://{place}/v1/world"
        fields = {"world": world, "page": page, "url": url, "folder": str(folder)}
        _report(fields if as_json else f"{world} is played at {page} and served at {url}")
        if show and not webbrowser.open(page):
            typer.echo(f"no browser could be opened here; open {page} in one", err=True)

    asyncio.run(run(loaded, settings, on_ready))


@app.command()
@refusals()
def ui(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port of the page; 0 is any that is free.")] = 7860,
    folder: Annotated[Path, typer.Option(help="Where worlds are kept: logs, and what was saved.")] = Path("worlds"),
    device: Device = "auto",
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Choose worlds, play them, fork them side by side and see what they cost, on a page for this machine alone."""
    import webbrowser

    from worldsim_apps.ui import UiSettings, run

    def on_ready(page: str) -> None:
        _report({"page": page, "folder": str(folder)} if as_json else f"worlds are chosen and played at {page}")
        if show and not webbrowser.open(page):
            typer.echo(f"no browser could be opened here; open {page} in one", err=True)

    run(UiSettings(port=port, folder=folder, device=device), on_ready)


@app.command()
@refusals()
def record(
    name: Name,
    frames: Annotated[int, typer.Option(help="At least so many frames.")] = 100_000,
    seed: Seed = 0,
    held_out: Annotated[bool, typer.Option("--held-out", help="Episodes to judge by, never trained on.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that play at once; they change nothing else.")] = 1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder; by default data/NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Play a world's real engine and write what was seen and pressed; what is there already stays."""
    from worldsim.training.data import Series
    from worldsim.training.data import record as play
    from worldsim_apps.progress import progress

    recipe = _recipe(name)
    folder = output or Path("data") / name
    with progress(f"record {name}", frames, quiet=as_json) as bar:
        kept = play(
            recipe.recording,
            folder,
            Series(seed=seed, held_out=held_out),
            frames=frames,
            workers=workers,
            on_frames=bar.advance,
        )
    fields = {"world": name, "output": str(folder), "seed": seed, "held_out": held_out, **kept}
    _report(fields if as_json else f"{folder}: {kept['frames']} frames")


@app.command()
@refusals()
def train(
    name: Name,
    data: Annotated[
        Path | None, typer.Option(help="Where it was recorded, held-out episodes too; by default data/NAME.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where weights, checkpoint and log go; by default runs/NAME.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this long; by default the plan decides.")] = None,
    updates: Annotated[int | None, typer.Option(help="Stop after so many in all; by default the plan decides.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the layers: pays in runs of over ten minutes.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the folder.")] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Begin from this weights file; by default from random weights.")
    ] = None,
    recalling: Annotated[
        bool, typer.Option("--recalling", help="Teach weights that remember no places to recall them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a world on what was recorded, judged on held-out episodes as it goes."""
    from worldsim.runtime.devices import pick_device
    from worldsim.training.run import WEIGHTS, Run, train_world
    from worldsim_apps.progress import progress

    recipe = _recipe(name)
    run = Run(
        device=pick_device(device),
        seed=seed,
        minutes=minutes,
        updates=updates,
        resume=resume,
        weights=weights,
        compiled=compiled,
        recalling=recalling,
    )
    planned = recipe.plan_for(run.device, recalling=recalling).updates
    last = min(planned, updates or planned)
    folder = out or Path("runs") / name
    began = monotonic()
    with progress(f"train {name}", 1.0, quiet=as_json) as bar:

        def on_update(update: int, loss: float) -> None:
            spent = (monotonic() - began) / (60 * minutes) if minutes else 0.0
            bar.reach(max(update / last, spent), f"loss {loss:.4f}")

        judged = train_world(recipe, data or Path("data") / name, folder, run, on_update=on_update)
    text = (
        f"{folder / WEIGHTS}: after {judged['update']} updates {judged['tiles']:.1%} of the tiles one block ahead are "
        f"right; had nothing moved, {judged['still']:.1%}"
    )
    _report({"world": name, "output": str(folder), "seed": seed, **judged} if as_json else text)


@app.command()
@refusals()
def info(
    world: Annotated[str | None, typer.Argument(help="A world, to see its card.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Say what is here: this machine, the worlds, and the card of one of them."""
    from worldsim.presets import WORLDS
    from worldsim_apps.machine import machine

    fields: dict[str, Any] = {"machine": machine(), "worlds": sorted(WORLDS)}
    if world is not None:
        fields = {"world": _describe(world), **fields}
    _report(fields if as_json else "\n".join(_lines(fields)))


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say what works here and what to do about the rest; exits with 1 if the bundled world cannot be lived in."""
    from worldsim_apps.doctor import examine, is_fit, table

    checks = [*examine()]
    fit = is_fit(checks)
    _report({"fit": fit, "checks": [check.to_dict() for check in checks]} if as_json else table(checks))
    return 0 if fit else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process; returns the exit code."""
    try:
        # Not standalone: typer then raises what it would otherwise frame in a box of many lines.
        code = app(arguments, prog_name="worldsim", standalone_mode=False) or 0
    except typer.TyperException as error:
        code, message = 2, f"{error.format_message()} worldsim --help says what fits."
    except Refused as error:
        code, message = 2, str(error)
    else:
        message = "stopped by Ctrl-C" if code == STOPPED else ""
    if message:
        typer.echo(f"worldsim: {' '.join(message.split())}", err=True)
    return int(code)


def _check_walk(seconds: float, output: Path, log: Path | None, explain: Path | None) -> None:
    """Refuse a length of time that is none, and two results in one file."""
    if not 0 < seconds < math.inf:
        raise Refused(f"--seconds is a length of time above 0, got {seconds}")
    results = {"the video": output, "the log": log, "what is explained": explain}
    taken: dict[Path, str] = {}
    for what, path in results.items():
        other = taken.setdefault(path.resolve(), what) if path is not None else what
        if other != what:
            raise Refused(f"{other} and {what} are both {path}; give each a file of its own")


def _refuse_prompts(path: Path | None, world: str) -> None:
    """Say what is wrong with a prompts file, if there is one; if nothing is, that no world there is takes one."""
    if path is None:
        return
    from worldsim_apps.actions import read_prompts

    read_prompts(path)
    raise Refused(f"{world} is steered by keys alone and takes no prompts; leave --prompts out, and give it --actions")


def _recipe(name: str) -> WorldRecipe:
    from worldsim.errors import UnknownName
    from worldsim.presets import WORLDS

    if name not in WORLDS:
        raise UnknownName("world", name, WORLDS)
    return WORLDS[name]


def _describe(name: str) -> dict[str, Any]:
    """What is known of a world, with its card if its weights are in the package."""
    from worldsim.errors import NotShipped
    from worldsim.presets import card

    engine = _recipe(name).simulator()
    try:
        known = card(name)
    except NotShipped as error:
        known = {"weights": str(error)}
    keys = {action.name: " ".join(action.keys) for action in engine.controls.actions}
    return {"name": name, "fps": engine.fps, "size": list(engine.size), "keys": keys, "card": known}


def _report(result: str | dict[str, Any]) -> None:
    typer.echo(result if isinstance(result, str) else json.dumps(result))


def _lines(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
