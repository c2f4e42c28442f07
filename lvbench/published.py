"""The extractor with the networks of the published benchmark, in float32, frame by frame.

Each number is what the published program would get of the same pixels, with these departures: what it does not measure
(an interpolated frame for every inner one, so that any number of chunks finds its own; small pictures) is measured
too; CLIP is float32 on a GPU as well, where the published program takes float16; pictures are never made smaller before
they are interpolated, as it does by the memory of the GPU it finds.
"""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lvbench import dynamics, motion
from lvbench.errors import VideoRefused
from lvbench.extractor import Floats, Frames, Slots
from lvbench.features import Features, Rows, Track
from lvbench.store import hash_of_code
from lvbench.video import Facts
from lvbench.weights import Networks

GROUP = 8
"""Frames that go through a network at once: always the same ones, so that a frame's numbers do not depend on how many
the caller has ready."""
MOST_PIXELS = 1920 * 1088
"""Of a frame. To correlate all places of a picture with all of another takes 6 GB for RAFT and 11 GB for AMT here."""
LONGEST = 8
"""Times that a side may be as long as the other: the shorter becomes 224 pixels, and attention is over all of it."""
NEEDED: Mapping[Track, tuple[str, ...]] = {
    "clarity": ("clarity",),
    "aesthetic": ("aesthetic", "aesthetic_head"),
    "interpolation_error": ("motion",),
    "flow": ("flow",),
    "subject": ("subject",),
    "background": ("background",),
}
"""By track, the names in SOURCES of the networks that measure it; what is not here takes none."""
FOLLOWED: tuple[Track, ...] = ("interpolation_error", "difference", "flow")
"""What is measured of how one frame goes on from those before."""
NOT_NEEDED = "it was not measured, since no dimension that was asked for needs its network"


class Published:
    """See the module, and Extractor.

    Args:
        networks: the files of weights, all or some: a track is measured if all networks that it needs are among them.
        slots: in place of what those files give.
    """

    name = "published"
    batch = GROUP
    missing: Mapping[Track, str]

    def __init__(self, networks: Networks, slots: Slots | None = None) -> None:
        self.missing = {track: NOT_NEEDED for track, names in NEEDED.items() if not networks.weights.keys() >= {*names}}
        self._networks = networks
        self._given = slots

    @cached_property
    def fingerprint(self) -> str:
        """See Extractor."""
        from lvbench.networks import loading

        code = hash_of_code(dynamics, motion, sys.modules[__name__], loading, *loading.CODE)
        weights = {name: each.sha256 for name, each in sorted(self._networks.weights.items())}
        told = (code, weights, self._networks.sizes, loading.machine())
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def begin(self, facts: Facts) -> PublishedExtraction:
        """See Extractor. Raises VideoRefused if the frames are too large or too long."""
        height, width = facts.size
        if height * width > MOST_PIXELS or max(facts.size) > LONGEST * min(facts.size):
            raise VideoRefused(
                f"it is {width} x {height}; the published networks take up to {MOST_PIXELS:,} pixels, and one side up "
                f"to {LONGEST} times as long as the other: score a smaller copy, or use --extractor light"
            )
        return PublishedExtraction(self._slots, facts, self.missing.keys())

    @cached_property
    def _slots(self) -> Slots:
        if self._given is not None:
            return self._given
        from lvbench.networks.loading import slots_of

        return slots_of(self._networks)


class PublishedExtraction:
    """See Extraction; missing are the tracks whose slots are never asked."""

    def __init__(self, slots: Slots, facts: Facts, missing: Collection[Track]) -> None:
        self._slots = slots
        self._missing = missing
        self._shorter = min(facts.size)
        self._stride = dynamics.stride(facts.fps)
        self._group: list[Frames] = []
        self._last: deque[Frames] = deque(maxlen=3)
        self._look: Frames | None = None
        self._scalars: dict[Track, list[float]] = {name: [] for name in FOLLOWED if name not in missing}
        self._rows: dict[Track, Rows] = {}

    def add(self, frames: Frames) -> None:
        """See Extraction."""
        for frame in frames:
            kept = frame.copy()  # the caller may use its own again
            self._follow(kept)
            self._group.append(kept)
            if len(self._group) == GROUP:
                for name, rows in self._seen().items():
                    self._put(name, rows)
                self._group = []

    def features(self) -> Features:
        """See Extraction."""
        tracks: dict[Track, NDArray[np.float32]] = {
            name: np.array(values, np.float32) for name, values in self._scalars.items()
        }
        rest = self._seen() if self._group else {}
        for name in self._rows.keys() | rest.keys():
            parts = [self._rows[name].table()] if name in self._rows else []
            whole = np.concatenate([*parts, *([rest[name]] if rest else [])])
            tracks[name] = whole[:, 0] if name in ("clarity", "aesthetic") else whole
        return Features(frames=len(self._scalars["difference"]), tracks=tracks)

    def _seen(self) -> dict[Track, NDArray[np.float32]]:
        """What the frames of the group show each by itself, a row for each."""
        frames = np.stack(self._group)
        measures: dict[Track, Callable[[Frames], Floats]] = {
            "clarity": self._slots.clarity,
            "aesthetic": self._slots.aesthetic,
            "background": self._slots.background,
            "subject": self._slots.subject,
        }
        return {
            name: np.asarray(measure(frames), np.float32).reshape(len(frames), -1)
            for name, measure in measures.items()
            if name not in self._missing
        }

    def _put(self, name: Track, rows: NDArray[np.float32]) -> None:
        table = self._rows.setdefault(name, Rows(rows.shape[1]))
        for row in rows:
            table.append(row)

    def _follow(self, frame: Frames) -> None:
        """Measure how one frame goes on from those before; what belongs to an earlier frame is written there."""
        at = len(self._scalars["difference"])
        for values in self._scalars.values():
            values.append(np.nan)
        if self._last:
            self._scalars["difference"][at] = motion.difference(self._last[-1], frame)
        self._last.append(frame)
        if "interpolation_error" in self._scalars and len(self._last) == 3:
            before, middle, after = self._last
            guess = self._slots.between(before, after)
            self._scalars["interpolation_error"][at - 1] = motion.difference(middle, guess)
        if "flow" in self._scalars and at % self._stride == 0:
            if self._look is not None:
                length = dynamics.magnitude(self._slots.flow(self._look, frame))
                self._scalars["flow"][at - self._stride] = length * 256 / self._shorter
            self._look = frame
