"""One video from its file to its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from errno import ENOENT, ENOTDIR
from pathlib import Path
from typing import cast

from lvbench import ending
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
from lvbench.video import DECODER, Facts, Limits, Video, batches, open_video
from lvbench.weights import Networks

READER = hash_of_code(reading, ending)
NO_PARTNER = "there is no reference of that name; put the real video there under it"
"""The same for all that have none, which are then one line of a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides the scores of a video, and where its measures are kept.

    chunks: equal parts of a video; the published number is 10.
    dimensions: names in DIMENSIONS.
    extractor: a name in presets; networks are its own, if it has any: those that the dimensions need.
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
    """One video as it was scored.

    likeness: None if there was nothing to compare it with.
    reference_sha256: of the bytes of the real video beside it; None if there is none, or none that can be opened.
    unkept: why what was measured could not be kept for the next time, if so; it says nothing of the video.
    """

    name: str
    sha256: str
    facts: Facts
    frames: int
    judged: Judged
    likeness: Likeness | Unscored | None = None
    reference_sha256: str | None = None
    unkept: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """One video that could not be scored, and why."""

    name: str
    reason: str


def examine(task: Task, settings: Settings) -> Record | Refused:
    """Score one video by itself; what was measured of the same bytes before is not measured again.

    It is opened all the same: the limits are those of this run, whatever an earlier one let pass.
    """
    extractor, limits = extractor_of(settings.extractor, settings.networks), settings.limits
    try:
        with open_video(task.path, limits) as video:
            sha256 = _hash(task.path, limits)
            key = (sha256, extractor.fingerprint, DECODER, READER)
            tracks, unkept = _measured(lambda: _tracks(extract(video, extractor)), settings.store, key)
        frames = len(next(iter(tracks.values())))
        limits.check(frames)
        features = Features(frames=frames, tracks={cast(Track, name): track for name, track in tracks.items()})
        judged = judge(features, extractor.missing, settings.dimensions, settings.chunks)
    except VideoRefused as error:
        return Refused(task.name, str(error))
    return Record(name=task.name, sha256=sha256, facts=video.facts, frames=frames, judged=judged, unkept=unkept)


def compared(record: Record, path: Path, reference: Path, settings: Settings) -> Record:
    """The record of a video with how like its reference it is, or why that is not known.

    Args:
        record: of the video by itself.
        path: of the video.
        reference: the real one.
        settings: see Settings; the limits are for this comparison.
    """
    limits, sha256, unkept = settings.limits, None, None
    found: Likeness | Unscored
    if _is_missing(reference):
        return replace(record, likeness=Unscored(NO_PARTNER))
    try:
        with open_video(path, limits) as ours, open_video(reference, limits) as real:
            sha256 = _hash(reference, limits)
            key = ("reference", record.sha256, sha256, fingerprint(settings.lpips), DECODER, READER)
            tracks, unkept = _measured(lambda: liken(ours, real, settings.lpips), settings.store, key)
        found = likeness(tracks, settings.chunks)
    except VideoRefused as error:
        found = unlikened(reference, str(error))
    return replace(record, likeness=found, reference_sha256=sha256, unkept=record.unkept or unkept)


def unlikened(reference: Path, reason: str) -> Unscored:
    """Why there is no likeness to a reference."""
    return Unscored(f"its reference {reference.name}: {reason}")


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return error.errno in (ENOENT, ENOTDIR)
    return False


def extract(video: Video, extractor: Extractor) -> Features:
    """What an extractor measures of a video, with only a few of its frames in memory. Raises VideoRefused."""
    extraction = extractor.begin(video.facts)
    for frames in batches(video.frames(), extractor.batch):
        extraction.add(frames)
    return extraction.features()


def _tracks(features: Features) -> Arrays:
    return {str(name): track for name, track in features.tracks.items()}


def _hash(path: Path, limits: Limits) -> str:
    try:
        return hash_of(path, limits.seconds)
    except OSError as error:
        raise VideoRefused(f"it cannot be read: {error.strerror or error}") from error


def _measured(measure: Callable[[], Arrays], folder: Path, key: tuple[str, ...]) -> tuple[Arrays, str | None]:
    """What is measured, or was measured before; and why it cannot be kept for the next time, if it cannot."""
    store = Store(folder)
    kept = store.get(*key)
    if kept is not None:
        return kept, None
    found = measure()
    try:
        store.put(found, *key)
    except OSError as error:
        return found, str(error)
    return found, None
