"""Measures of a generated Crafter world against the real engine, from what the frames of both show.

All are pure functions of readings (see benchmarks.tiles), of the player's places on the real map and of the actions
taken. Each gives, for one rollout, how many cases were right and how many could be judged; a case whose outcome the
engine leaves to chance is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.tiles import (
    CENTRE,
    COLUMNS,
    CREATURES,
    ITEMS,
    MATERIALS,
    PLAYER,
    ROWS,
    SPRITES,
    Reading,
)

Cell = TypeVar("Cell", bound=np.generic)
Mask = NDArray[np.bool_]
Grid = NDArray[np.integer]
Kind = Literal["blocked", "collect", "drink", "place", "make"]

MOVES = {"move_left": (0, -1), "move_right": (0, 1), "move_up": (-1, 0), "move_down": (1, 0)}
FACED = dict(zip((SPRITES.index(sprite) for sprite in PLAYER), MOVES.values(), strict=False))
"""Where the player looks, by sprite; a sleeper looks nowhere."""
CREATURE_SPRITES = np.array([SPRITES.index(sprite) for sprite in CREATURES])
GIVES = {"tree": "wood", "stone": "stone", "coal": "coal", "iron": "iron", "diamond": "diamond"}
VITALS = 4
"""Health, food, drink and energy, the first of ITEMS; the others are things carried."""
STILL_SHARE = 0.9
"""After a blocked move at least this share must be right of the untouched tiles that the move would have changed."""


class Count(NamedTuple):
    """How many cases were right, of how many that were judged."""

    right: int
    judged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A stretch of T frames in the real engine.

    shown: what the frames show.
    places: the player's place on the map, (row, column), [T, 2].
    actions: the action that led to each frame, "wait" for none; T of them.
    """

    shown: Reading
    places: NDArray[np.int64]
    actions: tuple[str, ...]

    def __getitem__(self, index: slice) -> Play:
        return Play(shown=self.shown[index], places=self.places[index], actions=self.actions[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The same keys in both worlds from the same frames on.

    real: the real play.
    made: what the generated world shows, as many frames, the first `past` of them those of the real play.
    past: how many frames both begin with; frame `past` is the first that was generated.
    """

    real: Play
    made: Reading
    past: int


def untouched(rollout: Rollout, at: int) -> Mask:
    """The tiles of frame `at` whose truth follows from the last given frame, [7, 9].

    They were in view there, the engine shows the same there now, no creature stood near enough to walk onto them, the
    player does not stand on them, and night does not hide them.
    """
    since = rollout.past - 1
    real = rollout.real.shown
    by = rollout.real.places[at] - rollout.real.places[since]
    same: Mask = shifted(real.tiles[since], by, fill=-1) == real.tiles[at]
    reach = near(_creatures(real, since), at - since)
    return same & _judged(rollout, at) & ~shifted(reach, by, fill=True) & ~_creatures(real, at)


def right_tiles(rollout: Rollout, at: int) -> Count:
    """Untouched tiles of generated frame `at` that are right: the same material with the same on it."""
    return _count(rollout.made.tiles[at] == rollout.real.shown.tiles[at], untouched(rollout, at))


def right_ground(rollout: Rollout, at: int) -> Count:
    """As right_tiles, but of what tiles are made of, so that none is left out for the creatures that may walk there."""
    since = rollout.past - 1
    real = rollout.real.shown
    by = rollout.real.places[at] - rollout.real.places[since]
    same = shifted(real.materials[since], by, fill=-1) == real.materials[at]
    return _count(rollout.made.materials[at] == real.materials[at], same & _judged(rollout, at))


def right_return(rollout: Rollout, at: int) -> Count:
    """Tiles whose material is right, of those seen in the given frames but not in the last of them: pure memory."""
    since = rollout.past - 1
    real, places = rollout.real.shown, rollout.real.places
    seen = np.zeros((ROWS, COLUMNS), np.bool_)
    for earlier in range(rollout.past):
        before = shifted(np.where(real.visible[earlier], real.materials[earlier], -1), places[at] - places[earlier], -1)
        seen |= before == real.materials[at]
    in_view = shifted(np.ones_like(seen), places[at] - places[since], fill=False)
    judged = seen & ~in_view & real.visible[at]
    return _count(rollout.made.materials[at] == real.materials[at], judged)


def right_sprite(rollout: Rollout, at: int) -> Count:
    """Whether the player is drawn as he is: facing the right way, asleep or awake."""
    real, made = rollout.real.shown.sprites[at][CENTRE], rollout.made.sprites[at][CENTRE]
    return Count(int(real == made), 1)


def right_inventory(rollout: Rollout, at: int) -> Count:
    """Cells of the inventory that show the right number."""
    right = rollout.real.shown.inventory[at] == rollout.made.inventory[at]
    return Count(int(right.sum()), right.size)


def decided(rollout: Rollout) -> Mask:
    """Through which frames chance has had no say in where the player is and whether he sleeps, [T].

    The engine moves the player first and the creatures after, so the first generated move is never chance. A later one
    is when a creature, in either world, stands where the move leads or beside it: it might as well stand there in the
    one and beside it in the other. So is one onto ground that no given frame shows, where the two worlds have drawn
    different ground, and the moment of waking up, which follows from a count that no frame shows.
    """
    real, actions = rollout.real.shown, rollout.real.actions
    chance = np.zeros(len(real), np.bool_)
    for at in range(rollout.past, len(real)):
        woke = real.sleeping[at - 1] and not real.sleeping[at]
        moved = at > rollout.past and actions[at] in MOVES
        chance[at] = woke or (moved and (_met(rollout, at) or _differs_unseen(rollout, at)))
    return ~np.logical_or.accumulate(chance)


def _differs_unseen(rollout: Rollout, at: int) -> bool:
    """Whether the ground that the move of frame `at` leads to was in none of the given frames, and now differs."""
    target = _ahead(rollout, at)
    place = rollout.real.places[at - 1] + target - CENTRE
    rows, columns = np.abs(rollout.real.places[: rollout.past] - place).T
    if ((rows <= CENTRE[0]) & (columns <= CENTRE[1])).any():
        return False
    real, made = (world.materials[at - 1][target] for world in (rollout.real.shown, rollout.made))
    return bool(real != made)


def _ahead(rollout: Rollout, at: int) -> tuple[int, int]:
    """The tile of frame `at - 1` that the move of frame `at` leads to."""
    down, across = MOVES[rollout.real.actions[at]]
    return CENTRE[0] + down, CENTRE[1] + across


def _met(rollout: Rollout, at: int) -> bool:
    """Whether before frame `at` a creature stood where its move leads or beside it, in either world."""
    target = _ahead(rollout, at)
    return any(bool(near(_creatures(world, at - 1), 1)[target]) for world in (rollout.real.shown, rollout.made))


def effect_of(play: Play, at: int, frames: int = 1) -> Kind | None:
    """What the action held through frames `at` to `at + frames - 1` did, if it is of a kind that can be judged.

    "blocked": a move, and the player stayed where he was. "collect": what he faced gave one of what it gives (saplings
    come by chance and are left out). "drink": water did. "place" and "make": something was placed or made.
    """
    last, action = at + frames - 1, play.actions[at]
    asleep = play.shown.sleeping[at - 1 : last + 1].any()
    if asleep or any(held != action for held in play.actions[at : last + 1]):
        return None
    if action in MOVES:
        return "blocked" if (play.places[at - 1 : last + 1] == play.places[at - 1]).all() else None
    gain = dict(zip(ITEMS, play.shown.inventory[last] - play.shown.inventory[at - 1], strict=True))
    target = _target(play.shown, at - 1)
    if action == "do" and play.shown.sprites[at - 1][target] == 0:
        material = MATERIALS[play.shown.materials[at - 1][target]]
        if material == "water":
            return "drink" if gain["drink"] > 0 else None
        return "collect" if material in GIVES and gain[GIVES[material]] > 0 else None
    if action.startswith("place_"):
        return "place" if min(list(gain.values())[VITALS:]) < 0 else None
    if action.startswith("make_"):
        return "make" if gain[action.removeprefix("make_")] > 0 else None
    return None


def right_effect(rollout: Rollout, kind: Kind, frames: int = 1) -> Count:
    """Whether the first generated block shows what the action did: the player, the tile he acted on, the numbers."""
    last = rollout.past + frames - 1
    real, made = rollout.real.shown, rollout.made
    if kind == "blocked":
        moved = shifted(real.tiles[last], np.array(MOVES[rollout.real.actions[last]]), fill=-1)
        telling = untouched(rollout, last) & (moved != real.tiles[last])
        right, judged = _count(made.tiles[last] == real.tiles[last], telling)
        return Count(int(right_sprite(rollout, last).right and right >= STILL_SHARE * judged), 1)
    target = _target(real, rollout.past - 1)
    changed = real.inventory[last] != real.inventory[rollout.past - 1]
    changed &= np.array([item == "drink" for item in ITEMS]) if kind == "drink" else np.arange(len(ITEMS)) >= VITALS
    numbers = (real.inventory[last] == made.inventory[last])[changed].all()
    return Count(int(numbers and real.materials[last][target] == made.materials[last][target]), 1)


def entered(rollout: Rollout, at: int) -> Mask:
    """The tiles of the real frame `at` that were not in view in the frame before, [7, 9]."""
    by = rollout.real.places[at] - rollout.real.places[at - 1]
    return ~shifted(np.ones((ROWS, COLUMNS), np.bool_), by, fill=False)


def neighbours(materials: Grid, new: Mask, visible: Mask) -> NDArray[np.int64]:
    """How often each material [7, 9] lies beside each other where at least one of the two is new, [13, 13].

    Unordered: counted where the first index is at most the second.
    """
    counts = np.zeros((len(MATERIALS), len(MATERIALS)), np.int64)
    for one, other in (((slice(None, -1),), (slice(1, None),)), ((..., slice(None, -1)), (..., slice(1, None)))):
        judged = (new[one] | new[other]) & visible[one] & visible[other]
        first, second = materials[one][judged], materials[other][judged]
        np.add.at(counts, (np.minimum(first, second), np.maximum(first, second)), 1)
    return counts


def total_variation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Total variation between the laws of two tables of counts: 0 for the same, 1 for disjoint, NaN for no counts."""
    if not one.sum() or not other.sum():
        return float("nan")
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def clean_tiles(made: Reading) -> Count:
    """Tiles that are a texture of the engine, of those that night does not hide."""
    return _count(made.clean, made.visible)


def sun(real: Sequence[float], made: Sequence[float], *, most_lag: int) -> tuple[float, int]:
    """How well a generated course of daylight follows the engine's, and how many frames late it is where it fits best.

    Returns:
        The correlation at the best lag within most_lag frames (and within half of the course), and that lag. A sun
        that stands still scores 0.
    """
    truth, guess = np.asarray(real, np.float64), np.asarray(made, np.float64)
    most_lag = min(most_lag, len(truth) // 2)
    found = []
    for lag in range(-most_lag, most_lag + 1):
        late = guess[max(lag, 0) : len(guess) + min(lag, 0)]
        due = truth[max(-lag, 0) : len(truth) + min(-lag, 0)]
        still = np.ptp(late) < 1e-6 or np.ptp(due) < 1e-6
        found.append((0.0 if still else float(np.corrcoef(late, due)[0, 1]), -abs(lag), lag))
    correlation, _, lag = max(found)
    return correlation, lag


def shifted(grid: NDArray[Cell], by: NDArray[np.int64], fill: int) -> NDArray[Cell]:
    """What a view [7, 9] becomes when the player moves by (rows, columns); what comes into it is `fill`."""
    moved = np.full_like(grid, fill)
    down, across = int(by[0]), int(by[1])
    if abs(down) < ROWS and abs(across) < COLUMNS:
        kept = grid[max(down, 0) : ROWS + min(down, 0), max(across, 0) : COLUMNS + min(across, 0)]
        moved[max(-down, 0) : ROWS - max(down, 0), max(-across, 0) : COLUMNS - max(across, 0)] = kept
    return moved


def near(mask: Mask, steps: int) -> Mask:
    """The tiles within so many steps, up, down or sideways, of those in the mask, [7, 9]."""
    reached = mask.copy()
    for _ in range(steps):
        before = reached.copy()
        for way in MOVES.values():
            reached |= shifted(before, np.array(way), fill=False)
    return reached


def _creatures(shown: Reading, at: int) -> Mask:
    return np.isin(shown.sprites[at], CREATURE_SPRITES)


def _judged(rollout: Rollout, at: int) -> Mask:
    """The tiles that night hides neither now nor in the last given frame, the player's own left out."""
    real, places = rollout.real.shown, rollout.real.places
    since = rollout.past - 1
    judged: Mask = real.visible[at] & shifted(real.visible[since], places[at] - places[since], fill=False)
    judged[CENTRE] = False
    return judged


def _count(right: Mask, judged: Mask) -> Count:
    return Count(int((right & judged).sum()), int(judged.sum()))


def _target(shown: Reading, at: int) -> tuple[int, int]:
    """The tile that the player faces."""
    down, across = FACED.get(int(shown.sprites[at][CENTRE]), (0, 0))
    return CENTRE[0] + down, CENTRE[1] + across
