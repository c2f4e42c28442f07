"""The command `worldsim`: generate a walk, record and train a world, say what is here.

Exit codes: 0 done; 2 wrong input, told in one line on stderr; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

# Importing torch takes seconds, so everything that needs it is imported inside the commands: --help and a mistyped
# option answer at once.

app = typer.Typer(add_completion=False, help="Worlds that are generated block by block while you are inside them.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")]
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give equal results.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, or a device of this machine.")]


class Refused(Exception):
    """What was asked cannot be done as it was given; the text says why, for the user."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what worldsim and the file system refuse into one line for the user."""
    from worldsim.errors import WorldSimError

    try:
        yield
    except (WorldSimError, OSError) as error:
        raise Refused(str(error)) from error


@app.command()
@refusals()
def generate(
    world: Annotated[str, typer.Option(help="Which world.")] = "crafter",
    actions: Annotated[Path | None, typer.Option(help='JSON lines: {"block": 12, "keys": ["KeyW"]}.')] = None,
    seconds: Annotated[float, typer.Option(help="How much world time.")] = 20.0,
    seed: Seed = 0,
    start: Annotated[int | None, typer.Option(help="Which of the world's starting places; else the seed's.")] = None,
    policy: Annotated[str | None, typer.Option(help="What the model sees of the past: window:frames=24, ...")] = None,
    steps: Annotated[int | None, typer.Option(help="Backbone calls for one block, before the clean one.")] = None,
    frames_per_block: Annotated[int, typer.Option(help="Frames made at once: 1, 2 or 4.")] = 1,
    device: Device = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", help="The video, an .mp4 file.")] = Path("out/world.mp4"),
    as_json: Json = False,
) -> int:
    """Walk through a learned world under scripted keys, and write what is seen as a video."""
    import worldsim
    from worldsim_apps.actions import Actions, read_actions
    from worldsim_apps.generate import film
    from worldsim_apps.progress import progress

    if not 0 < seconds < math.inf:
        raise Refused(f"--seconds is a length of time above 0, got {seconds}")
    place = worldsim.load(world, device=device, policy=policy, steps=steps, frames_per_block=frames_per_block)
    script = read_actions(actions, place.controls) if actions else Actions()
    frames = max(1, round(seconds * place.fps))
    session = place.open(seed=seed, start=start)
    with progress(f"generate {world}", frames, quiet=as_json) as advance:
        made = film(place, session, script, output, frames=frames, on_frames=advance)
    _report(
        f"{output}: {made.frames} frames ({made.seconds:.1f} s at {made.fps} a second), made in {made.took_s:.1f} s, "
        f"{made.speed:.2f} times as fast as world time" + ("; stopped before the end" if made.stopped else ""),
        {
            "output": str(output),
            "world": world,
            "seed": seed,
            "start": start,
            "frames": made.frames,
            "fps": made.fps,
            "size": made.size,
            "seconds": made.seconds,
            "took_s": made.took_s,
            "speed": made.speed,
            "stopped": made.stopped,
        },
        as_json=as_json,
    )
    return 130 if made.stopped else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process; returns the exit code."""
    try:
        # Not standalone: typer then raises what it would otherwise frame in boxes over many lines.
        return app(arguments, prog_name="worldsim", standalone_mode=False) or 0
    except typer.TyperException as error:
        message = error.format_message()
    except Refused as error:
        message = str(error)
    typer.echo(f"worldsim: {' '.join(message.split())}", err=True)
    return 2


def _report(text: str, fields: dict[str, Any], *, as_json: bool) -> None:
    typer.echo(json.dumps(fields) if as_json else text)
