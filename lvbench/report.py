"""What is told of a folder of videos: scores.json and scores.csv, the numbers of the page.

scores.json, schema 1:
    schema, decoder, settings {chunks, dimensions, seed}
    extractor {name, reason, fingerprint, weights}: which one, why, a hash of all that its numbers depend on, and the
        SHA-256 of the weights of each of its networks
    lpips: the same hashes of what compared with references, empty without it
    videos: in order of their names, each {name, unscored} with the reason, or
        {name, sha256, container, codec, width, height, fps, frames,
         chunks: {dimension: [a number or null a chunk]}, scores: {form.dimension or companion: result},
         reference: {chunks, scores} or {unscored}, if there was one}
    summary: {score: {mean, low, high, count, unscored: {reason: videos}}}, over those that have a finite number
A result is {value, count} or {unscored} with the reason. A value that is not finite, which only the published form
gives, is "inf", "-inf" or "nan". Every video counts once in a mean, however long it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from lvbench.bootstrap import interval
from lvbench.errors import ReportError
from lvbench.examine import Record, Refused, Settings
from lvbench.judge import FORMS, number
from lvbench.presets import extractor_of
from lvbench.reference import Likeness
from lvbench.score import Result, Score, Unscored, from_json, to_json
from lvbench.video import DECODER
from lvbench.weights import Networks

SCHEMA = 1
SCORES = "scores.json"
Fields = dict[str, Any]


def report_of(records: Sequence[Record | Refused], settings: Settings, seed: int) -> Fields:
    """The content of scores.json; see the module. Equal records give equal reports, to the last bit."""
    extractor = extractor_of(settings.extractor, settings.networks)
    told = sorted(records, key=lambda record: record.name)
    return {
        "schema": SCHEMA,
        "decoder": DECODER,
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
    """Write scores.csv: a row for each video and dimension, with the values of the chunks and each form of drift."""
    chunks = report["settings"]["chunks"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["video", "dimension", *FORMS, *(f"chunk_{at + 1}" for at in range(chunks)), "unscored"])
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
    videos: Mapping[str, Mapping[str, Result]]


def read_scores(path: Path) -> Scores:
    """Read scores.json, given itself or its folder. Raises ReportError if it is none."""
    file = path / SCORES if path.is_dir() else path
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        if fields["schema"] != SCHEMA:
            raise ReportError(
                f"{file} has schema {fields['schema']}, this lvbench reads {SCHEMA}; score the videos again"
            )
        videos = {
            str(video["name"]): {str(name): from_json(result) for name, result in video["scores"].items()}
            for video in fields["videos"]
            if "unscored" not in video
        }
        extractor, settings = fields["extractor"], fields["settings"]
        made_with = {
            "extractor": extractor["name"],
            "fingerprint": extractor["fingerprint"],
            "chunks": settings["chunks"],
            "decoder": fields["decoder"],
        }
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}; `lvbench score` writes it") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReportError(f"{file} is no report of lvbench; `lvbench score` writes one") from error
    return Scores(made_with, videos)


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
        "frames": record.frames,
        "chunks": _chunks(record.judged.chunks),
        "scores": _results(record.judged.scores),
    }
    match record.likeness:
        case Likeness(chunks, scores):
            fields["reference"] = {"chunks": _chunks(chunks), "scores": _results(scores)}
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
            likeness = record.likeness.scores if isinstance(record.likeness, Likeness) else {}
            for name, result in {**record.judged.scores, **likeness}.items():
                results.setdefault(name, []).append(result)
    return {name: _mean(found, seed) for name, found in results.items()}


def _mean(results: Sequence[Result], seed: int) -> Fields:
    numbers = [value for result in results if (value := number(result)) is not None]
    reasons = Counter(_reason(result) for result in results if number(result) is None)
    found = interval(numbers, seed=seed) if numbers else None
    bounds = asdict(found) if found else {"mean": None, "low": None, "high": None, "count": 0}
    return {**bounds, "unscored": dict(reasons.most_common())}


def _reason(result: Result) -> str:
    return result.reason if isinstance(result, Unscored) else f"as published it is {result.value}"


def _rows(report: Fields) -> Iterator[list[str]]:
    count = report["settings"]["chunks"]
    for video in report["videos"]:
        if "unscored" in video:
            yield [video["name"], "", *[""] * (len(FORMS) + count), video["unscored"]]
            continue
        for dimension in report["settings"]["dimensions"]:
            results = [from_json(video["scores"][f"{form}.{dimension}"]) for form in FORMS]
            values = video["chunks"].get(dimension, [None] * count)
            told = [str(result.value) if isinstance(result, Score) else "" for result in results]
            reasons = dict.fromkeys(result.reason for result in results if isinstance(result, Unscored))
            chunks = ["" if value is None else str(value) for value in values]
            yield [video["name"], dimension, *told, *chunks, "; ".join(reasons)]
