"""Walks the maze the way people do, for recording: along what is open, turning on the spot, looking back, bumping."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from worldsim.controls import Keys
from worldsim.simulators.maze import (
    CONTROLS,
    DEPTH_START,
    DEPTH_STEP,
    FIELD_OF_VIEW_DEGREES,
    FRAMES_PER_ROUND,
    TURN_DEGREES,
    Maze,
)

# In the engine's units: the player is 32 wide, a door 48, a room 160.
_BODY = 16.0
_TOUCH = 24.0
_NEAR = 36.0
_OPEN = 70.0
_NEXT_ROOM = 190.0
_FAR = 1000.0

_HEADINGS = np.arange(-7.0, 8.0) * TURN_DEGREES
"""Where in view a walk may turn to, in degrees to the right."""

Buttons = tuple[str, ...]
"""The names of the actions held for one frame."""


def clearance(ahead: NDArray[np.floating], headings: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far a body can walk in each direction before it meets something in view, in the engine's units, [N].

    Args:
        ahead: distance along the view of what each column shows, left to right over the whole field of view, [W].
        headings: degrees to the right of the view's middle, inside the field of view, [N].
    """
    across = np.linspace(-1, 1, 2 * len(ahead) + 1)[1::2] * np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2))
    aside = ahead * across
    turn = np.radians(headings)[:, None]
    forward = ahead * np.cos(turn) + aside * np.sin(turn)
    lateral = aside * np.cos(turn) - ahead * np.sin(turn)
    in_the_way = (np.abs(lateral) < _BODY) & (forward >= 0)
    return np.asarray(forward.min(axis=1, where=in_the_way, initial=_FAR))


class MazeExplorer:
    """One episode's walker. Sees the depth image and presses keys like anybody.

    It follows one plan at a time (a generator of the actions held at each frame) and draws the next when that ends.
    """

    def __init__(self, simulator: Maze, seed: int) -> None:
        self._simulator = simulator
        self._rng = np.random.default_rng([seed, 2])
        self._plan: Iterator[Buttons] = iter(())

    def choose(self) -> Keys:
        """The keys to hold for the next frame."""
        buttons = next(self._plan, None)
        while buttons is None:
            self._plan = self._draw()
            buttons = next(self._plan, None)
        if self._rng.random() < 0.02:  # a slip of the finger, so that any keys are seen together and in any order
            buttons = tuple(action.name for action in CONTROLS.actions if self._rng.random() < 0.4)
        return frozenset[str]().union(*(CONTROLS.press(name) for name in buttons))

    def _draw(self) -> Iterator[Buttons]:
        plans: list[tuple[float, Callable[[], Iterator[Buttons]]]] = [
            (8.0, self._stroll),
            (1.5, self._turn),
            (0.6, self._look_back),
            (1.5, self._curve),
            (1.5, self._retreat),
            (1.0, self._bump),
            (0.5, self._wait),
        ]
        weights = np.array([weight for weight, _ in plans])
        return plans[int(self._rng.choice(len(plans), p=weights / weights.sum()))][1]()

    def _stroll(self) -> Iterator[Buttons]:
        """Face something open, mostly what is far, on the spot or in a curve; walk there, keeping away from walls."""
        side = self._either_side()
        enough = _OPEN if self._rng.random() < 0.6 else _NEXT_ROOM
        reach = self._clear(_HEADINGS)
        for _ in range(FRAMES_PER_ROUND):
            if reach.max() >= enough:
                break
            yield (side,)
            reach = self._clear(_HEADINGS)
        chances = np.maximum(reach - _NEAR, 1) ** 3
        heading = float(self._rng.choice(_HEADINGS, p=chances / chances.sum()))
        curved = self._rng.random() < 0.4
        for _ in range(round(abs(heading) / TURN_DEGREES)):
            yield ("forward", _side(heading)) if curved and self._ahead > _OPEN else (_side(heading),)
        for _ in range(int(self._rng.integers(10, 60))):
            if self._ahead < _NEAR:
                return
            yield ("forward", *self._steer())

    def _steer(self) -> Buttons:
        """A turn towards the more open side, when a wall comes near and one side is plainly better."""
        left, ahead, right = np.minimum(self._clear(np.array([-2.0, 0.0, 2.0]) * TURN_DEGREES), 150)
        if max(left, right) < ahead + 15:
            return ()
        return ("turn_left",) if left > right else ("turn_right",)

    def _turn(self) -> Iterator[Buttons]:
        """On the spot, from a glance to a whole round."""
        side = self._either_side()
        for _ in range(min(int(self._rng.geometric(0.07)), FRAMES_PER_ROUND)):
            yield (side,)

    def _look_back(self) -> Iterator[Buttons]:
        """Turn round, stay a moment or walk a little, and turn round again, on or back."""
        half = FRAMES_PER_ROUND // 2
        stay = int(self._rng.integers(0, 8))
        between: Buttons = () if self._rng.random() < 0.6 else ("forward",)
        for side in (self._either_side(), self._either_side()):
            for _ in range(half):
                yield (side,)
            for _ in range(stay):
                yield between
            stay = 0

    def _curve(self) -> Iterator[Buttons]:
        """Walk and turn at once, along or off whatever is met."""
        side = self._either_side()
        for _ in range(int(self._rng.integers(4, 25))):
            yield ("forward", side)

    def _retreat(self) -> Iterator[Buttons]:
        """Backwards without looking, into whatever is there."""
        aside: Buttons = () if self._rng.random() < 0.7 else (self._either_side(),)
        for _ in range(int(self._rng.integers(4, 18))):
            yield ("back", *aside)

    def _bump(self) -> Iterator[Buttons]:
        """Straight on until something is in the way, and on against it, perhaps turning along it."""
        for _ in range(40):
            if self._ahead < _TOUCH:
                break
            yield ("forward",)
        aside: Buttons = () if self._rng.random() < 0.6 else (self._either_side(),)
        for _ in range(int(self._rng.integers(3, 12))):
            yield ("forward", *aside)

    def _wait(self) -> Iterator[Buttons]:
        for _ in range(int(self._rng.integers(2, 12))):
            yield ()

    def _either_side(self) -> str:
        return _side(float(self._rng.random()) - 0.5)

    @property
    def _ahead(self) -> float:
        return float(self._clear(np.zeros(1))[0])

    def _clear(self, headings: NDArray[np.floating]) -> NDArray[np.floating]:
        # At the height of the eye every wall of the maze is in view, and no floor.
        depth = self._simulator.depth
        return clearance(DEPTH_STEP * depth[len(depth) // 2, ::8] + DEPTH_START, headings)


def _side(heading: float) -> str:
    return "turn_right" if heading > 0 else "turn_left"
