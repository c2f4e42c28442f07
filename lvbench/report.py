"""What is told of a folder of videos: scores.json and scores.csv, the numbers of the page.

scores.json, schema 2:
    schema, decoder, settings {chunks, dimensions, seed}
    scoring: hashes of the code that reads videos, and of that which makes scores of what was measured
    extractor {name, reason, fingerprint, weights}: which one, why, a hash of all that its numbers depend on, and the
        SHA-256 of the weights of each of its networks
    lpips: the same hashes of what compared with references, empty without it
    videos: in order of their names, each {name, unscored} with the reason, or
        {name, sha256, container, codec, width, height, fps, end_known, frames,
         chunks: {dimension: [a number or null a chunk]}, scores: {form.dimension or companion: result},
         repeated_frames: result, the share of frames that are the same as the one before,
         reference: {frames, chunks, scores} or {unscored}, if there was one; over those frames that both have}
    summary: {score: {mean, low, high, count, unscored: {reason: videos}}}, over those that have a finite number
Of a video whose end_known is false nobody can tell whether it was cut off: the file does not say where it ends.
A result is {value, count} or {unscored} with the reason. A value that is not finite, which only the published form
gives, is "inf", "-inf" or "nan". Every video counts once in a mean, however long it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

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
JUDGING = ("consistency", "drift", "dynamics", "judge", "measures")
"""Modules that make scores; by name, since what `from lvbench import drift` gives is the function."""
SCORING = f"{READER} {hash_of_code(*(sys.modules[f'lvbench.{name}'] for name in JUDGING))}"
Fields = dict[str, Any]
Video = Mapping[str, Result] | Unscored
"""The results of a video by name, or why it has none."""


def report_of(records: Sequence[Record | Refused], settings: Settings, seed: int) -> Fields:
    """The content of scores.json; see the module. Equal records give equal reports, to the last bit."""
    extractor = extractor_of(settings.extractor, settings.networks)
    told = sorted(records, key=lambda record: record.name)
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
        "summary": _summary(told, seed),
    }


def write_json(report: Fields, folder: Path) -> None:
    """Write scores.json; the one that was there stays whole until the new one is."""
    write(folder / SCORES, json.dumps(report, indent=1, allow_nan=False) + "\n")


def write_csv(report: Fields, folder: Path) -> None:
    """Write scores.csv: a row for each video and dimension, with the values of the chunks and each form of drift.

    Companions, repeated frames and, where there are references, likenesses have a row each too, with the value of the
    whole video in place of drift. No cell is a formula, whatever a video is called.
    """
    chunks = report["settings"]["chunks"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["video", "dimension", "value", *FORMS, *(f"chunk_{at + 1}" for at in range(chunks)), "unscored"])
    rows.writerows(_rows(report))
    write(folder / "scores.csv", text.getvalue())


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises ReportError if it cannot be written."""
    part = path.with_name(f"{path.name}.{token_hex(4)}.part")  # two runs may write one report at once
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be any bytes
        part.replace(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):
            part.unlink()


@dataclass(frozen=True, slots=True)
class Scores:
    """A report as it was read again: what it was made with, and each video's results by name."""

    made_with: Mapping[str, Any]
    videos: Mapping[str, Video]


def read_scores(path: Path) -> Scores:
    """Read scores.json, given itself or its folder. Raises ReportError if it is none."""
    file = path / SCORES if path.is_dir() else path
    try:
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
            "chunks": settings["chunks"],
            "decoder": fields["decoder"],
            "scoring": fields["scoring"],
        }
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}; `lvbench score` writes it") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ReportError(f"{file} is no report of lvbench; `lvbench score` writes one") from error
    return Scores(made_with, videos)


def _read(video: Fields) -> Video:
    if "unscored" in video:
        return Unscored(str(video["unscored"]))
    return {str(name): from_json(result) for name, result in video["scores"].items()}


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
    match record.likeness:
        case Likeness(chunks, scores):
            compared = next(score.count for score in scores.values() if isinstance(score, Score))
            fields["reference"] = {"frames": compared, "chunks": _chunks(chunks), "scores": _results(scores)}
        case Unscored(reason):
            fields["reference"] = {"unscored": reason}
    return fields


def _hashes(networks: Networks | None) -> Fields:
    weights = networks.weights if networks else {}
    return {name: weights[name].sha256 for name in sorted(weights)}


def _chunks(values: Mapping[str, Sequence[float]]) -> Fields:
    return {name: [value if math.isfinite(value) else None for value in row] for name, row in values.items()}


def _results(results: Mapping[str, Result]) -> Fields:
    return {name: to_json(result) for name, result in results.items()}


def _summary(records: Sequence[Record | Refused], seed: int) -> Fields:
    results: dict[str, list[Result]] = {}
    for record in records:
        if isinstance(record, Record):
            told = {**record.judged.scores, REPEATED: record.judged.repeated, **_likeness(record)}
            for name, result in told.items():
                results.setdefault(name, []).append(result)
    return {name: _mean(found, seed) for name, found in results.items()}


def _likeness(record: Record) -> Mapping[str, Result]:
    match record.likeness:
        case Likeness(_, scores):
            return scores
        case Unscored():
            return dict.fromkeys(LIKENESSES, record.likeness)
    return {}


def _mean(results: Sequence[Result], seed: int) -> Fields:
    numbers = [value for result in results if (value := number(result)) is not None]
    reasons = Counter(reason(result) for result in results if number(result) is None)
    return {**asdict(interval(numbers, seed=seed)), "unscored": dict(reasons.most_common())}


def whole(video: Mapping[str, Any]) -> Mapping[str, Fields]:
    """What scores.json has of a whole video outside drift: companions, repeated frames and likenesses, by name."""
    beside = video.get("reference", {"scores": {}})
    likenesses = beside.get("scores", dict.fromkeys(LIKENESSES, beside))
    return {**{name: video["scores"][name] for name in COMPANIONS}, REPEATED: video[REPEATED], **likenesses}


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
        beside = video.get("reference", {}).get("chunks", {})
        for measure, result in whole(video).items():
            chunks = _cells(beside.get(measure), count)
            value, left = str(result.get("value", "")), cell(result.get("unscored", ""))
            yield [name, measure, value, *[""] * len(FORMS), *chunks, left]


def _cells(values: Sequence[float | None] | None, count: int) -> list[str]:
    return ["" if value is None else str(value) for value in values or [None] * count]
