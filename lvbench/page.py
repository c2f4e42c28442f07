"""report.html: what a folder of videos scored, on one page that needs nothing beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lvbench.curves import curves
from lvbench.judge import FORMS, title
from lvbench.literature import CAVEAT, COLUMNS, ROWS, SOURCE
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.reference import LIKENESSES

WORST = 6
"""Contact sheets on a page."""
STYLE = """
:root{color-scheme:light dark;--line:#8884;--thin:#4a7ab0;--thick:#d1495b}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.wide{overflow-x:auto}.dim{opacity:.7;font-size:.85em}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}
figure{margin:0}figcaption{font-size:.9em}img{max-width:100%;height:auto}
svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor;opacity:.75}
svg path{fill:none}.axis{stroke:var(--line)}.one{stroke:var(--thin);opacity:.35}
.mean{stroke:var(--thick);stroke-width:2.5}
"""
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Worst:
    """A video that drifts far in one dimension: its contact sheet, a JPEG, or why there is none."""

    video: str
    dimension: str
    drift: float
    sheet: bytes | str


def worst_of(report: Fields) -> list[tuple[str, str, float]]:
    """(video, dimension, drift) of the largest drifts, the largest first; no dimension and no video twice."""
    found = [
        (video["scores"][f"drift.{name}"].get("value", 0.0), video["name"], name)
        for video in report["videos"]
        if "scores" in video
        for name in report["settings"]["dimensions"]
    ]
    told: list[tuple[str, str, float]] = []
    for value, video, name in sorted(found, key=lambda one: (-one[0], one[1], one[2])):
        if value > 0 and all(video != one[0] and name != one[1] for one in told):
            told.append((video, name, value))
    return told[:WORST]


def page_of(report: Fields, worst: Sequence[Worst]) -> str:
    """The page of a report; names of files are text on it and never markup."""
    dimensions = report["settings"]["dimensions"]
    videos = [video for video in report["videos"] if "scores" in video]
    parts = [
        _head(report, len(videos)),
        _section("Drift: how far later chunks are from the first", _drifts(report["summary"], dimensions)),
        _section("Over whole videos", _list(report["summary"], {name: title(name) for name in COMPANIONS})),
        _section("Beside the real videos", _list(report["summary"], LIKENESSES)),
        _section("Over time", _curves(videos, dimensions)),
        _section("The worst drifts, the middle of each chunk", "".join(map(_figure, worst))),
        _section("Every video: drift, equal weights", _videos(videos, dimensions)),
        _section("Not scored", _refused(report["videos"])),
        _section("Published", f"<p>{escape(CAVEAT)}</p>{_published()}<p class=dim>{escape(SOURCE)}.</p>"),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>How far the videos drift</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _head(report: Fields, scored: int) -> str:
    extractor, settings = report["extractor"], report["settings"]
    told = (
        f"{scored} videos scored, {len(report['videos']) - scored} not. Measured by the extractor "
        f"“{extractor['name']}” (because {extractor['reason']}), {extractor['fingerprint'][:12]}; numbers of another "
        "do not compare with these. "
        f"Each video in {settings['chunks']} equal chunks. In brackets the 95 % interval of the mean, by drawing the "
        f"videos again (seed {settings['seed']}). Decoded by {report['decoder']}."
    )
    return f"<h1>How far the videos drift</h1><p>{escape(told)}</p>"


def _section(heading: str, content: str) -> str:
    return f'<h2>{escape(heading)}</h2><div class="wide">{content}</div>' if content else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are markup already."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _mean(found: Fields) -> str:
    if found["mean"] is None:
        return f'<span class="dim">unscored: {escape("; ".join(found["unscored"]))}</span>'
    bounds = "" if found["low"] is None else f' <span class="dim">({found["low"]:.4f} to {found["high"]:.4f})</span>'
    without = "; ".join(f"{count} left out: {reason}" for reason, count in found["unscored"].items())
    left = f'<br><span class="dim">{escape(without)}</span>' if without else ""
    return f"{found['mean']:.4f}{bounds}{left}"


def _drifts(summary: Fields, dimensions: Sequence[str]) -> str:
    rows = [
        [escape(DIMENSIONS[name].title), *(_mean(summary[f"{form}.{name}"]) for form in FORMS)]
        for name in dimensions
        if f"drift.{name}" in summary
    ]
    return _table(["", *(escape(form.title) for form in FORMS.values())], rows) if rows else ""


def _list(summary: Fields, titles: Mapping[str, str]) -> str:
    rows = [[escape(said), _mean(summary[name])] for name, said in titles.items() if name in summary]
    return _table(["", "mean"], rows) if rows else ""


def _curves(videos: Sequence[Fields], dimensions: Sequence[str]) -> str:
    drawn = {
        DIMENSIONS[name].title: [video["chunks"][name] for video in videos if name in video["chunks"]]
        for name in dimensions
    }
    for name, said in LIKENESSES.items():
        beside = [video["reference"] for video in videos if "chunks" in video.get("reference", {})]
        drawn[said] = [reference["chunks"][name] for reference in beside if name in reference["chunks"]]
    figures = [
        f"<figure>{curves(said, lines)}<figcaption>{escape(said)}</figcaption></figure>"
        for said, lines in drawn.items()
        if lines
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _figure(worst: Worst) -> str:
    what = f"{DIMENSIONS[worst.dimension].title} {worst.drift:.4f}: {worst.video}"
    said = f"<figcaption>{escape(what)}</figcaption>"
    if isinstance(worst.sheet, str):
        return f'<figure>{said}<p class="dim">{escape(worst.sheet)}</p></figure>'
    return f'<figure>{said}<img alt="" src="data:image/jpeg;base64,{b64encode(worst.sheet).decode()}"></figure>'


def _videos(videos: Sequence[Fields], dimensions: Sequence[str]) -> str:
    def cell(result: Fields) -> str:
        if "unscored" in result:
            return f'<span class="dim" title="{escape(result["unscored"])}">unscored</span>'
        return f"{result['value']:.4f}"

    rows = [[escape(one["name"]), *(cell(one["scores"][f"drift.{name}"]) for name in dimensions)] for one in videos]
    return _table(["video", *(escape(DIMENSIONS[name].title) for name in dimensions)], rows) if rows else ""


def _refused(videos: Sequence[Fields]) -> str:
    rows = [[escape(video["name"]), escape(video["unscored"])] for video in videos if "unscored" in video]
    return _table(["video", "why"], rows) if rows else ""


def _published() -> str:
    heads = ["", *(escape(title(column).removesuffix(", as published")) for column in COLUMNS)]
    return _table(heads, [[escape(name), *(f"{value:.4f}" for value in row)] for name, row in ROWS.items()])
