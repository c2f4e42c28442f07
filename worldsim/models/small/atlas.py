"""What was seen of a land that a view scrolls over, and where: so that what comes back into view is what it was.

A window of frames forgets what it no longer holds, and attention over it finds little of what has moved since. An atlas
keeps the newest sight of every place, by the sum of the moves that were made, and tells each token of a frame to come
what was last seen where it will look if the move succeeds. Whether it succeeds is left to the backbone; once the frame
is there, its shift against the frame before tells.

Sources: a memory of past views drawn into the view to come, GEN3C, Ren et al. 2025 (arXiv:2503.03751); a memory read by
pose, WorldMem, Xiao et al. 2025 (arXiv:2504.12369). Over a land of tiles the pose is a sum of moves, and no geometry
has to be guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN, Memory

MARGIN = 16
"""Places by which an atlas grows where it ends."""
LARGEST = 256
"""Rows and columns of the largest atlas, in places; what lies farthest from the view is forgotten."""
STAYED = 0.95
"""A view that stayed differs from the frame before by less than this share of what it would, had it moved. A lower
share takes bumps for steps where static covers everything."""
FOG = 0.7
"""The least and, upside down, the most that may be left of how a patch stands out of the fog, from one place to the
next: fog lies thicker on some, and all fade into one colour, that of the corners."""
SHADE = 0.12
"""By how much of the body's own contrast patches may differ and still count as the same. Without fog and shade a step
over plain ground in a foggy night is taken for a bump."""
DOUBT, OPEN = 0.5, 1.5
"""By how many of the body's contrasts a view that stayed has to differ less: where nothing seems to be in the way, it
takes more than creatures make that follow the body. Of 12,831 moves of the engine, nights drawn as fog, 6 by day and 6
by night are told wrong, 70 and 380 by the share alone."""
ALIKE = 0.1
"""The place ahead is as open as those beside and behind if it differs from most by less of the body's contrast."""

DIM = 0.3
"""By night the body's contrast is less than this: 0.16 at midnight. Where it is 0.23 fog leaves half of that at the
edge of the view, where it is 0.33 four fifths."""
CHANGED = 0.25
"""By night a place has changed if it differs by more than this share of the body's contrast."""

Codes = NDArray[np.int16]
Move = tuple[int, int]
"""Rows and columns by which a view goes on."""
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scroll:
    """How a view scrolls over a land.

    rows: rows of tokens, from the top, that show the land.
    body: the token (row, column) that shows whoever moves, and never the land.
    moves: for each control that moves the view its number, and the rows and columns that it moves by, -1, 0 or 1.
    """

    rows: int
    body: tuple[int, int]
    moves: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        # A weights file has lists.
        object.__setattr__(self, "body", tuple(self.body))
        object.__setattr__(self, "moves", tuple(tuple(move) for move in self.moves))
        if self.rows < 1 or not self.moves or len(self.body) != 2 or any(len(move) != 3 for move in self.moves):
            raise ConfigError(f"a view scrolls over 1 row or more by moves of (control, rows, columns), got {self}")
        if any(abs(by) > 1 for _, *steps in self.moves for by in steps):
            raise ConfigError(f"a view moves by at most one row and one column in a frame, got {self}")

    def asked(self, controls: Tensor) -> Tensor:
        """Where views go under controls [..., A] if nothing is in the way, int64 [..., 2]; the first that counts."""
        asked = torch.zeros(*controls.shape[:-1], 2, dtype=torch.int64, device=controls.device)
        for control, *steps in reversed(self.moves):
            asked[controls[..., control] > 0.5] = torch.tensor(steps, device=controls.device)
        return asked

    def enters(self, controls: Tensor, columns: int) -> Tensor:
        """Which tokens show what was not in view if the move of controls [..., A] succeeds: [..., rows, columns]."""
        asked = self.asked(controls)[..., None, None, :]
        row = torch.arange(self.rows, device=controls.device)[:, None] + asked[..., 0]
        column = torch.arange(columns, device=controls.device) + asked[..., 1]
        return (row < 0) | (row >= self.rows) | (column < 0) | (column >= columns)

    def made(self, before: Tensor, after: Tensor, controls: Tensor) -> Tensor:
        """The moves that were made between patches before and after, [N, rows, columns, P], asked by controls [N, A].

        Returns:
            int64 [N, 2]: what was asked, or zeros where the view stayed.
        """
        asked = self.asked(controls)
        made = torch.zeros_like(asked)
        for move in {(rows, columns) for _, rows, columns in self.moves}:
            picks = (asked == torch.tensor(move, device=asked.device)).all(-1).nonzero()[:, 0]
            if not len(picks):
                continue
            moved = self._moved(before[picks, : self.rows].float(), after[picks, : self.rows].float(), move)
            made[picks[moved]] = asked[picks[moved]]
        return made

    def shared(self, columns: int, move: Move) -> tuple[Window, Window, Tensor]:
        """Where a view shows before a move, and after it, what it shows at both times.

        And in which of these places the body stands at neither time, bool.
        """
        old, new = _overlap(self.rows, columns, move)
        body = torch.zeros(self.rows, columns, dtype=torch.bool)
        body[self.body] = True
        return old, new, ~(body[old] | body[new])

    def dim(self, before: Tensor, after: Tensor, moves: Sequence[Sequence[int]], sorts: Tensor) -> list[Dim | None]:
        """What may be told of places by night, for each patches after, [N, rows, columns, P]; None by day.

        Args:
            before: the patches one frame earlier, [N, rows, columns, P].
            after: [N, rows, columns, P].
            moves: those that were made between them.
            sorts: the patch of each code, [K, P].
        """
        dark = (~self.by_day(after)).tolist()
        land = before[:, : self.rows].float(), after[:, : self.rows].float()
        return [
            self._dim(one, other, (int(move[0]), int(move[1])), sorts) if night else None
            for one, other, move, night in zip(*land, moves, dark, strict=True)
        ]

    def by_day(self, frames: Tensor) -> Tensor:
        """Of which patches [N, rows, columns, P] the body stands out as by day, bool [N]."""
        return _contrast(frames[:, *self.body]) >= DIM

    def _dim(self, before: Tensor, after: Tensor, move: Move, sorts: Tensor) -> Dim:
        fog = _fog(after)
        old, new, land = self.shared(before.shape[1], move)
        shown, contrast = after[*new] - fog, _contrast(after[*self.body])
        changed = torch.zeros(after.shape[:2], dtype=torch.bool)
        apart = _apart(_faded(before[*old] - fog, shown), shown) > CHANGED * contrast
        changed[*new] = apart.cpu() & land
        changed &= self._in_reach(before.shape[1])
        left = self.body[0] - move[0], self.body[1] - move[1]
        if move != (0, 0) and _contrast(before[*self.body]) >= DIM:
            changed[left] = True  # by day the body itself was seen there
        return Dim(changed=changed.numpy(), clear=_apart(sorts.float(), fog).cpu().numpy())

    def _in_reach(self, columns: int) -> Tensor:
        """Which places are next to the body, bool [rows, columns]."""
        reached = torch.zeros(self.rows, columns, dtype=torch.bool)
        for _, row, column in self.moves:
            beside = self.body[0] + row, self.body[1] + column
            if 0 <= beside[0] < self.rows and 0 <= beside[1] < columns:
                reached[beside] = True
        return reached

    def _moved(self, before: Tensor, after: Tensor, move: Move) -> Tensor:
        """Whether frames [N, rows, columns, P] moved, [N]: judged by the places that show something either way."""
        old, new, land = self.shared(before.shape[2], move)
        fog = _fog(before)[:, None, None]
        shown, contrast = after[:, *new] - fog, _contrast(before[:, *self.body])
        shade = SHADE * contrast[:, None, None]
        stayed, moved = (
            ((_apart(_faded(before[:, *part] - fog, shown), shown) - shade).clamp_min(0) * land.to(shade)).sum((1, 2))
            for part in (new, old)
        )
        doubt = torch.where(self._open(before, contrast, move), OPEN, DOUBT) * contrast
        told: Tensor = stayed + doubt >= STAYED * moved
        return told

    def _open(self, before: Tensor, contrast: Tensor, move: Move) -> Tensor:
        """Whether the place ahead of the body looks like most of the others around it, [N]: it came over one of them.

        Of frames [N, rows, columns, P] and the contrast of the body in them, [N].
        """
        around = {(row, column): self._beside(before, row, column) for _, row, column in self.moves}
        ahead = around.pop(move)
        others = [other for other in around.values() if other is not None]
        if ahead is None or not others:
            return torch.zeros_like(contrast, dtype=torch.bool)
        alike = torch.stack([_apart(other, ahead) < ALIKE * contrast for other in others])
        return 2 * alike.sum(0) > len(others)

    def _beside(self, frames: Tensor, rows: int, columns: int) -> Tensor | None:
        """What frames [N, rows, columns, P] show that far from the body, [N, P]; None if that is out of view."""
        row, column = self.body[0] + rows, self.body[1] + columns
        inside = 0 <= row < self.rows and 0 <= column < frames.shape[2]
        return frames[:, row, column] if inside else None


def _overlap(rows: int, columns: int, move: Move) -> tuple[Window, Window]:
    """Where a view shows before a move, and after it, what it shows at both times."""
    down, right = move
    old = slice(max(0, down), rows + min(0, down)), slice(max(0, right), columns + min(0, right))
    new = slice(max(0, -down), rows + min(0, -down)), slice(max(0, -right), columns + min(0, -right))
    return old, new


def _fog(patches: Tensor) -> Tensor:
    """What all fades into, if anything does, [..., P]: the mean of the corners of patches [..., rows, columns, P]."""
    return patches[..., [0, 0, -1, -1], [0, -1, 0, -1], :].mean(-2)


def _apart(some: Tensor, others: Tensor) -> Tensor:
    """How far patches [..., P] are from others, [...]."""
    return (some - others).abs().mean(-1)


def _faded(some: Tensor, others: Tensor) -> Tensor:
    """Patches [..., P] as they are when fog leaves as much of them as of others, numbers being told from its own."""
    left = (some * others).sum(-1) / some.square().sum(-1).clamp_min(1e-6)
    return left.clamp(FOG, 1 / FOG)[..., None] * some


def _contrast(patches: Tensor) -> Tensor:
    """How far the numbers of patches [..., P] are from their mean, [...]."""
    return _apart(patches, patches.mean(-1, keepdim=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dim:
    """What a frame by night may tell of places.

    changed: which have changed in the body's reach, bool [rows, columns]; farther away fog only makes them seem to.
    clear: how far each code stands out of the fog, [K].
    """

    changed: NDArray[np.bool_]
    clear: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Atlas:
    """The newest sight of every place, or by night the clearest. It never changes: with a frame more it is another.

    scroll: how the view moves.
    tiles: the code seen last at each place, UNKNOWN where none was, int16 [rows, columns].
    view: the place of the view's first token.
    columns: of the view.
    bright: which places were seen by day, and nothing on them that does not rest, bool like tiles.
    """

    scroll: Scroll
    tiles: Codes
    view: Move
    columns: int
    bright: NDArray[np.bool_]

    @classmethod
    def of(cls, memory: Memory, scroll: Scroll, columns: int) -> Atlas:
        """The atlas of those tensors; of none, one where nothing was seen yet; ConfigError if they are no atlas."""
        if memory:
            view = _checked(memory, scroll, columns)
            tiles, bright = memory["tiles"].numpy(), memory["bright"].numpy()
            return cls(scroll=scroll, tiles=tiles, view=view, columns=columns, bright=bright)
        tiles = np.full((scroll.rows + 2 * MARGIN, columns + 2 * MARGIN), UNKNOWN, np.int16)
        bright = np.zeros(tiles.shape, np.bool_)
        return cls(scroll=scroll, tiles=tiles, view=(MARGIN, MARGIN), columns=columns, bright=bright)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, on the CPU: "tiles" int16 and "bright" bool [rows, columns], and "view" int64 [2]."""
        tiles, bright = torch.from_numpy(self.tiles), torch.from_numpy(self.bright)
        return {"tiles": tiles, "bright": bright, "view": torch.tensor(self.view)}

    def see(
        self, codes: Codes, move: Sequence[int], dim: Dim | None = None, *, restless: NDArray[np.bool_] | None = None
    ) -> Atlas:
        """The atlas after a frame that shows codes, int16 [rows or more, columns], and was reached by that move.

        By night a place that was seen more clearly is remembered as it was, unless it has changed.

        Args:
            codes: what the tokens show.
            move: rows and columns by which the view went on.
            dim: what the frame tells by night; None by day.
            restless: which codes show what does not stay where it is, and hides what is known of its place, bool [K];
                none if None.
        """
        moved = self._moved(move)
        window = moved._window
        tiles, bright, shown = moved.tiles.copy(), moved.bright.copy(), codes[: self.scroll.rows]
        known = tiles[window]
        told, kept = known != UNKNOWN, np.zeros(known.shape, np.bool_)
        if restless is not None:
            told, kept = told & ~restless[known], restless[shown]
        # The body hides its own place, which is seen as soon as the body has left it.
        clear = ~kept & (dim is None)
        clear[self.scroll.body] = False
        if dim is not None:
            kept = kept | (~dim.changed & (dim.clear[shown] < dim.clear[known]))
        kept = kept & told
        kept[self.scroll.body] |= dim is not None
        tiles[window], bright[window] = np.where(kept, known, shown), np.where(kept, bright[window], clear)
        return replace(moved, tiles=tiles, bright=bright)

    def recall(self, move: Sequence[int]) -> Codes:
        """What was last seen where the view is after a move, and is not now, [scroll.rows, columns].

        UNKNOWN where nothing was, and where what is in view tells better.
        """
        moved = self._moved(move)
        return np.where(self._entering(move), moved.tiles[moved._window], np.int16(UNKNOWN))

    def surely(self, move: Sequence[int]) -> NDArray[np.bool_]:
        """Which of that was seen by day, so that it surely is there, bool [scroll.rows, columns]."""
        moved = self._moved(move)
        return self._entering(move) & moved.bright[moved._window]

    def _entering(self, move: Sequence[int]) -> NDArray[np.bool_]:
        rows, columns = np.indices((self.scroll.rows, self.columns))
        return ~self._inside(rows + int(move[0]), columns + int(move[1]))

    def _inside(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (rows >= 0) & (rows < self.scroll.rows) & (columns >= 0) & (columns < self.columns)

    @property
    def _window(self) -> tuple[slice, slice]:
        row, column = self.view
        return slice(row, row + self.scroll.rows), slice(column, column + self.columns)

    def _moved(self, move: Sequence[int]) -> Atlas:
        """The same with the view moved, grown where it looks past the end, and cut where it is too large."""
        row, column = self.view[0] + int(move[0]), self.view[1] + int(move[1])
        height, width = self.tiles.shape
        if 0 <= row <= height - self.scroll.rows and 0 <= column <= width - self.columns:
            return replace(self, view=(row, column))
        row, column = row + MARGIN, column + MARGIN
        top, left = _cut(row, height + 2 * MARGIN), _cut(column, width + 2 * MARGIN)
        kept = slice(top, top + LARGEST), slice(left, left + LARGEST)
        tiles = np.pad(self.tiles, MARGIN, constant_values=UNKNOWN)[kept]
        return replace(self, tiles=tiles, view=(row - top, column - left), bright=np.pad(self.bright, MARGIN)[kept])


def _checked(memory: Memory, scroll: Scroll, columns: int) -> Move:
    """Where the view is in the tensors of an atlas; ConfigError if they are of none, or it looks past their end."""
    found = {name: (tensor.dtype, tensor.ndim) for name, tensor in memory.items()}
    wanted = {"tiles": (torch.int16, 2), "bright": (torch.bool, 2), "view": (torch.int64, 1)}
    if found == wanted and memory["view"].shape == (2,) and memory["bright"].shape == memory["tiles"].shape:
        (row, column), (height, width) = memory["view"].tolist(), memory["tiles"].shape
        if 0 <= row <= height - scroll.rows and 0 <= column <= width - columns:
            return row, column
    given = {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in memory.items()}
    raise ConfigError(
        f"a memory of places has tiles, int16 [rows, columns], which of them are bright, bool, and the place of a view "
        f"of {scroll.rows} by {columns} inside them, int64 [2]; got {given}"
    )


def _cut(at: int, size: int) -> int:
    """Where an axis of that size is cut so that what lies around a place on it stays."""
    return max(0, min(at - LARGEST // 2, size - LARGEST))
