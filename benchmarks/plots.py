"""Draws what benchmarks measured, beside each result that has a picture: `python -m benchmarks.plots`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.record import RESULTS

Result = dict[str, Any]
Dot = tuple[float, float, float]
"""A value and its bounds."""
ROW, MARGIN = 0.26, 1.0
"""Inches."""
WIDE = 8.5
MARKS = "o<s^v>dDph"
"""Of each series of dots."""
WORTH = {
    "ground_come_back_to": "ground come back to",
    "ground_after_16_frames": "ground after 16 frames",
    "tiles_one_block_ahead": "tiles one block ahead",
}


def dots(axes: Axes, found: Mapping[str, Dot | None], series: int = 0, label: str = "") -> None:
    """A dot of that series in a line for each name, the first on top, within its bounds; none without a value."""
    rows = {row: dot for row, dot in enumerate(found.values()) if dot is not None}
    values = [value for value, _, _ in rows.values()]
    spread = [[max(0.0, v - low) for v, low, _ in rows.values()], [max(0.0, high - v) for v, _, high in rows.values()]]
    axes.errorbar(values, [*rows], xerr=spread, fmt=MARKS[series], color=f"C{series}", capsize=2, label=label)
    axes.set_yticks(range(len(found)), [*found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def figure(rows: int, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """A figure for so many lines, and its pictures side by side, which share their lines."""
    made = Figure(figsize=(WIDE, MARGIN + ROW * max(4, rows)), layout="constrained")
    return made, made.subplots(1, columns, sharey=True, squeeze=False)[0]


def legend(made: Figure) -> Figure:
    """The same with what its marks mean, told of the first picture, below."""
    marks, names = made.axes[0].get_legend_handles_labels()
    made.legend(marks, names, loc="outside lower right", ncols=len(names), fontsize="small", frameon=False)
    return made


def remembering(result: Result) -> Figure:
    """Tiles that are right on return, and what is right by chance."""
    worlds = result["worlds"]
    made, (axes,) = figure(len(worlds))
    dots(axes, {name: _dot(found["right"]) for name, found in worlds.items()}, label="right on return, 95 %")
    chance = [(value, row) for row, one in enumerate(worlds.values()) if (value := one["by_chance"]) is not None]
    axes.plot(*zip(*chance, strict=True), "|", color="0.4", markersize=12, label="by chance")
    axes.axvline(0.9, color="C2", linewidth=0.8, linestyle="--", label="bar")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return legend(made)


def growing_old(result: Result) -> Figure:
    """Milliseconds of a block and megabytes held, at every age."""
    worlds = result["worlds"]
    made, (times, bytes_held) = figure(len(worlds), 2)
    for series, age in enumerate(next(iter(worlds.values()))["block_ms"]):
        dots(times, {name: 3 * (one["block_ms"][age]["median"],) for name, one in worlds.items()}, series, f"{age} min")
        dots(bytes_held, {name: 3 * (sum(one["bytes"][age].values()) / 1e6,) for name, one in worlds.items()}, series)
    times.set_xlabel("median ms a block")
    bytes_held.set_xlabel("MB held by a session")
    for axes in (times, bytes_held):
        axes.set_xlim(left=0)
    return legend(made)


def fewer_bits(result: Result) -> Figure:
    """What a code changes in PSNR, and its bytes."""
    codes = result["storages"]
    made, (changes, shares) = figure(len(codes), 2)
    dots(changes, {name: _dot(found["likeness"]["change_db"]) for name, found in codes.items()})
    changes.axvline(-0.1, color="C2", linewidth=0.8, linestyle="--")
    changes.set_xlabel("PSNR one block ahead, change in dB, 95 % (bar dashed)")
    shares.barh(range(len(codes)), [found["bytes"]["window_share"] for found in codes.values()], color="C0", alpha=0.6)
    shares.xaxis.set_major_formatter(PercentFormatter(1))
    shares.set_xlabel("bytes of a window, of the exact ones")
    return made


def drifting(result: Result) -> Figure:
    """Clarity and identity drift at the last second that was scored."""
    worlds = result["worlds"]
    made, pictures = figure(len(worlds), 2)
    for axes, kind in zip(pictures, ("clarity", "identity"), strict=True):
        for series, end in enumerate(map(str, result["ends"])):
            found = {name: _scored(one["drift"][end][kind]) for name, one in worlds.items()}
            dots(axes, found, series, f"{end} s")
        axes.set_xlabel(f"drift of {kind}, 95 %")
        axes.set_xlim(left=0)
    return legend(made)


def worth(result: Result) -> Figure:
    """What each part is worth, with the spread over seeds."""
    rows = {name: row for name, row in result["rows"].items() if name != "start"}
    made, pictures = figure(len(rows), len(WORTH))
    for axes, (kind, title) in zip(pictures, WORTH.items(), strict=True):
        dots(axes, {name: _spread(row.get(kind)) for name, row in rows.items()})
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(title)
    return made


def finding(result: Result) -> Figure:
    """Which likeness finds the place again."""
    ranked = dict(sorted(result["right"].items(), key=lambda item: -item[1]["value"]))
    made, (axes,) = figure(len(ranked))
    dots(axes, {name: _dot(found) for name, found in ranked.items()})
    axes.axvline(result["right"]["random"]["value"], color="0.4", linewidth=0.8, linestyle="--", label="random")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("runs that show the place, 95 %")
    return legend(made)


PLOTS: dict[str, Callable[[Result], Figure]] = {
    **dict.fromkeys(("memory_5s", "memory_15s", "memory_60s", "memory_square"), remembering),
    "retrieval": finding,
    "cost": growing_old,
    **dict.fromkeys(("drift_policies", "drift_policies_60s"), drifting),
    "ablation": worth,
    "kv": fewer_bits,
}


def draw(results: Path) -> None:
    """Write NAME.svg beside each NAME.json that has a picture: of equal results, the same bytes."""
    for name, plot in PLOTS.items():
        path = results / f"{name}.json"
        if path.exists():
            with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9}):
                plot(json.loads(path.read_text())).savefig(path.with_suffix(".svg"), metadata={"Date": None})


def _dot(found: Result) -> Dot | None:
    """Of a share or a change with its interval."""
    value = found["value"]
    low, high = (value if found[side] is None else found[side] for side in ("low", "high"))
    return None if value is None else (value, low, high)


def _scored(found: Result) -> Dot | None:
    """Of a score of lvbench."""
    return _dot({**found, "value": found["mean"]}) if found["count"] else None


def _spread(found: Result | None) -> Dot | None:
    """Of means over seeds, the least and the greatest."""
    return None if found is None else (found["mean"], found["min"], found["max"])


if __name__ == "__main__":
    draw(RESULTS)
