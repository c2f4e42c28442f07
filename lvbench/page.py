"""report.html: what a folder of videos scored, on one page that needs nothing beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lvbench.bootstrap import FEWEST
from lvbench.curves import curves, span_of
from lvbench.judge import FORMS, number, reason
from lvbench.literature import CAVEAT, COLUMNS, ROWS, SOURCE
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.reference import LIKENESSES
from lvbench.report import REPEATED, higher_is_better, title, whole
from lvbench.score import from_json
from lvbench.text import amount, printable, some

DIGITS = 4
MOST_MARKS = 3
"""Reasons that are told of one mean: of many videos each may have its own."""
STYLE = """
:root{color-scheme:light dark;--line:#8888;--thin:#2f6096;--thick:#c22e43}
@media (prefers-color-scheme:dark){:root{--thin:#8fc1f5;--thick:#ff8593}}
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}
p,td,th,figcaption{overflow-wrap:break-word}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.many{font-size:.85em}.many th,.many td{padding-right:.5rem}.many td:first-child{overflow-wrap:anywhere;min-width:8rem}
.wide{overflow-x:auto;background:linear-gradient(to left,Canvas 1.5rem,transparent) right/2.5rem 100% no-repeat local,
linear-gradient(to left,#888c,transparent) right/1rem 100% no-repeat scroll}
.dim{opacity:.75;font-size:.85em;font-weight:400}.swipe{display:none}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));gap:1rem}
figure{margin:0 0 1rem}figcaption{font-size:.9em}
.tiles{min-width:calc(var(--chunks)*7rem);max-width:calc(var(--chunks)*168px)}.tiles img{display:block;width:100%}
.tiles div{display:grid;grid-template-columns:repeat(var(--chunks),1fr)}
svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor;opacity:.8}svg .label{font-size:9px}
svg path{fill:none}.axis{stroke:var(--line)}.one{stroke:var(--thin);opacity:.6}.one:hover{stroke-width:4;opacity:1}
.mean{stroke:var(--thick);stroke-width:2.5;pointer-events:none}
@media (max-width:48rem){.swipe{display:block}td:first-child,th:first-child{position:sticky;left:0;background:Canvas}
td:first-child,th:first-child{max-width:8rem;min-width:8rem;overflow-wrap:anywhere;padding-right:.5rem}
.plain td:first-child,.plain th:first-child{position:static;min-width:0}}
"""
LOW, HIGH, NEITHER = "low is good", "high is good", "a plain fact"
MEANINGS: Mapping[str, str] = {
    "clarity": "how sharp and free of noise a frame is, 0 to 100",
    "motion": "how smooth motion is: how well a frame is foretold from its two neighbours, 0 to 1",
    "aesthetic": "how beautiful a network finds a frame, 0 to 1",
    "background": "how alike the surroundings stay within a chunk, 0 to 1",
    "subject": "how alike the subject stays within a chunk, 0 to 1",
    "dynamic": "how far the fastest things move in an eighth of a second, in pixels of a picture whose "
    "shorter side is 256; for drift, to be twice as fast counts like half as fast, so that 1 is the most",
    "identity": "how much of what a chunk shows was seen in the first chunk, 0 to 1",
    "drift": "the mean relative distance of the later chunks from the first: 0 never drifts, 0.1 is 10 %",
    "drift_rising": "rising weights: the same, but the later a chunk, the more it counts",
    "vde_linear": "video drift error: the published sum, in which early chunks count most; it grows with their number",
    "vde_log": "the same sum with weights that fall more slowly",
    "subject_consistency": "how alike the subject stays over the whole video, 0 to 1",
    "background_consistency": "how alike the surroundings stay over the whole video, 0 to 1",
    "motion_smoothness": "how well frames are foretold from their neighbours, 0 to 1",
    "temporal_flicker": "steadiness: how little a frame differs from the one before, 0 to 1; a frozen video has 1",
    "aesthetic_quality": "how beautiful a network finds the frames, 0 to 1",
    "imaging_quality": "how sharp and free of noise the frames are, 0 to 1",
    "dynamic_degree": "1 where enough moves and 0 where all stands still; the mean is the share of videos that move",
    REPEATED: "the share of frames that are the same as the one before; what is frozen drifts little, and is no better",
    "psnr": "60 dB at most, which equal frames have",
    "ssim": "1 for equal frames",
    "lpips": "0 for frames that a network cannot tell apart",
    "flow_agreement": "whether the same things move the same way: 1 for equal motion, 0 for opposite or none",
}
"""Of every name on the page, in a line."""
SHARED = ("background", "subject")
"""Dimensions that are one measure of two things, and whose curves are therefore drawn to one scale."""
SAME_CURVES: Mapping[str, str] = {
    "subject_consistency": "subject",
    "background_consistency": "background",
    "motion_smoothness": "motion",
    "aesthetic_quality": "aesthetic",
    "imaging_quality": "clarity",
}
"""Companions that in a chunk are what a dimension is, or a hundredth of it, and are not drawn beside it."""
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Worst:
    """A video that drifts farthest in one or more dimensions: its contact sheet, a JPEG, or why there is none."""

    video: str
    drifts: Mapping[str, float]
    sheet: bytes | str


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why something has no number: each reason once, under a number from 1, with the videos that have it."""

    videos: Mapping[str, Sequence[str]]

    def mark(self, reasons: Iterable[str]) -> str:
        """The numbers of the first reasons of these, as markup."""
        known, told = list(self.videos), list(reasons)
        marks = [f"[{known.index(each) + 1}]" for each in told[:MOST_MARKS]]
        return " ".join([*marks, "…"] if len(told) > MOST_MARKS else marks)


def worst_of(report: Fields) -> dict[str, dict[str, float]]:
    """By video, the dimensions in which none drifts farther and by how much; a dimension where none drifts is left out.

    Of videos that drift as far in a dimension, the first by name has it.
    """
    videos = [video for video in report["videos"] if "scores" in video]
    told: dict[str, dict[str, float]] = {}
    for name in report["settings"]["dimensions"]:
        found = [(video["scores"][f"drift.{name}"].get("value", 0.0), video["name"]) for video in videos]
        value, worst = min(found, key=lambda one: (-one[0], one[1]), default=(0.0, ""))
        if round(value, DIGITS) > 0:  # it would be shown as 0
            told.setdefault(worst, {})[name] = value
    return told


def page_of(report: Fields, worst: Sequence[Worst], source: str) -> str:
    """The page of a report; names of files are text on it, never markup, and what is not printable is written out.

    Args:
        report: what report_of gives.
        worst: see worst_of.
        source: the name of the folder, or of the video, that was scored.
    """
    dimensions, chunks = report["settings"]["dimensions"], report["settings"]["chunks"]
    videos = [video for video in report["videos"] if "scores" in video]
    reasons, summary, names = _reasons(report["videos"]), report["summary"], _names(report)
    titles = {**{name: title(name) for name in COMPANIONS}, REPEATED: "repeated frames"}
    parts = [
        _head(report, source, videos),
        _section("Drift: how far later chunks are from the first", _drifts(summary, dimensions, reasons)),
        _section("Over whole videos", _list(summary, titles, reasons)),
        _section("Beside the real videos", _list(summary, LIKENESSES, reasons) + _shorter(videos)),
        _section("Over time", _curves(videos, dimensions)),
        _section("The worst of each dimension, the middle of each chunk", _figures(worst, chunks)),
        _section("Every video: drift, equal weights; low is good", _videos(videos, names, dimensions, reasons)),
        _section("Every video: over the whole of it", _wholes(videos, names, {**titles, **LIKENESSES}, reasons)),
        _section("Not scored, and why", _refused(reasons, [video["name"] for video in videos])),
        _section("Published", f"<p>{escape(CAVEAT)}</p>{_published()}<p class=dim>{escape(SOURCE)}.</p>"),
        _section("Measured with", _made_with(report)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>How far the videos drift</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def better(name: str) -> str:
    """Which way a score on the page is good: a form of drift, a companion, a likeness or a plain fact."""
    if name in (REPEATED, "dynamic_degree"):
        return NEITHER if name == REPEATED else "high is livelier"
    return HIGH if higher_is_better(name) else LOW


def _text(text: str) -> str:
    """What files are called and why they are not scored, as markup that does nothing."""
    return escape(printable(text))


def _names(report: Fields) -> list[str]:
    """What stands for each scored video in the tables: its number in the curves, its name, and what to know of it."""
    found: list[str] = []
    for video in report["videos"]:
        if "scores" in video:
            copied = report["copies"].get(video["name"])
            notes = [*([] if video["end_known"] else ["end not known"]), *([f"as {copied}"] if copied else [])]
            told = f'<br><span class="dim">{_text("; ".join(notes))}</span>' if notes else ""
            found.append(f'<span class="dim">{len(found) + 1}</span>&nbsp;{_text(video["name"])}{told}')
    return found


def _reasons(videos: Sequence[Fields]) -> Reasons:
    found: dict[str, list[str]] = {}
    for video in videos:
        parts = [video] if "unscored" in video else [*video["scores"].values(), *whole(video).values()]
        results = (from_json(part) for part in parts)
        for why in dict.fromkeys(reason(result) for result in results if number(result) is None):
            found.setdefault(why, []).append(video["name"])
    return Reasons(found)


def _head(report: Fields, source: str, videos: Sequence[Fields]) -> str:
    extractor, settings = report["extractor"], report["settings"]
    open_ended = [video["name"] for video in videos if not video["end_known"]]
    copies = [f"{name} (of {before})" for name, before in report["copies"].items()]
    told = [
        f"{source}: {amount(len(videos), 'video')} scored, {len(report['videos']) - len(videos)} not. Measured by the "
        f"extractor “{extractor['name']}” (see “Measured with”); numbers of another do not compare with these. "
        f"Each video in {settings['chunks']} equal chunks. n is how many videos a mean is over. In brackets its "
        f"95 % interval, by drawing the videos again (seed {settings['seed']}); none for fewer than {FEWEST} videos, "
        "nor where all are alike. It misses the truth in about 5 of 100 such reports, and in more where a few videos "
        "lie far from the rest. [1] is the first reason under “Not scored, and why”.",
        f"Copies, which have all scores of another, count once with it: {some(copies)}." if copies else "",
        f"Whether they were cut off is not known, since their files do not say where they end: {some(open_ended)}."
        if open_ended
        else "",
    ]
    swipe = '<p class="swipe dim">Wide tables and pictures go on to the right: swipe them.</p>'
    return f"<h1>How far the videos drift</h1>{''.join(f'<p>{_text(each)}</p>' for each in told if each)}{swipe}"


def _made_with(report: Fields) -> str:
    extractor = report["extractor"]
    rows = [
        ("decoder", report["decoder"]),
        ("code that reads, and that scores", report["scoring"]),
        (f"extractor “{extractor['name']}”", extractor["fingerprint"]),
        ("why that one", extractor["reason"]),
        *((f"weights of {name}, SHA-256", sha256) for name, sha256 in extractor["weights"].items()),
        *((f"weights of LPIPS, {name}, SHA-256", sha256) for name, sha256 in report["lpips"].items()),
    ]
    return _table(["what", "which"], [[_text(name), _text(which)] for name, which in rows])


def _section(heading: str, content: str) -> str:
    if not content:
        return ""
    # What can be scrolled can be reached without a mouse too.
    wide = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(heading)}">{content}</div>'
    return f"<h2>{escape(heading)}</h2>{wide}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "few") -> str:
    """A table of cells that are markup already; kind is "many" where it has many columns, "plain" without names."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _said(name: str, words: str) -> str:
    """A name with what it means under it."""
    return f'{escape(words)}<br><span class="dim">{escape(MEANINGS[name])}</span>'


def _headed(name: str, words: str) -> str:
    return f'{escape(words)}<br><span class="dim">{escape(better(name))}</span>'


def _mean(found: Fields, reasons: Reasons) -> str:
    without = f"{sum(found['unscored'].values())} left out {reasons.mark(found['unscored'])}"
    if found["mean"] is None:
        return f'<span class="dim">unscored, {without}</span>'
    bounds = "" if found["low"] is None else f' <span class="dim">({found["low"]:.4f} to {found["high"]:.4f})</span>'
    left = f", {without}" if found["unscored"] else ""
    return f'{found["mean"]:.4f}{bounds}<br><span class="dim">n {found["count"]}{left}</span>'


def _drifts(summary: Fields, dimensions: Sequence[str], reasons: Reasons) -> str:
    rows = [
        [_said(name, DIMENSIONS[name].title), *(_mean(summary[f"{form}.{name}"], reasons) for form in FORMS)]
        for name in dimensions
        if f"drift.{name}" in summary
    ]
    heads = [
        f'{_headed(name, form.title)}<br><span class="dim">{escape(MEANINGS[name])}</span>'
        for name, form in FORMS.items()
    ]
    return _table(["", *heads], rows) if rows else ""


def _list(summary: Fields, titles: Mapping[str, str], reasons: Reasons) -> str:
    rows = [
        [_said(name, said), _mean(summary[name], reasons), escape(better(name))]
        for name, said in titles.items()
        if name in summary
    ]
    return _table(["", "mean", "which way"], rows) if rows else ""


def _shorter(videos: Sequence[Fields]) -> str:
    """Of which videos only a part has a real one beside it, and chunks of another length."""
    beside = [(video, video["reference"].get("frames", video["frames"])) for video in videos if "reference" in video]
    cut = [f"{video['name']} ({frames} of {video['frames']})" for video, frames in beside if frames < video["frames"]]
    told = (
        f"Of some the real video is shorter, and only so many frames are compared, in as many chunks: {', '.join(cut)}"
    )
    return f'<p class="dim">{_text(told)}.</p>' if cut else ""


def _curves(videos: Sequence[Fields], dimensions: Sequence[str]) -> str:
    values = [{**video["chunks"], **video.get("reference", {}).get("chunks", {})} for video in videos]
    labels = [(str(at), f"{at} {printable(video['name'])}") for at, video in enumerate(videos, start=1)]
    shared = [row[name] for row in values for name in SHARED if name in row]
    figures = []
    for name, words in _drawn(dimensions).items():
        told = [(row[name], label) for row, label in zip(values, labels, strict=True) if name in row]
        if told:
            lines, named = zip(*told, strict=True)
            picture = curves(
                words.partition(" (of a whole")[0], lines, span_of(shared) if name in SHARED else None, named
            )
            figures.append(f"<figure><figcaption>{_said(name, words)}</figcaption>{picture}</figure>")
    text = (
        "A thin line for each video, and a thick one for their mean. At its end is its number in the tables "
        "“Every video”, where there is room; pointed at, a line tells its name. Background and subject have one scale."
    )
    return f'<p class="dim">{text}</p><div class="grid">{"".join(figures)}</div>' if figures else ""


def _drawn(dimensions: Sequence[str]) -> dict[str, str]:
    """What is drawn over time, by name, in words: dimensions, companions that are not the same, and likenesses."""
    words = {}
    for name in dimensions:
        same = [title(other) for other, shown in SAME_CURVES.items() if shown == name]
        words[name] = f"{DIMENSIONS[name].title}{f' (of a whole video: {same[0]})' if same else ''}"
    others = {name: title(name) for name in COMPANIONS if SAME_CURVES.get(name) not in dimensions}
    return {**words, **others, **LIKENESSES}


def _figures(worst: Sequence[Worst], chunks: int) -> str:
    return "".join(_figure(one, chunks) for one in worst)


def _figure(worst: Worst, chunks: int) -> str:
    drifts = ", ".join(f"{DIMENSIONS[name].title} {drift:.4f}" for name, drift in worst.drifts.items())
    said = f"<figcaption>{_text(f'{worst.video}: {drifts}')}</figcaption>"
    if isinstance(worst.sheet, str):
        return f'<figure>{said}<p class="dim">{_text(worst.sheet)}</p></figure>'
    labels = "".join(f"<span>{'chunk ' if at == 1 else ''}{at}</span>" for at in range(1, chunks + 1))
    seen = _text(f"{worst.video}: the middle frame of each of {chunks} chunks, the first on the left")
    data = b64encode(worst.sheet).decode()
    return (
        f'<figure>{said}<div class="tiles" style="--chunks:{chunks}"><div class="dim">{labels}</div>'
        f'<img alt="{seen}" src="data:image/jpeg;base64,{data}"></div></figure>'
    )


def _cell(fields: Fields, reasons: Reasons) -> str:
    """The number of one video, or where to find why it has none."""
    result = from_json(fields)
    value = number(result)
    return f'<span class="dim">{reasons.mark([reason(result)])}</span>' if value is None else f"{value:.4f}"


def _videos(videos: Sequence[Fields], names: Sequence[str], dimensions: Sequence[str], reasons: Reasons) -> str:
    rows = [
        [name, *(_cell(one["scores"][f"drift.{dimension}"], reasons) for dimension in dimensions)]
        for one, name in zip(videos, names, strict=True)
    ]
    return _table(["video", *(escape(DIMENSIONS[name].title) for name in dimensions)], rows) if rows else ""


def _wholes(videos: Sequence[Fields], named: Sequence[str], titles: Mapping[str, str], reasons: Reasons) -> str:
    """What is said of each whole video outside drift."""
    told = [whole(video) for video in videos]
    names = [name for name in titles if any(name in results for results in told)]
    rows = [
        [video, *(_cell(results[name], reasons) if name in results else "" for name in names)]
        for results, video in zip(told, named, strict=True)
    ]
    return _table(["video", *(_headed(name, titles[name]) for name in names)], rows, "many") if rows else ""


def _refused(reasons: Reasons, scored: Sequence[str]) -> str:
    rows = [
        [f"[{at}]", _text(why), "every scored video" if names == scored else _text(", ".join(names))]
        for at, (why, names) in enumerate(reasons.videos.items(), start=1)
    ]
    return _table(["", "why", "videos"], rows, "plain") if rows else ""


def _published() -> str:
    heads = [_headed(name.partition(".")[0], title(name).removesuffix(", as published")) for name in COLUMNS]
    rows = [[escape(name), *(f"{value:.4f}" for value in row)] for name, row in ROWS.items()]
    return _table(["", *heads], rows, "many")
