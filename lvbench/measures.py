"""From the frames of a video to its scores: every dimension per chunk, and its companions over the whole video.

A companion is the same measure over one chunk that is the whole video, so there is one definition of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvbench.consistency import consistency
from lvbench.drift import SHARE_FLOOR, identity
from lvbench.dynamics import STILL_PX, dynamic_degree
from lvbench.errors import ConfigError, UnknownName, VideoRefused
from lvbench.features import Features, Track
from lvbench.score import Result, Score, Unscored
from lvbench.text import amount

Part = NDArray[np.float32]
"""The rows of a track that belong to one chunk."""
FEWEST_FRAMES = 3
"""Of a chunk: a frame is foretold from its two neighbours."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One value per chunk, whose drift is scored; or one for the whole video, a companion.

    floor: what the first chunk has to be over for a drift, in the unit of the values.
    """

    title: str
    track: Track
    values: Callable[[Sequence[Part]], list[float]]
    floor: float = SHARE_FLOOR


def mean(part: Part) -> float:
    """The mean of a quality, one per frame."""
    return float(part.mean(dtype=np.float64))


def smoothness(part: Part) -> float:
    """How well every second frame is foretold from its neighbours, 0 to 1.

    Args:
        part: interpolation errors of the frames of a chunk, 0 to 255.

    Source: VBench, Huang et al. 2024 (arXiv:2311.17982), motion smoothness.
    """
    return (255 - mean(part[1:-1:2])) / 255


def steadiness(part: Part) -> float:
    """How little a frame differs from the one before, 0 to 1.

    Args:
        part: differences of the frames of a chunk, 0 to 255; that of the first is to a frame outside, and left out.

    Source: VBench, Huang et al. 2024 (arXiv:2311.17982), temporal flickering; there over still scenes only.
    """
    return (255 - mean(part[1:])) / 255


def motion(part: Part) -> float:
    """How far the fastest things move between two looks that begin in a chunk, in pixels; NaN if none does."""
    looks = part[np.isfinite(part)]
    return mean(looks) if len(looks) else float("nan")


def alike(part: Part) -> float:
    """The consistency of the frames of a chunk; NaN where it is undefined."""
    result = consistency(part)
    return result.value if isinstance(result, Score) else float("nan")


def moved(part: Part) -> float:
    """1 for a video that moves and 0 for a still one; NaN where it is undefined."""
    result = dynamic_degree([float(value) for value in part[np.isfinite(part)]])
    return result.value if isinstance(result, Score) else float("nan")


def _each(value: Callable[[Part], float]) -> Callable[[Sequence[Part]], list[float]]:
    return lambda parts: [value(part) for part in parts]


DIMENSIONS: Mapping[str, Dimension] = {
    "clarity": Dimension("clarity", "clarity", _each(mean), floor=100 * SHARE_FLOOR),
    "motion": Dimension("motion", "interpolation_error", _each(smoothness)),
    "aesthetic": Dimension("aesthetic", "aesthetic", _each(mean)),
    "background": Dimension("background", "background", _each(alike)),
    "subject": Dimension("subject", "subject", _each(alike)),
    "dynamic": Dimension("dynamic", "flow", _each(motion), floor=STILL_PX),
    "identity": Dimension("identity", "subject", identity),
}
"""What drifts. The first five are published; dynamic shows a video that freezes, identity one that becomes another."""
COMPANIONS: Mapping[str, Dimension] = {
    "subject_consistency": Dimension("subject consistency", "subject", _each(alike)),
    "background_consistency": Dimension("background consistency", "background", _each(alike)),
    "motion_smoothness": Dimension("motion smoothness", "interpolation_error", _each(smoothness)),
    "temporal_flicker": Dimension("steadiness (temporal flickering)", "difference", _each(steadiness)),
    "aesthetic_quality": Dimension("aesthetic quality", "aesthetic", _each(mean)),
    "imaging_quality": Dimension("imaging quality", "clarity", _each(lambda part: mean(part) / 100)),
    "dynamic_degree": Dimension("dynamic degree", "flow", _each(moved)),
}
"""What is said of the whole video beside its drift, after VBench; higher is better, or livelier."""


def dimensions_of(names: Sequence[str]) -> tuple[str, ...]:
    """The dimensions of these names in the order of DIMENSIONS, all of them for none.

    Raises:
        UnknownName: there is none of a name.
        ConfigError: several are given as one name.
    """
    for name in names:
        if "," in name:
            each = " ".join(f"--dimension {part.strip()}" for part in name.split(","))
            raise ConfigError(f"{name!r} is no dimension; give each by itself: {each}")
        if name not in DIMENSIONS:
            raise UnknownName("dimension", name, DIMENSIONS)
    return tuple(name for name in DIMENSIONS if not names or name in names)


def chunks_of(frames: int, count: int) -> list[slice]:
    """`count` equal stretches of so many frames, from the first on; the tail that does not fill one is left out.

    Raises:
        VideoRefused: a chunk would have fewer than 3 frames.
    """
    length = frames // count
    if length < FEWEST_FRAMES:
        fewer = f", or ask for at most {frames // FEWEST_FRAMES} chunks" if frames >= 2 * FEWEST_FRAMES else ""
        have = f"{amount(frames, 'frame')} {'is' if frames == 1 else 'are'}"
        raise VideoRefused(
            f"{have} too few for {count} chunks of at least {FEWEST_FRAMES}; score a longer video{fewer}"
        )
    return [slice(at * length, (at + 1) * length) for at in range(count)]


def chunk_values(features: Features, name: str, count: int) -> list[float]:
    """The value of a dimension in each of `count` chunks, rounded to float32 as published; NaN where undefined.

    Raises:
        VideoRefused: the video is too short.
        KeyError: the features lack the track.
    """
    dimension = DIMENSIONS[name]
    track = features.tracks[dimension.track]
    values = dimension.values([track[part] for part in chunks_of(features.frames, count)])
    return [float(np.float32(value)) for value in values]


def companion(features: Features, name: str) -> Result:
    """A companion of the whole video. Raises KeyError if the features lack the track."""
    measure = COMPANIONS[name]
    (value,) = measure.values([features.tracks[measure.track]])
    if not np.isfinite(value):
        return Unscored(f"{measure.title} is undefined for this video")
    return Score(value, count=features.frames)
