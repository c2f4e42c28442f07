"""The command `lvbench`: score a folder of videos, compare two reports, and turn annotations into prompts.

Exit codes: 0 done; 2 wrong input, told in one line on stderr; 3 done, but some videos could not be scored, or compared
with their reference, and the report says why; 130 stopped by Ctrl-C, after which the same command goes on where it was.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvbench.text import printable

if TYPE_CHECKING:
    from lvbench.compare import Comparison
    from lvbench.examine import Settings, Task
    from lvbench.run import Examiner

# OpenCV and PyAV take their time to import, so the commands do it: --help and a mistyped option answer at once.

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="How far a minute of generated video drifts."
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")]
Measure = Annotated[
    str, typer.Option(help="What measures the frames: light, published, or auto for published if its weights are here.")
]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="A folder with the weights of the published networks; what is not in it is looked for where other "
        "programs keep theirs."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the bootstrap; equal seeds give equal intervals.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Videos at once, 1 by default; they change nothing else.", show_default=False)
]
Ray = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Spread the videos over the Ray cluster of RAY_ADDRESS or of this machine, else over one begun here; "
        "videos and report have to be on a disk that all its machines share.",
    ),
]
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
    extractor: Measure = "auto",
    weights: Folder = None,
    reference: Annotated[
        Path | None, typer.Option(help="A folder with the real video of each, under the same name.")
    ] = None,
    workers: Workers = None,
    ray: Ray = False,
    seed: Seed = 0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of a frame; a video with more is refused.")] = 4096 * 2304,
    max_frames: Annotated[int, typer.Option(min=1, help="Of a video; a longer one is refused.")] = 36_000,
    max_seconds: Annotated[float, typer.Option(help="Of work for a video; a slower one is refused.")] = 3600.0,
    as_json: Json = False,
) -> int:
    """Score every video of a folder, and write scores.json, scores.csv and report.html."""
    from lvbench.examine import Settings
    from lvbench.folder import passed_over, tasks_of
    from lvbench.measures import dimensions_of
    from lvbench.presets import choose
    from lvbench.video import Limits
    from lvbench.weights import caches

    dimensions, tasks = dimensions_of(dimension or ()), tasks_of(videos, reference)
    choice = choose(extractor, weights, caches(os.environ, Path.home()), lpips=reference is not None)
    settings = Settings(
        store=output / "cache",
        chunks=chunks,
        dimensions=dimensions,
        extractor=choice.extractor,
        networks=choice.networks,
        reason=choice.reason,
        lpips=choice.lpips,
        limits=Limits(pixels=max_pixels, frames=max_frames, seconds=max_seconds),
    )
    if passed := passed_over(videos, output):
        more = f" and {len(passed) - 1} more" if len(passed) > 1 else ""
        _say(f"passed over, since not named as videos: {passed[0]}{more}; name one alone to score it", err=True)
    _make(settings.store, output)
    report = _score(tasks, settings, _examiner(workers, on_cluster=ray), seed=seed, quiet=as_json)
    _write(report, videos, tasks, settings)
    return _tell(report, output, as_json=as_json)


@app.command()
@refusals()
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A report, or its folder.", show_default=False)],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another, of videos with the same names.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Say in which dimension one of two generators is better, or that no difference was shown.

    Of 100 comparisons of equal ones at most 5 say that one is better, in whatever dimension. An interval holds 95 of
    100 times by itself.
    """
    from lvbench.compare import compare as compared
    from lvbench.compare import pairs_of
    from lvbench.report import read_scores

    reports = (read_scores(one), read_scores(other))
    found, pairs = compared(*reports, seed=seed), pairs_of(*reports)
    if as_json:
        scores = [each.to_json() for each in found]
        _say(json.dumps({"a": str(one), "b": str(other), **pairs.to_json(), "scores": scores}))
        return
    for each in found:
        _say(_line(each))
    for side, names in pairs.only.items():
        for name in names:
            _say(f"{name}: only in {side.upper()}", err=True)
    for name, before in pairs.copies.items():
        _say(f"{name}: has all scores of {before} and counts once with it", err=True)


@app.command()
@refusals()
def prompts(
    annotations: Annotated[
        Path, typer.Argument(help="What is told of videos in words, as JSON or JSON lines.", show_default=False)
    ],
    block_seconds: Annotated[
        float, typer.Option(help="How long a block of the generator is: its frames by its frames a second.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the prompts files.")] = Path("prompts"),
    segment_seconds: Annotated[
        float | None, typer.Option(help="For how long each text holds, where the file has texts without times.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write for each video that was described a file of prompts, which worldsim generate --prompts reads.

    A line of what it reads: {"video_id": "a", "segments": [{"start": 0, "end": 2.5, "caption": "a lake"}]}
    """
    from lvbench.annotation import read_annotations, write_prompts

    found = read_annotations(annotations, segment_seconds)
    short = write_prompts(found, output, block_seconds)
    fields = {"output": str(output), "videos": len(found), "segments_too_short": short}
    left = f"; {short} segments are too short to have a block" if short else ""
    _say(json.dumps(fields) if as_json else f"{output}: prompts of {len(found)} videos{left}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or with those of the process; returns the exit code."""
    try:
        # Not standalone: typer then raises what it would otherwise frame in a box of many lines.
        code = app(arguments, prog_name="lvbench", standalone_mode=False) or 0
    except typer.TyperException as error:
        told = error.format_message()
        code, message = 2, f"{told}{'' if told.endswith(('.', '?')) else '.'} lvbench --help says what fits."
    except Refused as error:
        code, message = 2, str(error)
    else:
        message = "stopped by Ctrl-C; the same command goes on" if code == STOPPED else ""
    if message:
        _say(f"lvbench: {' '.join(message.split())}", err=True)
    return int(code)


def _make(store: Path, output: Path) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{output} cannot be written: {error.strerror}; choose another folder with -o") from error


def _say(text: str, *, err: bool = False) -> None:
    """Print a line of what is printable, to whoever reads it. If nobody does any more, what was asked is done still."""
    try:
        typer.echo(printable(text), err=err)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if err else sys.stdout).fileno())


def _examiner(workers: int | None, *, on_cluster: bool) -> Examiner:
    """What scores many videos: processes here, or a cluster."""
    if on_cluster:
        if workers is not None:
            raise Refused("with --ray as many videos are scored at once as the cluster has processors; drop --workers")
        from lvbench.cluster import examine_on_cluster

        return examine_on_cluster
    from lvbench.run import examine_all

    return partial(examine_all, workers=workers or 1)


def _score(tasks: Sequence[Task], settings: Settings, examiner: Examiner, *, seed: int, quiet: bool) -> dict[str, Any]:
    """Score, and give what scores.json has."""
    from lvbench.examine import Record
    from lvbench.progress import progress
    from lvbench.report import report_of

    with progress("score", len(tasks), quiet=quiet) as advance:
        records = examiner(tasks, settings, on_video=lambda _: advance())
    unkept = [record.unkept for record in records if isinstance(record, Record) and record.unkept]
    if unkept:
        _say(f"what was measured is not kept for the next time: {unkept[0]}", err=True)
    return report_of(records, settings, seed)


def _write(report: dict[str, Any], videos: Path, tasks: Sequence[Task], settings: Settings) -> None:
    """Write the three files of a report on these videos."""
    from lvbench.page import page_of
    from lvbench.report import write, write_csv, write_json

    folder = settings.store.parent
    write_json(report, folder)
    write_csv(report, folder)
    worst = _worst(report, tasks, settings)
    write(folder / "report.html", page_of(report, worst, printable(videos.resolve().name)))


def _tell(report: dict[str, Any], output: Path, *, as_json: bool) -> int:
    """Say what became of the videos; returns the exit code."""
    refused = [(video["name"], video["unscored"]) for video in report["videos"] if "unscored" in video]
    beside = [(video["name"], video.get("reference", {})) for video in report["videos"]]
    alone = [(name, reference["unscored"]) for name, reference in beside if "unscored" in reference]
    scored = len(report["videos"]) - len(refused)
    used = report["extractor"]
    fields = {
        "output": str(output),
        "extractor": used,
        "scored": scored,
        "unscored": len(refused),
        "without_reference": len(alone),
        "reasons": dict((*refused, *alone)),
        "summary": report["summary"],
    }
    text = f"{output / 'report.html'}: {scored} videos scored by the {used['name']} extractor, {len(refused)} not"
    compared = f", {len(alone)} not compared with their reference" if alone else ""
    for name, reason in (*refused, *alone) if not as_json else ():
        _say(f"{name}: {reason}", err=True)
    _say(json.dumps(fields) if as_json else f"{text}{compared}; {used['name']} because {used['reason']}")
    return SOME_UNSCORED if refused or alone else 0


def _worst(report: dict[str, Any], tasks: Sequence[Task], settings: Settings) -> list[Any]:
    from lvbench.page import Worst, worst_of
    from lvbench.run import sheet_of

    paths = {task.name: task.path for task in tasks}
    frames = {video["name"]: video.get("frames", 0) for video in report["videos"]}
    return [
        Worst(name, drifts, sheet_of(paths[name], frames[name], settings)) for name, drifts in worst_of(report).items()
    ]


def _line(found: Comparison) -> str:
    from lvbench.judge import title

    spread = found.difference
    left = [f"{len(reasons)} unscored in {side.upper()}" for side, reasons in found.unscored.items() if reasons]
    told = [f"{title(found.score)}:"]
    if spread.mean is not None:
        bounds = "" if spread.low is None else f" ({spread.low:+.4g} to {spread.high:+.4g})"
        effect = "" if found.effect is None else f", effect {found.effect:+.2f}"
        told.append(f"B - A {spread.mean:+.4g}{bounds}{effect}, {spread.count} pairs, chance {found.chance:.3g}:")
    return " ".join([*told, found.verdict, *([f"({', '.join(left)})"] if left else [])])
