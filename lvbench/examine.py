"""One video from its file to its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lvbench import video as reading
from lvbench.errors import ConfigError, VideoRefused
from lvbench.extractor import Extractor
from lvbench.features import Features, Track
from lvbench.judge import Judged, judge
from lvbench.measures import DIMENSIONS, FEWEST_FRAMES
from lvbench.presets import extractor_of
from lvbench.reference import Likeness, fingerprint, liken, likeness
from lvbench.score import Unscored
from lvbench.store import Arrays, Store, hash_of, hash_of_code
from lvbench.video import DECODER, Facts, Limits, batches, open_video
from lvbench.weights import Networks

FACTS = "facts"
READER = hash_of_code(reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides the scores of a video, and where its measures are kept.

    chunks: equal parts of a video; the published number is 10.
    dimensions: names in DIMENSIONS.
    extractor: a name in presets; networks are its own, if it has any.
    reason: why it is that one.
    lpips: what compares with references beside plain measures, if it is here.
    store: the folder of what was measured.
    """

    store: Path
    chunks: int = 10
    dimensions: tuple[str, ...] = tuple(DIMENSIONS)
    extractor: str = "light"
    networks: Networks | None = None
    reason: str = "it was asked for"
    lpips: Networks | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.chunks < 2:
            raise ConfigError(f"drift is between chunks: ask for at least 2, got {self.chunks}")
        if self.chunks * FEWEST_FRAMES > self.limits.frames:
            raise ConfigError(
                f"a chunk has at least {FEWEST_FRAMES} frames and a video may have {self.limits.frames:,}: "
                f"ask for at most {self.limits.frames // FEWEST_FRAMES:,} chunks, got {self.chunks:,}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One video to score: its name in the report, its file, and the real one beside it if there is one."""

    name: str
    path: Path
    reference: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One video as it was scored; likeness is None if there was nothing to compare it with."""

    name: str
    sha256: str
    facts: Facts
    frames: int
    judged: Judged
    likeness: Likeness | Unscored | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """One video that could not be scored, and why."""

    name: str
    reason: str


def examine(task: Task, settings: Settings) -> Record | Refused:
    """Score one video; what was measured of the same bytes before is not measured again."""
    extractor, store = extractor_of(settings.extractor, settings.networks), Store(settings.store)
    try:
        sha256 = _hash(task.path)
        facts, features = _features(task.path, sha256, extractor, store, settings.limits)
        judged = judge(features, extractor.missing, settings.dimensions, settings.chunks)
    except VideoRefused as error:
        return Refused(task.name, str(error))
    return Record(
        name=task.name,
        sha256=sha256,
        facts=facts,
        frames=features.frames,
        judged=judged,
        likeness=_likeness(task, sha256, store, settings),
    )


def extract(path: Path, extractor: Extractor, limits: Limits) -> tuple[Facts, Features]:
    """What an extractor measures of a video, with only a few of its frames in memory. Raises VideoRefused."""
    with open_video(path, limits) as video:
        extraction = extractor.begin(video.facts)
        for frames in batches(video.frames(), extractor.batch):
            extraction.add(frames)
        return video.facts, extraction.features()


def _hash(path: Path) -> str:
    try:
        return hash_of(path)
    except OSError as error:
        raise VideoRefused(f"it cannot be read: {error.strerror or error}") from error


def _features(path: Path, sha256: str, extractor: Extractor, store: Store, limits: Limits) -> tuple[Facts, Features]:
    key = (sha256, extractor.fingerprint, DECODER, READER)
    kept = store.get(*key)
    if kept is None:
        facts, features = extract(path, extractor, limits)
        arrays: dict[str, NDArray[Any]] = {str(name): track for name, track in features.tracks.items()}
        store.put({FACTS: np.array(json.dumps(asdict(facts))), **arrays}, *key)
        return facts, features
    return _unpack(kept)


def _unpack(kept: Arrays) -> tuple[Facts, Features]:
    fields: Mapping[str, Any] = json.loads(str(kept[FACTS]))
    tracks = {cast(Track, name): array for name, array in kept.items() if name != FACTS}
    facts = Facts(**{**fields, "size": tuple(fields["size"])})
    return facts, Features(frames=len(next(iter(tracks.values()))), tracks=tracks)


def _likeness(task: Task, sha256: str, store: Store, settings: Settings) -> Likeness | Unscored | None:
    if task.reference is None:
        return None
    try:
        key = ("reference", sha256, _hash(task.reference), fingerprint(settings.lpips), DECODER, READER)
        kept = store.get(*key)
        if kept is None:
            kept = liken(task.path, task.reference, settings.limits, settings.lpips)
            store.put(kept, *key)
        return likeness(kept, settings.chunks)
    except VideoRefused as error:
        return Unscored(f"its reference {task.reference.name}: {error}")
