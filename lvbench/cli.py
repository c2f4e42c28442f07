"""The command `lvbench`: score a folder of videos, and compare two reports.

Exit codes: 0 done; 2 wrong input, told in one line on stderr; 3 done, but some videos could not be scored and the
report says why; 130 stopped by Ctrl-C, after which the same command goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lvbench.compare import Comparison
    from lvbench.examine import Settings, Task

# OpenCV and PyAV take their time to import, so the commands do it: --help and a mistyped option answer at once.

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="How far a minute of generated video drifts."
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the bootstrap; equal seeds give equal intervals.")]
SOME_UNSCORED, STOPPED = 3, 130


class Refused(Exception):
    """What was asked cannot be done; the text says why, to the user."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what lvbench and the file system refuse into a line for the user."""
    from lvbench.errors import LvbenchError

    try:
        yield
    except (LvbenchError, OSError) as error:
        raise Refused(str(error)) from error


@app.command()
@refusals()
def score(
    videos: Annotated[Path, typer.Argument(help="A folder of videos, or one.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the report; what it has measured stays measured.")
    ] = Path("report"),
    dimension: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given more than once. By default all.")
    ] = None,
    chunks: Annotated[int, typer.Option(min=2, help="Equal parts of each video.")] = 10,
    extractor: Annotated[str, typer.Option(help="What measures the frames.")] = "light",
    reference: Annotated[
        Path | None, typer.Option(help="A folder with the real video of each, under the same name.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Videos at once; they change nothing else.")] = 1,
    seed: Seed = 0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of a frame; a video with more is refused.")] = 4096 * 2304,
    max_frames: Annotated[int, typer.Option(min=1, help="Of a video; a longer one is refused.")] = 36_000,
    max_seconds: Annotated[float, typer.Option(help="Of work for a video; a slower one is refused.")] = 3600.0,
    as_json: Json = False,
) -> int:
    """Score every video of a folder, and write scores.json, scores.csv and report.html."""
    from lvbench.examine import Settings
    from lvbench.folder import tasks_of
    from lvbench.measures import dimensions_of
    from lvbench.presets import extractor_of
    from lvbench.video import Limits

    settings = Settings(
        store=output / "cache",
        chunks=chunks,
        dimensions=dimensions_of(dimension or ()),
        extractor=extractor_of(extractor).name,
        limits=Limits(pixels=max_pixels, frames=max_frames, seconds=max_seconds),
    )
    tasks = tasks_of(videos, reference)
    settings.store.mkdir(parents=True, exist_ok=True)
    report = _score(tasks, settings, workers=workers, seed=seed, quiet=as_json)
    refused = [video for video in report["videos"] if "unscored" in video]
    scored = len(tasks) - len(refused)
    fields = {"output": str(output), "scored": scored, "unscored": len(refused), "summary": report["summary"]}
    text = f"{output / 'report.html'}: {scored} videos scored by the {extractor} extractor, {len(refused)} not"
    for video in refused if not as_json else ():
        typer.echo(f"{video['name']}: {video['unscored']}", err=True)
    typer.echo(json.dumps(fields) if as_json else text)
    return SOME_UNSCORED if refused else 0


@app.command()
@refusals()
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A report, or its folder.", show_default=False)],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another, of videos with the same names.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Say in which dimension one of two generators is better, or that no difference was shown.

    The intervals are so wide that all of them hold together in 95 of 100 comparisons.
    """
    from lvbench.compare import compare as compared
    from lvbench.report import read_scores

    found = compared(read_scores(one), read_scores(other), seed=seed)
    if as_json:
        typer.echo(json.dumps({"a": str(one), "b": str(other), "scores": [each.to_json() for each in found]}))
    else:
        typer.echo("\n".join(map(_line, found)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process; returns the exit code."""
    try:
        # Not standalone: typer then raises what it would otherwise frame in a box of many lines.
        code = app(arguments, prog_name="lvbench", standalone_mode=False) or 0
    except typer.TyperException as error:
        code, message = 2, f"{error.format_message()} lvbench --help says what fits."
    except Refused as error:
        code, message = 2, str(error)
    else:
        message = "stopped by Ctrl-C; the same command goes on" if code == STOPPED else ""
    if message:
        typer.echo(f"lvbench: {' '.join(message.split())}", err=True)
    return int(code)


def _score(tasks: Sequence[Task], settings: Settings, *, workers: int, seed: int, quiet: bool) -> dict[str, Any]:
    """Score, write the three files, and give what scores.json has."""
    from lvbench.page import page_of
    from lvbench.progress import progress
    from lvbench.report import report_of, write, write_csv, write_json
    from lvbench.run import examine_all

    folder = settings.store.parent
    with progress("score", len(tasks), quiet=quiet) as advance:
        records = examine_all(tasks, settings, workers=workers, on_video=lambda _: advance())
    report = report_of(records, settings, seed)
    write_json(report, folder)
    write_csv(report, folder)
    write(folder / "report.html", page_of(report, _worst(report, tasks, settings)))
    return report


def _worst(report: dict[str, Any], tasks: Sequence[Task], settings: Settings) -> list[Any]:
    from lvbench.errors import VideoRefused
    from lvbench.page import Worst, worst_of
    from lvbench.sheets import sheet

    paths = {task.name: task.path for task in tasks}
    frames = {video["name"]: video.get("frames", 0) for video in report["videos"]}
    found = []
    for name, dimension, drift in worst_of(report):
        try:
            picture: bytes | str = sheet(paths[name], frames[name], settings.chunks, settings.limits)
        except VideoRefused as error:
            picture = str(error)
        found.append(Worst(name, dimension, drift, picture))
    return found


def _line(found: Comparison) -> str:
    from lvbench.judge import title

    spread = found.difference
    bounds = "" if spread.low is None else f" ({spread.low:+.4f} to {spread.high:+.4f})"
    effect = "" if found.effect is None else f", effect {found.effect:+.2f}"
    return f"{title(found.score)}: B - A {spread.mean:+.4f}{bounds}{effect}, {spread.count} pairs: {found.verdict}"
