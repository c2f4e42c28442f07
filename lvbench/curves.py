"""Draws the values of the chunks of many videos as lines, in SVG that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 10, 24
FLATTEST = 1e-9
"""Span of values, below which a curve is drawn in the middle."""
LEAST = 0.1
"""Of how large the first values are on average: a span no smaller, so that a drift of a few per cent looks like one."""
LABEL_PX = 9
"""Height of a label at the end of a line."""
FARTHEST_PX = 2 * LABEL_PX
"""From the end of its line: a label that had to be farther away is left out, for it would seem to be another's."""

Line = Sequence[float | None]


def span_of(lines: Sequence[Line]) -> tuple[float, float] | None:
    """The least and the largest value, for pictures of one scale, or more around them if they lie close; None without.

    They are apart by a tenth of the mean size of the first values at least, or by 1 where that is 0 and all are alike.
    """
    known = [values for line in lines if (values := [value for value in line if value is not None])]
    if not known:
        return None
    low, high = min(map(min, known)), max(map(max, known))
    least = LEAST * math.fsum(abs(values[0]) for values in known) / len(known)
    if max(least, high - low) < FLATTEST:
        least = 1.0
    if high - low >= least:
        return low, high
    middle = (low + high) / 2
    return middle - least / 2, middle + least / 2


def curves(
    title: str,
    lines: Sequence[Line],
    span: tuple[float, float] | None = None,
    labels: Sequence[tuple[str, str]] = (),
) -> str:
    """An <svg> with a thin line for each video and a thick one for their mean.

    Args:
        title: said to whoever cannot see it.
        lines: a value for each chunk, None where there is none; all of one length, at least 2.
        span: the values at the bottom and the top; by default those of these lines.
        labels: for each line what stands at its end, where there is room, and what is told where one points at it.
    """
    own = span_of(lines)
    if own is None:
        return ""
    low, high = span or own
    told = [f"<title>{escape(said)}</title>" for _, said in labels] or [""] * len(lines)
    thin = "".join(
        f'<path class="one" d="{_path(line, low, high)}">{said}</path>' for line, said in zip(lines, told, strict=True)
    )
    scale = (
        f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">first chunk</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">last</text>'
    )
    frame = f'<path class="axis" d="M{LEFT},{TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
    last = [line[-1] for line in lines] if labels else []
    named = zip(last, [label for label, _ in labels], strict=True)
    ends = [(_height(value, low, high), label) for value, label in named if value is not None]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{frame}{thin}<path class="mean" d="{_path(_mean(lines), low, high)}"/>{scale}{_labels(ends)}</svg>'
    )


def _labels(ends: Sequence[tuple[float, str]]) -> str:
    """A label beside the end of each line, given its height; below another where that would cover it."""
    told, free = [], -math.inf
    for height, label in sorted(ends):
        place = max(height, free)
        if place - height <= FARTHEST_PX:
            told.append(f'<text class="label" x="{WIDTH - RIGHT + 4}" y="{place + 3:.1f}">{escape(label)}</text>')
            free = place + LABEL_PX
    return "".join(told)


def _mean(lines: Sequence[Line]) -> list[float | None]:
    """The mean of each chunk over the videos that have a value there."""
    columns = [[value for value in column if value is not None] for column in zip(*lines, strict=True)]
    return [math.fsum(column) / len(column) if column else None for column in columns]


def _path(line: Line, low: float, high: float) -> str:
    """A line in the commands of SVG, broken where there is no value."""
    steps, pen = [], "M"
    for at, value in enumerate(line):
        if value is None:
            pen = "M"
            continue
        x = LEFT + at * (WIDTH - LEFT - RIGHT) / max(1, len(line) - 1)
        steps.append(f"{pen}{x:.1f},{_height(value, low, high):.1f}")
        pen = "L"
    return "".join(steps)


def _height(value: float, low: float, high: float) -> float:
    return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
