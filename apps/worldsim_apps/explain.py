"""What each block of a walk attended to: measured while it is made, drawn as a picture and told in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worldsim.cache.policies import policy_text
from worldsim.cache.sight import Sight
from worldsim.errors import ConfigError
from worldsim.files import make_folder, make_folders
from worldsim.runtime.growing import GrowingFile
from worldsim.runtime.session import Session
from worldsim.runtime.world import World

PROBES = 64
"""Queries that are asked in every layer of a block, of the 81 and more that it has."""
SINGLE, GROWTH = 40, 1.2
"""Up to so many frames back each has a row of its own; beyond, each row spans that many times more than the last."""
STEPS_S = (0.25, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 7200, 36000)
"""World time between two labels."""
MOST_COLUMNS = 960
"""Blocks that are drawn apart; of more, neighbours share a column, which shows their mean."""
PLOT_WIDTH, PLOT_HEIGHT, NARROWEST = 960, 420, 420
LEFT, RIGHT, TOP, BOTTOM, GAP = 84, 96, 80, 48, 6
PAPER, INK, UNSEEN, BORDER = (255, 255, 255), (40, 36, 32), (232, 230, 226), (60, 60, 230)
"""BGR, as OpenCV has it."""

Picture = NDArray[np.uint8]
Table = NDArray[np.float64]


class Explained:
    """The attention of the blocks of one session; a context that draws it if what is within fails.

    Args:
        world: in which the session is opened next; from now on its blocks are measured.
        path: of the picture, a .png; without one nothing is measured.

    Raises:
        ConfigError: the picture has another ending, there is a folder of its name, or a file where its folder is to be.
        OSError: there is no folder for it that can be written to, and none can be made.
    """

    def __init__(self, world: World, path: Path | None) -> None:
        if path is not None and path.suffix.lower() != ".png":
            raise ConfigError(f"what is explained is drawn as a .png, got {path}; give the file that ending")
        if path is not None and path.is_dir():
            raise ConfigError(f"{path} is a folder, and what is explained is drawn to a file; name another")
        self._path = path
        self._of = f"{world.origin.name}, policy {policy_text(world.plan.policy)}"
        # Of latent frames, which is what a block sees.
        self._length = world.plan.frames_per_block
        self._fps = world.fps * self._length / world.frames_per_block
        self._seen: list[Sight] = []
        if path is not None:
            make_folders(path)
            make_folder(path.parent)
            world.plan = replace(world.plan, probes=PROBES)

    def __enter__(self) -> None:
        pass

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        if fault is not None:
            with suppress(OSError):  # the fault is what is to be told
                self.draw()

    def follow(self, session: Session, on_frames: Callable[[int], None]) -> Callable[[int], None]:
        """What is to be called after every block with its number of frames: it notes what the block attended to."""
        if self._path is None:
            return on_frames

        def note(frames: int) -> None:
            self._seen.append(session.seen)
            on_frames(frames)

        return note

    def draw(self) -> None:
        """Draw the picture, if there is a path and a block; OSError if it cannot be written: what was there stays."""
        if self._path is None or not self._seen:
            return
        drawn = drawing(self._seen, of=self._of, length=self._length, fps=self._fps)
        try:
            with ExitStack() as ends:
                file = GrowingFile(self._path)
                ends.callback(file.discard)
                file.write(cv2.imencode(".png", drawn)[1].tobytes())
                file.close()
        except OSError as error:
            raise OSError(
                f"the walk is made, and {self._path}, which explains it, cannot be written: {error.strerror or error}; "
                "free some space, or name another file"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The numbers, fit for JSON; nothing without a path or a block."""
        if self._path is None or not self._seen:
            return {}
        blocks = [
            {"frames": seen.frames, "retrieved": seen.retrieved, "shares": [round(share, 5) for share in seen.shares]}
            for seen in self._seen
        ]
        return {"explain": {"path": str(self._path), "probes": PROBES, "blocks": blocks}}


def bands(oldest: int) -> list[range]:
    """Ages in frames, from 1 to at least the oldest, one range for each row of the picture."""
    if oldest <= SINGLE:
        return [range(age, age + 1) for age in range(1, oldest + 1)]
    rows, start = [], 1
    while start <= oldest:
        end = max(start + 1, round(start * GROWTH))
        rows.append(range(start, end))
        start = end
    return rows


def by_age(seen: Sequence[Sight], rows: Sequence[range], *, length: int) -> Table:
    """The share of attention that each age received of each block, [rows + 1, blocks]; the last row is the block's own.

    Args:
        seen: what each block saw, from block 0 on, frames numbered from its first.
        rows: ages that are told apart, in frames before the first frame of a block.
        length: frames in a block.

    Returns:
        NaN where a block saw no frame of that age.
    """
    table = np.full((len(rows) + 1, len(seen)), np.nan)
    starts = [row.start for row in rows]
    for block, sight in enumerate(seen):
        ages = block * length - np.array(sight.frames, dtype=np.int64)
        places = np.searchsorted(starts, ages, side="right") - 1
        table[np.unique(places), block] = 0.0
        np.add.at(table[:, block], places, sight.shares)
        table[-1, block] = max(0.0, 1.0 - sum(sight.shares))
    return table


def retrieved_rows(seen: Sequence[Sight], rows: Sequence[range], *, length: int) -> list[list[range]]:
    """Of each block the rows in which frames lie that were retrieved for it, as runs of rows that lie together.

    Args:
        seen, rows, length: as for `by_age`.
    """
    starts = [row.start for row in rows]
    found: list[list[range]] = []
    for block, sight in enumerate(seen):
        ages = block * length - np.array(sight.retrieved, dtype=np.int64)
        places = np.unique(np.searchsorted(starts, ages, side="right") - 1)
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
        found.append([range(int(run[0]), int(run[-1]) + 1) for run in runs])
    return found


def drawing(seen: Sequence[Sight], *, of: str, length: int, fps: float) -> Picture:
    """The picture, BGR uint8 [H, W, 3]: blocks from left to right, what lies further back higher up, the block below.

    Args:
        seen: what each of at least one block saw, as for `by_age`.
        of: the world and the policy that it is of.
        length: frames in a block.
        fps: frames in a second.
    """
    oldest = max((block * length - sight.frames[0] for block, sight in enumerate(seen) if sight.frames), default=1)
    rows = bands(oldest)
    table = _merged(by_age(seen, rows, length=length))
    top = float(np.nanmax(table)) or 1.0
    height, width = max(4, min(16, PLOT_HEIGHT // len(rows))), max(1, min(48, PLOT_WIDTH // table.shape[1]))
    past, own = _cells(table[-2::-1], top, height, width), _cells(table[-1:], top, max(12, height), width)
    heads = [of, "Attention that each block pays to the past, by how far back it lies", _axis(rows)]
    brought = retrieved_rows(seen, rows, length=length)
    if any(brought):
        heads[2] += "; between red lines: retrieved"
        _mark(past, brought, (height, width))
    wide = max(past.shape[1], NARROWEST, *map(_width, heads))
    canvas = np.full((TOP + len(past) + GAP + len(own) + BOTTOM, LEFT + wide + RIGHT, 3), PAPER, np.uint8)
    below = TOP + len(past) + GAP
    canvas[TOP : TOP + len(past), LEFT : LEFT + past.shape[1]] = past
    canvas[below : below + len(own), LEFT : LEFT + own.shape[1]] = own
    for line, text in enumerate(heads):
        _say(canvas, text, (LEFT, 22 + 18 * line))
    _name_rows(canvas, rows, height, fps)
    _say(canvas, "itself", (LEFT - 6, below + 11), right=True)
    _name_columns(canvas, len(seen) * length / fps, past.shape[1])
    _draw_scale(canvas, top, len(past))
    return canvas


def _axis(rows: Sequence[range]) -> str:
    """How the rows go on from one to the next."""
    if rows[-1].start == len(rows):
        return "Rows go up in equal steps"
    return f"Rows go up by logarithm, each {GROWTH:g} times as far back as the one below"


def _mark(past: Picture, brought: Sequence[Sequence[range]], cell: tuple[int, int]) -> None:
    """Draw a line below and above those rows of each block, counted from the lowest, in cells of (height, width)."""
    height, width = cell
    each = -(-len(brought) // MOST_COLUMNS)
    for block, runs in enumerate(brought):
        for border in (border for run in runs for border in (run.start, run.stop)):
            left, line = block // each * width, len(past) - border * height
            past[max(0, line - 1) : line + 1, left : left + width] = BORDER


def _merged(table: Table) -> Table:
    """The table with at most MOST_COLUMNS columns: neighbours in one, as the mean of those that saw anything there."""
    each = -(-table.shape[1] // MOST_COLUMNS)
    if each == 1:
        return table
    padded = np.pad(table, ((0, 0), (0, -table.shape[1] % each)), constant_values=np.nan)
    groups = padded.reshape(len(table), -1, each)
    known = np.isfinite(groups).sum(-1)
    return np.where(known > 0, np.nansum(groups, -1) / np.maximum(known, 1), np.nan)


def _cells(table: Table, top: float, height: int, width: int) -> Picture:
    """A cell of that size for each value, the square root of its share of `top` as a colour; grey where it is NaN."""
    strength = (255 * np.sqrt(np.clip(np.nan_to_num(table) / top, 0, 1))).astype(np.uint8)
    coloured = np.asarray(cv2.applyColorMap(strength, cv2.COLORMAP_VIRIDIS), np.uint8)
    coloured[np.isnan(table)] = UNSEEN
    return coloured.repeat(height, 0).repeat(width, 1)


def _name_rows(canvas: Picture, rows: Sequence[range], height: int, fps: float) -> None:
    every = max(1, -(-18 // height))
    for at in range(0, len(rows), every):
        from_top = len(rows) - 1 - at
        age = rows[at].start / fps
        text = f"{age:.2g} s" if age < 10 else f"{age:.0f} s" if age < 120 else f"{age / 60:.0f} min"
        _say(canvas, text, (LEFT - 6, TOP + from_top * height + height // 2 + 4), right=True)


def _name_columns(canvas: Picture, seconds: float, width: int) -> None:
    below = canvas.shape[0] - BOTTOM + 18
    step = next(step for step in STEPS_S if seconds / step <= max(1, width // 80) or step == STEPS_S[-1])
    for at in range(int(seconds / step) + 1):
        _say(canvas, f"{at * step:g}", (LEFT + round(width * at * step / seconds) - 3, below))
    _say(canvas, "world time in seconds", (LEFT, below + 20))


def _draw_scale(canvas: Picture, top: float, height: int) -> None:
    """What the colours of the past mean, at the right edge."""
    left = canvas.shape[1] - RIGHT + 18
    ramp = _cells(np.linspace(top, 0, height)[:, None], top, 1, 14)
    canvas[TOP : TOP + height, left : left + 14] = ramp
    for part in (1.0, 0.5, 0.25, 0.0) if height > 60 else (1.0, 0.0):
        _say(canvas, f"{100 * top * part:.2g} %", (left + 20, TOP + round(height * (1 - part)) + (10 if part else 0)))


def _say(canvas: Picture, text: str, at: tuple[int, int], *, right: bool = False) -> None:
    """Write there, the left or the right end of the line of text being at that (x, y)."""
    x, y = at
    if right:
        x -= _width(text)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    """Of a line of text, in pixels."""
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)[0][0])
