"""The command `lvbench`: score a folder of videos, compare two reports, and turn annotations into prompts.

Exit codes: 0 done; 1 what was made could not be written, and what was there is as it was; 2 wrong input, told in one
line on stderr; 3 done, but some videos could not be scored, or compared with their reference, and the report says why;
130 stopped by Ctrl-C, after which the same command goes on where it was.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lvbench.text import amount, printable, some

if TYPE_CHECKING:
    from lvbench.compare import Comparison, Pairs
    from lvbench.examine import Settings, Task
    from lvbench.run import Examiner

# OpenCV and PyAV take their time to import, so the commands do it: --help and a mistyped option answer at once.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How far a minute of generated video drifts. Exits with 0 where all is done, 1 where what was made could not "
    "be written, 2 for wrong input, 3 where some videos could not be scored or compared with their reference, and 130 "
    "when stopped by Ctrl-C.",
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and no progress.")]
Measure = Annotated[
    str,
    typer.Option(help="What measures the frames: light, published, or auto for published if all its weights are here."),
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
    int | None,
    typer.Option(min=1, max=1024, help="Videos at once, 1 by default; they change nothing else.", show_default=False),
]
Ray = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Spread the videos over the Ray cluster of RAY_ADDRESS or of this machine, else over one begun here; "
        "videos and report have to be on a disk that all its machines share.",
    ),
]
Dimensions = Annotated[
    list[str] | None,
    typer.Option(
        help="Drift of this one only: clarity, motion, aesthetic, background, subject, dynamic or identity; may be "
        "given more than once, and is all by default. The light extractor measures everything all the same, so that "
        "another one asked for later takes no time; the published one needs and runs only the networks that these are "
        "made of. Scores of whole videos are told of all that was measured."
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="A folder with the real video of each, under the same name whatever its extension, for simulators "
        "that can play the same actions: PSNR, SSIM, agreement of motion and, where its weights are, LPIPS."
    ),
]
UNWRITTEN, SOME_UNSCORED, STOPPED = 1, 3, 130


class Refused(Exception):
    """What was asked cannot be done; the text says why, to the user."""


class Unwritten(Exception):
    """What was asked is done and cannot be written; the text says why, to the user."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what lvbench and the file system refuse into a line for the user."""
    from lvbench.errors import LvbenchError

    try:
        yield
    except (LvbenchError, OSError) as error:
        raise Refused(str(error)) from error


@contextmanager
def writing(kept: str) -> Iterator[None]:
    """Turn a report that cannot be written into a line for the user, with what is kept all the same."""
    from lvbench.errors import ReportError

    try:
        yield
    except ReportError as error:
        raise Unwritten(f"{error}; {kept}") from error


@app.command()
@refusals()
def score(
    videos: Annotated[Path, typer.Argument(help="A folder of videos, or one.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the report; what it has measured stays measured.")
    ] = Path("report"),
    dimension: Dimensions = None,
    chunks: Annotated[int, typer.Option(min=2, max=10_000, help="Equal parts of each video.")] = 10,
    extractor: Measure = "auto",
    weights: Folder = None,
    reference: Reference = None,
    workers: Workers = None,
    ray: Ray = False,
    seed: Seed = 0,
    max_pixels: Annotated[int, typer.Option(min=1, max=2**28, help="Of a frame; a video with more is refused.")] = 4096
    * 2304,
    max_frames: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Of a video; a longer one is refused.")
    ] = 36_000,
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
    choice = choose(extractor, weights, caches(os.environ, Path.home()), dimensions, lpips=reference is not None)
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
        _say(f"passed over, since not named as videos: {some(passed)}; name one alone to score it", err=True)
    _make(settings.store, output)
    if extractor == "auto" and not as_json:
        _say(f"measured by the {choice.extractor} extractor, since {choice.reason}", err=True)
    report = _score(tasks, settings, _examiner(workers, on_cluster=ray), seed=seed, quiet=as_json)
    _write(report, videos, tasks, settings)
    return _tell(report, output, as_json=as_json)


@app.command(
    help="Say in which scores one of two generators is better, or that no difference was shown.\n\n"
    "A pair is two videos of one name, whatever its extension. Pairs that differ in size, frame rate or length (by "
    "more than a frame and 2 %) are left out and named, pairs that are copies on both sides count once, and a frozen "
    "video wins in no drift, consistency, smoothness or steadiness.\n\n"
    "B - A is the mean difference over the pairs; in brackets its 95 % interval, which holds about 95 of 100 times, "
    "and less often where a few videos lie far from the rest.\n\n"
    "effect is that mean in standard deviations of the differences: 0.2 is little and 0.8 much.\n\n"
    "chance is how often two equal generators would show as much in that score or any rarer one, by signs that are "
    "random, with Holm's correction; 0.05 or less is a verdict. So at most 5 of 100 comparisons of equal generators "
    "have one, in whatever score, and with few pairs there can be none: 12 scores need at least 9 pairs, one alone 6."
)
@refusals()
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A report, or its folder.", show_default=False)],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another, of videos with the same names.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Say in which scores one of two generators is better, or that no difference was shown."""
    from lvbench.compare import compare as compared
    from lvbench.compare import pairs_of, too_few
    from lvbench.report import read_scores

    reports = (read_scores(one), read_scores(other))
    found, pairs = compared(*reports, seed=seed), pairs_of(*reports)
    few = too_few(found)
    if as_json:
        fields = {"a": str(one), "b": str(other), **pairs.to_json(), "needed": few[1] if few else None}
        _say(json.dumps({**fields, "scores": [each.to_json() for each in found]}))
        return
    for each in found:
        _say(_line(each))
    if few:
        _say(f"too few pairs for any verdict: {few[0]} given, at least {few[1]} needed")
    for line in _notes(pairs):
        _say(line, err=True)


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

    A line of what it writes, true until the next one: {"block": 0, "prompt": "a lake"}
    """
    from lvbench.annotation import read_annotations, write_prompts

    found = read_annotations(annotations, segment_seconds)
    with writing("files before it are written"):
        short = write_prompts(found, output, block_seconds)
    fields = {"output": str(output), "videos": len(found), "segments_too_short": short}
    left = f"; {amount(short, 'segment')} too short to have a block" if short else ""
    _say(json.dumps(fields) if as_json else f"{output}: prompts of {amount(len(found), 'video')}{left}")


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
    except Unwritten as error:
        code, message = UNWRITTEN, str(error)
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
    from lvbench.report import write_report

    folder = settings.store.parent
    page = page_of(report, _worst(report, tasks, settings), printable(videos.resolve().name))
    kept = f"what was kept of the measures is in {settings.store}: the same command goes on"
    with writing(f"a report that was there is as it was, and {kept}"):
        write_report(report, page, folder)


def _tell(report: dict[str, Any], output: Path, *, as_json: bool) -> int:
    """Say what became of the videos; returns the exit code."""
    refused = [(video["name"], video["unscored"]) for video in report["videos"] if "unscored" in video]
    beside = [(video["name"], video.get("reference", {})) for video in report["videos"]]
    alone = [(name, reference["unscored"]) for name, reference in beside if "unscored" in reference]
    open_ended = [video["name"] for video in report["videos"] if not video.get("end_known", True)]
    scored = len(report["videos"]) - len(refused)
    used = report["extractor"]
    if as_json:
        fields = {
            "output": str(output),
            "extractor": used,
            "scored": scored,
            "unscored": len(refused),
            "without_reference": len(alone),
            "end_not_known": open_ended,
            "copies": report["copies"],
            "reasons": dict((*refused, *alone)),
            "summary": report["summary"],
        }
        _say(json.dumps(fields))
    else:
        for name, reason in (*refused, *alone):
            _say(f"{name}: {reason}", err=True)
        for line in _asides(report, open_ended):
            _say(line, err=True)
        compared = f", {len(alone)} not compared with their reference" if alone else ""
        counted = f"{amount(scored, 'video')} scored by the {used['name']} extractor, {len(refused)} not"
        _say(f"{output / 'report.html'}: {counted}{compared}")
    return SOME_UNSCORED if refused or alone else 0


def _asides(report: dict[str, Any], open_ended: Sequence[str]) -> Iterator[str]:
    """What is to be known of a report that is no fault of a video."""
    if open_ended:
        yield f"whether it was cut off is not known, since its file does not say where it ends: {some(open_ended)}"
    if copies := [f"{name} of {before}" for name, before in report["copies"].items()]:
        yield f"copies, which have all scores of another video, count once with it: {some(copies)}"


def _worst(report: dict[str, Any], tasks: Sequence[Task], settings: Settings) -> list[Any]:
    from lvbench.page import Worst, worst_of
    from lvbench.run import sheet_of

    paths = {task.name: task.path for task in tasks}
    frames = {video["name"]: video.get("frames", 0) for video in report["videos"]}
    return [
        Worst(name, drifts, sheet_of(paths[name], frames[name], settings)) for name, drifts in worst_of(report).items()
    ]


def _line(found: Comparison) -> str:
    from lvbench.report import title

    spread = found.difference
    unlike = [f"in {amount(count, 'pair')} {why}" for why, count in Counter(found.unlike.values()).items()]
    left = [f"{len(reasons)} unscored in {side.upper()}" for side, reasons in found.unscored.items() if reasons]
    told = [f"{title(found.score)}:"]
    if spread.mean is not None:
        bounds = "" if spread.low is None else f" ({spread.low:+.4g} to {spread.high:+.4g})"
        effect = "" if found.effect is None else f", effect {found.effect:+.2f}"
        told.append(
            f"B - A {spread.mean:+.4g}{bounds}{effect}, {amount(spread.count, 'pair')}, chance {found.chance:.3g}:"
        )
    return " ".join([*told, found.verdict, *([f"({', '.join([*unlike, *left])})"] if unlike or left else [])])


def _notes(pairs: Pairs) -> Iterator[str]:
    """Which videos are not compared, or not as others are, and why."""
    for side, names in pairs.only.items():
        for name in names:
            yield f"{name}: only in {side.upper()}"
    for name, why in pairs.unlike.items():
        yield f"{name}: not compared, since {why}"
    for name, before in pairs.copies.items():
        yield f"{name}: has all scores of {before} in both and counts once with it"
    for side, count in pairs.repeats.items():
        if count:
            yield f"{side.upper()}: {count} of {len(pairs.distinct)} videos have all scores of another of them"
    for side, names in pairs.frozen.items():
        if names:
            yield (
                f"{side.upper()} is frozen in {len(names)} of {amount(len(pairs.distinct), 'pair')}, such as "
                f"{names[0]}: most frames are the same as the one before, so in these it wins no drift, consistency, "
                "smoothness or steadiness"
            )
