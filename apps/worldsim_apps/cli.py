"""The command `worldsim`: generate a walk, live one again, record and train a world, say what is here.

Exit codes: 0 done; 1 something that the bundled world needs is missing, says `doctor`; 2 wrong input, told in one line
on stderr; 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from worldsim_apps.about import Ahead, ahead_of, ahead_of_log, describe, lines_of, pace_of, recipe_of, wan_recipe
from worldsim_apps.options import (
    Budget,
    Compiled,
    Device,
    Explain,
    FramesPerBlock,
    FromVideo,
    Image,
    Json,
    Kv,
    Linears,
    Log,
    ModelBudget,
    ModelKv,
    ModelPolicy,
    Name,
    NoCleanPass,
    Noise,
    Offload,
    OnPrompt,
    PlanOffload,
    Policy,
    Preview,
    Prompt,
    Prompts,
    Script,
    Seed,
    Size,
    Spill,
    Start,
    Steps,
    Video,
    Weights,
)
from worldsim_apps.telling import STOPPED, Refused, Stopped, misused, refusals, report, say, write_anything

# Importing torch takes seconds, so everything that needs it is imported inside the commands: --help and a mistyped
# option answer at once.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Worlds that are generated block by block while somebody is inside them.",
)


@app.command()
@refusals()
def generate(
    world: Annotated[str, typer.Option(help="Which world.")] = "crafter",
    actions: Script = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    seconds: Annotated[float, typer.Option(help="How much world time.")] = 20.0,
    seed: Seed = 0,
    start: Start = None,
    image: Image = None,
    video: FromVideo = None,
    policy: Policy = None,
    kv: Kv = None,
    budget: Budget = None,
    spill: Spill = None,
    noise: Noise = "plain",
    no_clean_pass: NoCleanPass = False,
    steps: Steps = None,
    frames_per_block: FramesPerBlock = None,
    size: Size = None,
    on_prompt: OnPrompt = None,
    preview: Preview = None,
    compiled: Compiled = False,
    linears: Linears = None,
    offload: Offload = None,
    device: Device = "auto",
    weights: Weights = None,
    output: Video = Path("out/world.mp4"),
    log: Log = None,
    explain: Explain = None,
    as_json: Json = False,
) -> int:
    """Walk through a learned world under scripted keys, and write what is seen as a video."""
    import worldsim
    from worldsim_apps.explain import Explained
    from worldsim_apps.generate import film, film_file, length_of, settings_of
    from worldsim_apps.progress import progress
    from worldsim_apps.results import check_files
    from worldsim_apps.walk import beginning, remark, script_of

    read = {"the picture": image, "what is gone on from": video, "the actions": actions, "the prompts": prompts}
    check_files({"the video": output, "the log": log, "what is explained": explain}, {**read, "the weights": weights})
    chosen: dict[str, Any] = {"policy": policy, "steps": steps, "frames_per_block": frames_per_block, "noise": noise}
    chosen |= {"kv": kv, "budget": budget, "spill": spill, "clean_pass": not no_clean_pass}
    chosen |= {"size": size, "on_prompt": on_prompt, "preview": preview, "compiled": compiled, "linears": linears}
    chosen["offload"] = offload
    ahead = _ahead_of_film(world, seconds, size, device)
    pace = pace_of(world, frames_per_block, goes_on=image is not None or video is not None)
    script = script_of(ahead, pace, actions, prompt, prompts)
    begun = beginning(ahead, image=image, video=video, start=start, policy=policy)
    place = worldsim.load(world, device=device, weights=weights, **chosen)
    explained = Explained(place, explain)
    frames = length_of(place, seconds, start=start, begun=begun)
    remark({actions: script.blocks, prompts: [*script.prompts]}, blocks=pace.blocks(frames))
    with (
        explained,
        film_file(place, output) as filmed,
        place.open(seed=seed, start=start, frames=begun, prompt=script.beginning, log=log) as session,
        progress("generate", frames, quiet=as_json) as bar,
    ):
        made = film(place, session, script, filmed, frames=frames, on_frames=explained.follow(session, bar.advance))
        pages, tiers = asdict(place.pool.bytes), asdict(place.pool.tier_bytes)
    fields = {"world": world, "seed": seed, "start": start, "kv": kv, "noise": noise, "budget": budget}
    fields |= settings_of(place)
    fields |= {"kv_bytes": pages, "tier_bytes": tiers} | made.to_dict() | explained.to_dict()
    report(fields if as_json else str(made))
    explained.draw()
    return STOPPED if made.stopped else 0


def _ahead_of_film(world: str, seconds: float, size: str | None, device: str) -> Ahead:
    """What is known of a world of which a film is to be made; it is refused if none can be so long or of that size."""
    from worldsim_apps.generate import check_film
    from worldsim_apps.results import check_seconds

    check_seconds(seconds)
    ahead = ahead_of(world, size, device)
    check_film(ahead.size)
    return ahead


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
    preview: Annotated[
        Path | None, typer.Option(help="The file of the tiny decoder it was lived with, if it was with one.")
    ] = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Live a session again from its log alone."""
    from worldsim.errors import counted
    from worldsim.presets import world_of
    from worldsim.runtime.journal import read_log
    from worldsim_apps.generate import check_film, film_log
    from worldsim_apps.progress import progress
    from worldsim_apps.results import check_files

    check_files({"the video": output}, {"the weights": weights, "the preview": preview})
    read = read_log(log)
    if output is not None:
        check_film(ahead_of_log(read, device).size)
    world = world_of(read, device=device, weights=weights, preview=preview, budget=budget)
    blocks = len(read.steps)
    with progress(f"replay {log}", max(1, blocks), quiet=as_json) as bar:
        film_log(world, read, output, verify=verify, on_block=lambda: bar.advance(1))
    done = "are as they were recorded, bit for bit" if verify else "were made again, and compared with nothing"
    torn = f"; a record after them, of which {read.torn} bytes were written, was left out" if read.torn else ""
    text = f"{log}: {counted(blocks, 'block')} {done}{torn}" + (f"; {output}" if output else "")
    fields = {
        "log": str(log),
        "blocks": blocks,
        "torn_bytes": read.torn,
        "verified": verify,
        "output": str(output) if output else None,
    }
    report(fields if as_json else text)


@app.command()
@refusals()
def serve(
    world: Annotated[str, typer.Option(help="Which world.")] = "crafter",
    host: Annotated[str, typer.Option(help="The address to listen at; any other than this machine needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen at; 0 is any that is free.")] = 8765,
    max_sessions: Annotated[
        int | None,
        typer.Option(min=1, help="Sessions at once; by default 1 of a published model, of others as many as fit."),
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="WORLDSIM_TOKEN", show_envvar=True, help="What clients must know to connect.")
    ] = "",
    origin: Annotated[list[str] | None, typer.Option(help="A page of another server that may connect.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="Another name of this server, such as host:port.")] = None,
    folder: Annotated[Path, typer.Option(help="Where worlds are kept: logs, and what was saved.")] = Path("worlds"),
    image: Image = None,
    policy: Policy = None,
    kv: Kv = None,
    budget: Budget = None,
    spill: Spill = None,
    noise: Noise = "plain",
    no_clean_pass: NoCleanPass = False,
    steps: Steps = None,
    frames_per_block: FramesPerBlock = None,
    size: Size = None,
    on_prompt: OnPrompt = None,
    preview: Preview = None,
    compiled: Compiled = False,
    linears: Linears = None,
    offload: Offload = None,
    device: Device = "auto",
    weights: Weights = None,
    show: Annotated[bool, typer.Option("--open", help="Open the player page in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Serve a world over WebSocket, and a page to play it, until SIGTERM or Ctrl-C; every world is then saved."""
    import asyncio

    import worldsim
    from worldsim.published import PUBLISHED, fit_picture
    from worldsim_apps.gate import Door
    from worldsim_apps.server import Settings, run

    picture = None if image is None else fit_picture(image, ahead_of(world, size, device))
    door = Door(host=host, port=port, token=token, origins=tuple(origin or ()), hosts=tuple(name or ()))
    chosen: dict[str, Any] = {"policy": policy, "steps": steps, "frames_per_block": frames_per_block, "noise": noise}
    chosen |= {"kv": kv, "budget": budget, "spill": spill, "clean_pass": not no_clean_pass}
    chosen |= {"size": size, "on_prompt": on_prompt, "preview": preview, "compiled": compiled, "linears": linears}
    chosen["offload"] = offload
    # One more than may play, since a session may take the place of another.
    chosen |= {"sessions": (max_sessions or 1) + 1 if world in PUBLISHED else None}
    loaded = worldsim.load(world, device=device, weights=weights, **chosen)
    settings = Settings(door=door, folder=folder, sessions=max_sessions, picture=picture)

    def on_ready(port: int) -> None:
        place = f"{f'[{host}]' if ':' in host else host}:{port}"
        page, url = f"http://{place}/", f"ws://{place}/v1/world"
        fields = {"world": world, "page": page, "url": url, "folder": str(folder)}
        report(fields if as_json else f"{world} is played at {page} and served at {url}")
        _open_page(page, wanted=show)

    asyncio.run(run(loaded, settings, on_ready))


def _open_page(page: str, *, wanted: bool) -> None:
    import webbrowser

    if wanted and not webbrowser.open(page):
        typer.echo(f"no browser could be opened here; open {page} in one", err=True)


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
    from worldsim_apps.ui import UiSettings, run

    def on_ready(page: str) -> None:
        report({"page": page, "folder": str(folder)} if as_json else f"worlds are chosen and played at {page}")
        _open_page(page, wanted=show)

    run(UiSettings(port=port, folder=folder, device=device), on_ready)


@app.command()
@refusals()
def record(
    name: Name,
    frames: Annotated[
        int, typer.Option(help="At least so many frames; on disk one takes 15.6 kB of crafter, 36.9 kB of maze.")
    ] = 100_000,
    seed: Seed = 0,
    held_out: Annotated[bool, typer.Option("--held-out", help="Episodes to judge by, never trained on.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that play at once; they change nothing else.")] = 1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder; by default data/NAME.")] = None,
    as_json: Json = False,
) -> int:
    """Play a world's real engine and write what was seen and pressed; what is there already stays."""
    from worldsim.training.data import Series
    from worldsim.training.data import record as play
    from worldsim_apps.progress import progress

    recipe, series = recipe_of(name), Series(seed=seed, held_out=held_out)
    folder = output or Path("data") / name
    kept: dict[str, int] = {}
    try:
        with progress(f"record {name}", frames, quiet=as_json) as bar:
            kept = play(recipe.recording, folder, series, frames=frames, workers=workers, on_frames=bar.advance)
        text = f"{folder}: {kept['frames']} frames"
    except KeyboardInterrupt:
        text = f"{folder}: shards that are whole stay there; go on with the same command"
    fields = {"world": name, "output": str(folder), "seed": seed, "held_out": held_out, "stopped": not kept, **kept}
    report(fields if as_json else text)
    return 0 if kept else STOPPED


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
) -> int:
    """Train a world on what was recorded, judged on held-out episodes as it goes; Ctrl-C keeps how far it came."""
    from worldsim.runtime.devices import pick_device
    from worldsim.training.run import Run, plan_of, train_world
    from worldsim_apps.progress import progress
    from worldsim_apps.stopping import stoppable

    recipe = recipe_of(name)
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
    folder = out or Path("runs") / name
    planned = plan_of(recipe, folder, run).updates
    last = min(planned, updates or planned)
    began = monotonic()
    with progress(f"train {name}", 1.0, quiet=as_json) as bar:

        def on_update(update: int, loss: float) -> None:
            spent = (monotonic() - began) / (60 * minutes) if minutes else 0.0
            bar.reach(max(update / last, spent), f"loss {loss:.4f}")

        source = data or Path("data") / name
        judged = train_world(recipe, source, folder, run, on_update=on_update, stopping=stoppable)
    stopped = "tiles" not in judged
    fields = {"world": name, "output": str(folder), "seed": seed, "stopped": stopped, **judged}
    report(fields if as_json else _trained(folder, judged, begun=weights is not None))
    return STOPPED if stopped else 0


def _trained(folder: Path, judged: dict[str, Any], *, begun: bool) -> str:
    """What a training run came to; one that was stopped is not judged. begun: it began from other weights."""
    from worldsim.training.run import CHECKPOINT, WEIGHTS

    if "tiles" in judged:
        return (
            f"{folder / WEIGHTS}: after {judged['update']} updates {judged['tiles']:.1%} of the tiles one block ahead "
            f"are right; had nothing moved, {judged['still']:.1%}"
        )
    again = "--resume in place of --weights" if begun else "--resume"
    return (
        f"{folder / CHECKPOINT}: {judged['update']} updates are kept, and their weights beside it; go on with the same "
        f"command and {again}"
    )


@app.command()
@refusals()
def info(
    world: Annotated[str | None, typer.Argument(help="A world, to see its card.", show_default=False)] = None,
    named: Annotated[str | None, typer.Option("--world", help="The same, named as for generate and serve.")] = None,
    size: Size = None,
    policy: ModelPolicy = None,
    kv: ModelKv = None,
    budget: ModelBudget = None,
    preview: Preview = None,
    linears: Linears = None,
    offload: PlanOffload = False,
    as_json: Json = False,
) -> None:
    """Say what is here: this machine, the worlds, and the card of one of them, or what a published model takes."""
    from worldsim.presets import WORLDS
    from worldsim.published import PUBLISHED
    from worldsim_apps.machine import machine

    fields: dict[str, Any] = {"machine": machine(), "worlds": sorted(WORLDS), "published": sorted(PUBLISHED)}
    chosen: dict[str, Any] = {"size": size, "policy": policy, "kv": kv, "budget": budget, "preview": preview}
    chosen |= {"linears": linears, "offload": offload or None}
    if world is not None and named is not None:
        raise Refused(f"two worlds are named, {world} and --world {named}; ask about one at a time")
    if (world := world or named) is not None:
        fields = {"world": describe(world, **chosen), **fields}
    elif words := [(f"--{name}", *([] if it is True else [str(it)])) for name, it in chosen.items() if it is not None]:
        given = shlex.join(word for option in words for word in option)
        raise Refused(f"{given} is said of no world; name a published model, as in worldsim info self-forcing {given}")
    report(fields if as_json else "\n".join(lines_of(fields)))


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say what works here and what to do about the rest; exits with 1 if the bundled world cannot be lived in."""
    from worldsim_apps.doctor import examine, is_fit, table

    checks = [*examine()]
    fit = is_fit(checks)
    report({"fit": fit, "checks": [check.to_dict() for check in checks]} if as_json else table(checks))
    return 0 if fit else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process; returns the exit code."""
    write_anything()
    try:
        # Not standalone: typer then raises what it would otherwise frame in a box of many lines.
        code = app(arguments, prog_name="worldsim", standalone_mode=False) or 0
    except typer.TyperException as error:
        code, message = 2, misused(error)
    except Refused as error:
        code, message = 2, str(error)
    except Stopped as error:
        code, message = STOPPED, str(error)
    else:
        message = "stopped" if code == STOPPED else ""
    if message:
        say(message)
    return int(code)


@app.command()
@refusals()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A file or folder of public weights of the Wan family, or a name on the hub such as ORG/NAME:FILE.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    ema: Annotated[bool | None, typer.Option(help="Take the averaged weights of a file that has both.")] = None,
    lora: Annotated[str | None, typer.Option(help="Changes to merge, a file or a name on the hub.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Strength of the changes; by default their rank.")] = None,
    recipe: Annotated[str | None, typer.Option(help="The world that the weights are for.")] = None,
    as_json: Json = False,
) -> None:
    """Write public weights of the Wan family as one folder of safetensors that is read lazily, with a card."""
    from worldsim.wan import lacking, parts_text
    from worldsim_apps.convert import convert as write

    if recipe is not None:
        wan_recipe(recipe)
    card = write(source, out, ema=ema, lora=lora, alpha=alpha, recipe=recipe)
    lacks = lacking(out)
    text = f"{out}: {card['model']}, {card['tensors']} tensors; to be a world it lacks {parts_text(lacks, out)}"
    report({"folder": str(out), **card, "lacks": lacks} if as_json else text)
