"""What is told of a folder of videos: scores.json and scores.csv, the numbers of the page.

scores.json, schema 2, which a new field leaves as it is; it rises once a field goes or comes to mean another thing:
    schema, decoder, settings {chunks, dimensions, seed}
    scoring: hashes of the code that reads videos, and of that which makes scores of what was measured
    extractor {name, reason, fingerprint, weights}: which one, why, a hash of all that its numbers depend on, and the
        SHA-256 of the weights of each network that the dimensions took
    lpips: the same hashes of what compared with references, empty without it
    videos: in order of their names, each {name, unscored} with the reason, or
        {name, sha256, container, codec, width, height, fps, end_known, frames,
         chunks: {dimension or companion: [a number or null a chunk]}, scores: {form.dimension or companion: result},
         repeated_frames: result, the share of frames that are the same as the one before,
         reference: {sha256, frames, chunks, scores} if there was one: which real video, and how like it over those
             frames that both have; or {unscored}, with sha256 if it could be opened}
    copies: {name: the video before it that has all of its scores}
    summary: {score: {mean, low, high, count, unscored: {reason: videos}}}, over those that have a finite number
Of a video whose end_known is false nobody can tell whether it was cut off: the file does not say where it ends.
A result is {value, count} or {unscored} with the reason. A value that is not finite, which only the published form
gives, is "inf", "-inf" or "nan". Every video counts once in a mean, however long it is, and a copy not at all: to score
one video under many names says nothing more of whoever made it.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

from lvbench import judge
from lvbench.bootstrap import interval
from lvbench.errors import ReportError
from lvbench.examine import READER, Record, Refused, Settings
from lvbench.judge import FORMS, number, reason
from lvbench.measures import COMPANIONS
from lvbench.presets import extractor_of
from lvbench.reference import LIKENESSES, Likeness
from lvbench.score import Result, Score, Unscored, from_json, to_json
from lvbench.store import hash_of_code
from lvbench.text import cell
from lvbench.video import DECODER
from lvbench.weights import Networks

SCHEMA = 2
SCORES = "scores.json"
REPEATED = "repeated_frames"
RANGES: Mapping[str, tuple[float, float]] = {
    REPEATED: (0.0, 1.0),
    "psnr": (0.0, 60.0),
    "ssim": (-1.0, 1.0),
    "lpips": (0.0, math.inf),
    "flow_agreement": (0.0, 1.0),
}
"""Of what is told beside the scores of judge."""
JUDGING = ("consistency", "drift", "dynamics", "judge", "measures", "motion", "reference")
"""Modules that make scores; by name, since what `from lvbench import drift` gives is the function."""
SCORING = f"{READER} {hash_of_code(*(sys.modules[f'lvbench.{name}'] for name in JUDGING))}"
Fields = dict[str, Any]


def report_of(records: Sequence[Record | Refused], settings: Settings, seed: int) -> Fields:
    """The content of scores.json; see the module. Equal records give equal reports, to the last bit."""
    extractor = extractor_of(settings.extractor, settings.networks)
    told = sorted(records, key=lambda record: record.name)
    copies = _copies(told)
    return {
        "schema": SCHEMA,
        "decoder": DECODER,
        "scoring": SCORING,
        "extractor": {
            "name": extractor.name,
            "reason": settings.reason,
            "fingerprint": extractor.fingerprint,
            "weights": _hashes(settings.networks),
        },
        "lpips": _hashes(settings.lpips),
        "settings": {"chunks": settings.chunks, "dimensions": list(settings.dimensions), "seed": seed},
        "videos": [_video(record) for record in told],
        "copies": copies,
        "summary": _summary(told, copies, seed),
    }


def write_report(report: Fields, page: str, folder: Path) -> None:
    """Write scores.json, scores.csv and report.html, all three or none. Raises ReportError if they cannot be written.

    Args:
        report: what report_of gives.
        page: the content of report.html.
        folder: where they go; what is there stays whole until all three are written.
    """
    json_text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    _write({folder / SCORES: json_text, folder / "scores.csv": csv_of(report), folder / "report.html": page})


def csv_of(report: Fields) -> str:
    """The content of scores.csv: a row for each video and dimension, with its chunks and each form of drift.

    Companions, repeated frames and, where there are references, likenesses have a row each too, with the value of the
    whole video in place of drift. No cell is a formula, whatever a video is called.
    """
    chunks = report["settings"]["chunks"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["video", "dimension", "value", *FORMS, *(f"chunk_{at + 1}" for at in range(chunks)), "unscored"])
    rows.writerows(_rows(report))
    return text.getvalue()


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises ReportError if it cannot be written; the one that was there stays."""
    _write({path: text})


def _write(texts: Mapping[Path, str]) -> None:
    mark = token_hex(4)  # two runs may write one report at once
    parts = {path: path.with_name(f"{path.name}.{mark}.part") for path in texts}
    path = next(iter(texts))
    try:
        for path, part in parts.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder has its name")
            part.write_text(texts[path], encoding="utf-8", errors="backslashreplace")  # names of files may be any bytes
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written: {error.strerror or error}; make room or choose another folder"
        ) from error
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()


def higher_is_better(score: str) -> bool:
    """Which way a score points: drift and what LPIPS finds are better low, companions and other likenesses high."""
    return score != "lpips" and judge.higher_is_better(score)


def title(score: str) -> str:
    """A score of a report in words."""
    return LIKENESSES[score] if score in LIKENESSES else judge.title(score)


def range_of(score: str) -> tuple[float, float]:
    """The least and the largest number that a score of a report can be."""
    return RANGES[score] if score in RANGES else judge.range_of(score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A video of a report as it was read again.

    results: of the video by itself, by "form.dimension" and by companion.
    size: (height, width).
    fps: frames a second.
    repeated: the share of its frames that are the same as the one before.
    likenesses: to its reference, by name; none without one.
    compared: how many frames were compared with the reference.
    reference_sha256: of the bytes of that; None without one, or if it is not told: an older lvbench did not.
    """

    results: Mapping[str, Result]
    size: tuple[int, int]
    fps: float
    frames: int
    repeated: Result
    likenesses: Mapping[str, Result] = field(default_factory=dict)
    compared: int = 0
    reference_sha256: str | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.fps


@dataclass(frozen=True, slots=True)
class Scores:
    """A report as it was read again: what it was made with, and each video, or why it was not scored, by name."""

    made_with: Mapping[str, Any]
    videos: Mapping[str, Scored | Unscored]


def read_scores(path: Path) -> Scores:
    """Read scores.json, given itself or its folder. Raises ReportError if it is none."""
    file = path / SCORES if path.is_dir() else path
    try:
        if file.exists() and not file.is_file():  # who reads a pipe waits for somebody to write
            raise ReportError(f"{file} is no file; name the report of `lvbench score`, or its folder")
        fields = json.loads(file.read_text(encoding="utf-8"))
        if fields["schema"] != SCHEMA:
            raise ReportError(
                f"{file} has schema {fields['schema']}, this lvbench reads {SCHEMA}; score the videos again"
            )
        videos = {str(video["name"]): _read(video) for video in fields["videos"]}
        extractor, settings = fields["extractor"], fields["settings"]
        made_with = {
            "extractor": extractor["name"],
            "fingerprint": extractor["fingerprint"],
            "networks": sorted(extractor["weights"]),
            "chunks": settings["chunks"],
            "decoder": fields["decoder"],
            "scoring": fields["scoring"],
            **({"lpips": fields["lpips"]} if fields["lpips"] else {}),
        }
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}; `lvbench score` writes it") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ReportError(f"{file} is no report of lvbench; `lvbench score` writes one") from error
    return Scores(made_with, videos)


def _read(video: Fields) -> Scored | Unscored:
    if "unscored" in video:
        return Unscored(str(video["unscored"]))
    beside = video.get("reference", {})
    fps = float(video["fps"])
    if not 0 < fps < math.inf:
        raise ValueError(f"{fps} frames a second")
    return Scored(
        results={str(name): from_json(result) for name, result in video["scores"].items()},
        size=(int(video["height"]), int(video["width"])),
        fps=fps,
        frames=int(video["frames"]),
        repeated=from_json(video[REPEATED]),
        likenesses={name: from_json(result) for name, result in _beside(video).items()},
        compared=int(beside.get("frames", 0)),
        reference_sha256=str(beside["sha256"]) if "sha256" in beside else None,
    )


def _video(record: Record | Refused) -> Fields:
    if isinstance(record, Refused):
        return {"name": record.name, "unscored": record.reason}
    height, width = record.facts.size
    fields: Fields = {
        "name": record.name,
        "sha256": record.sha256,
        "container": record.facts.container,
        "codec": record.facts.codec,
        "width": width,
        "height": height,
        "fps": record.facts.fps,
        "end_known": record.facts.end_known,
        "frames": record.frames,
        "chunks": _chunks(record.judged.chunks),
        "scores": _results(record.judged.scores),
        REPEATED: to_json(record.judged.repeated),
    }
    known = {"sha256": record.reference_sha256} if record.reference_sha256 else {}
    match record.likeness:
        case Likeness(chunks, scores):
            compared = next(score.count for score in scores.values() if isinstance(score, Score))
            fields["reference"] = {**known, "frames": compared, "chunks": _chunks(chunks), "scores": _results(scores)}
        case Unscored(reason):
            fields["reference"] = {**known, "unscored": reason}
    return fields


def _hashes(networks: Networks | None) -> Fields:
    weights = networks.weights if networks else {}
    return {name: weights[name].sha256 for name in sorted(weights)}


def _chunks(values: Mapping[str, Sequence[float]]) -> Fields:
    return {name: [value if math.isfinite(value) else None for value in row] for name, row in values.items()}


def _results(results: Mapping[str, Result]) -> Fields:
    return {name: to_json(result) for name, result in results.items()}


def _copies(records: Sequence[Record | Refused]) -> dict[str, str]:
    """By name, the video before it that has all of its scores."""
    first: dict[str, str] = {}
    copies = {}
    for record in records:
        if isinstance(record, Record):
            # As text: two numbers that are none are not equal.
            scores = repr((record.facts.size, record.frames, record.judged))
            before = first.setdefault(scores, record.name)
            if before != record.name:
                copies[record.name] = before
    return copies


def _summary(records: Sequence[Record | Refused], copies: Mapping[str, str], seed: int) -> Fields:
    results: dict[str, list[Result]] = {}
    known: set[tuple[str, str]] = set()
    for record in records:
        if not isinstance(record, Record):
            continue
        own = {} if record.name in copies else {**record.judged.scores, REPEATED: record.judged.repeated}
        # A copy beside another reference is likened to something else.
        beside = _likeness(record)
        both = (copies.get(record.name, record.name), repr(beside))
        told = {**own, **({} if both in known else beside)}
        known.add(both)
        for name, result in told.items():
            results.setdefault(name, []).append(result)
    return {name: _mean(name, found, seed) for name, found in results.items()}


def _likeness(record: Record) -> Mapping[str, Result]:
    match record.likeness:
        case Likeness(_, scores):
            return scores
        case Unscored():
            return dict.fromkeys(LIKENESSES, record.likeness)
    return {}


def _mean(name: str, results: Sequence[Result], seed: int) -> Fields:
    numbers = [value for result in results if (value := number(result)) is not None]
    reasons = Counter(reason(result) for result in results if number(result) is None)
    found = interval(numbers, seed=seed, within=range_of(name))
    return {**asdict(found), "unscored": dict(reasons.most_common())}


def whole(video: Mapping[str, Any]) -> Mapping[str, Fields]:
    """What scores.json has of a whole video outside drift: companions, repeated frames and likenesses, by name."""
    return {**{name: video["scores"][name] for name in COMPANIONS}, REPEATED: video[REPEATED], **_beside(video)}


def _beside(video: Mapping[str, Any]) -> Mapping[str, Fields]:
    """What scores.json has of how like its reference a video is, by name."""
    reference = video.get("reference", {"scores": {}})
    found: Mapping[str, Fields] = reference.get("scores", dict.fromkeys(LIKENESSES, reference))
    return found


def _rows(report: Fields) -> Iterator[list[str]]:
    count = report["settings"]["chunks"]
    for video in report["videos"]:
        name = cell(video["name"])
        if "unscored" in video:
            yield [name, "", "", *[""] * (len(FORMS) + count), cell(video["unscored"])]
            continue
        for dimension in report["settings"]["dimensions"]:
            results = [from_json(video["scores"][f"{form}.{dimension}"]) for form in FORMS]
            told = [str(result.value) if isinstance(result, Score) else "" for result in results]
            reasons = dict.fromkeys(result.reason for result in results if isinstance(result, Unscored))
            chunks = _cells(video["chunks"].get(dimension), count)
            yield [name, dimension, "", *told, *chunks, cell("; ".join(reasons))]
        values = {**video["chunks"], **video.get("reference", {}).get("chunks", {})}
        for measure, result in whole(video).items():
            chunks = _cells(values.get(measure), count)
            value, left = str(result.get("value", "")), cell(result.get("unscored", ""))
            yield [name, measure, value, *[""] * len(FORMS), *chunks, left]


def _cells(values: Sequence[float | None] | None, count: int) -> list[str]:
    return ["" if value is None else str(value) for value in values or [None] * count]
