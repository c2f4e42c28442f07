"""Reads what is told of videos in words, segment after segment, and turns it into the prompts of a generator's blocks.

An annotation file is UTF-8: one JSON object, a list of them, or an object a line, each for one video:
    {"video_id": "a", "fps": 24, "segments": [{"start": 0, "end": 2.5, "caption": "a lake"}, ...]}
start and end are in seconds, ascending and without overlap; fps, of the video that was described, may be left out.
Other fields are passed over. Of InterVBench (LV-Bench) itself no annotation was to be had when this was written: its
page says that it is to come. What others publish are texts for stretches of equal length, which are read as well:
    {"prompts": ["a lake", ...]}                 LongLive, MemFlow: 10 s each; videos are named by their number, from 1
    {"video": "a", "captions": ["a lake", ...]}

A prompts file has an object a line, {"block": 12, "prompt": "a lake"}: from that block on, counted from 0, until the
next line. Blocks ascend, and a prompt has 1 to 4,000 characters. `worldsim generate --prompts` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from lvbench.errors import AnnotationError, ConfigError
from lvbench.report import write

EXAMPLE = '{"video_id": "a", "segments": [{"start": 0, "end": 2.5, "caption": "a lake"}]}'
WRAPPERS = frozenset({"annotations", "data", "items", "samples", "videos"})
"""Names under which others put the list of videos."""
MOST_CHARACTERS = 4_000
"""Of a caption."""
LONGEST_NAME = 200
"""Bytes of the name of a prompts file, before its ending."""
MOST_BLOCKS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What is seen from `start` to `end`, in seconds."""

    start: float
    end: float
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What is told of one video; fps is None where it is not."""

    video_id: str
    segments: tuple[Segment, ...]
    fps: float | None = None


def read_annotations(path: Path, segment_s: float | None = None) -> list[Annotation]:
    """The annotations of a file, see the module, in its order.

    Args:
        path: the file.
        segment_s: how long each text is shown where the file has texts without times; None if it has times.

    Raises:
        AnnotationError: the file cannot be read, or what it says of a video; names the file, the video and the segment.
        ConfigError: segment_s is not above 0, or missing, or given for a file that has times.
    """
    if segment_s is not None and not 0 < segment_s < math.inf:
        raise ConfigError(f"a segment has a length above 0 s, got {segment_s}")
    found = [_Given(path, number, fields).annotation(segment_s) for number, fields in _objects(path)]
    if not found:
        raise AnnotationError(f"{path} tells of no video; write {EXAMPLE}")
    seen: set[str] = set()
    for one in found:
        if one.video_id in seen:
            raise AnnotationError(f"{path}: video {one.video_id!r} is there twice; give each a video_id of its own")
        seen.add(one.video_id)
    return found


def prompts_of(annotation: Annotation, block_s: float) -> dict[int, str]:
    """From which block on a generator is told what, in ascending order.

    A block is told the segment that covers most of it, of two that cover as much the earlier. So a segment that is
    short for a block may be told to none; in a gap between segments the last one holds. Block 0 is always told the
    first segment: a generator opens with something, and that is what was seen first.

    Args:
        annotation: of one video.
        block_s: how long a block is.

    Raises:
        ConfigError: a block is not above 0 s, or so short that the video has over a billion of them.
    """
    if not 0 < block_s < math.inf or annotation.segments[-1].end / block_s > MOST_BLOCKS:
        raise ConfigError(
            f"{annotation.segments[-1].end:g} s in blocks of {block_s:g} s: a block is longer than 0 s, and a video "
            f"has up to {MOST_BLOCKS:,} of them"
        )
    most: dict[int, tuple[float, int]] = {}
    for at, segment in enumerate(annotation.segments):
        first, last = math.floor(segment.start / block_s), math.floor(segment.end / block_s)
        for block in {first, min(first + 1, last), last}:  # it has those between to itself
            covered = min(segment.end, (block + 1) * block_s) - max(segment.start, block * block_s)
            if covered > most.get(block, (0.0, at))[0]:
                most[block] = covered, at
    most[0] = block_s, 0
    told: dict[int, str] = {}
    holds = None
    for block, (_, at) in sorted(most.items()):
        if at != holds:
            told[block], holds = annotation.segments[at].caption, at
    return told


def write_prompts(annotations: Sequence[Annotation], folder: Path, block_s: float) -> int:
    """Write a prompts file for each video, named after it; gives how many segments were too short to be told.

    Characters that a name of a file had better not have are written as in an address: "a/b" becomes a%2Fb.jsonl.

    Raises:
        ConfigError: see prompts_of; nothing is written then.
        ReportError: a file cannot be written.
    """
    files = {_name(one.video_id): prompts_of(one, block_s) for one in annotations}
    folder.mkdir(parents=True, exist_ok=True)
    for name, told in files.items():
        lines = [
            json.dumps({"block": block, "prompt": text}, ensure_ascii=False) + "\n" for block, text in told.items()
        ]
        write(folder / f"{name}.jsonl", "".join(lines))
    return sum(len(one.segments) for one in annotations) - sum(map(len, files.values()))


def _name(video_id: str) -> str:
    name = quote(video_id, safe=" ()[],;=+@")
    name = name.replace(".", "%2E", 1) if name.startswith(".") else name
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"video {video_id[:40]!r}... has too long a name for a file; give it a shorter video_id")
    return name


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    """The number, from 1, and the content of what the file says of each video."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AnnotationError(f"cannot read the annotations {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not UTF-8 text (byte {error.start}); write {EXAMPLE}") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_whole(lines[0][1]):
        for place, (number, line) in enumerate(lines, start=1):
            yield place, _parsed(line, f"{path}, line {number}")
    elif lines:
        whole = _parsed(text, str(path))
        yield from enumerate(whole if isinstance(whole, list) else [whole], start=1)


def _is_whole(line: str) -> bool:
    """Whether a line is JSON by itself."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise AnnotationError(f"{place}: not JSON ({why}); write {EXAMPLE}") from error


@dataclass(frozen=True, slots=True)
class _Given:
    """What a file says of its video of that number, from 1, before anybody has looked at it."""

    path: Path
    number: int
    fields: Any

    def annotation(self, segment_s: float | None) -> Annotation:
        if not isinstance(self.fields, dict):
            self.refuse(f"a video is an object such as {EXAMPLE}")
        for name in sorted(self.fields.keys() & WRAPPERS):
            if isinstance(self.fields[name], list):
                self.refuse(f"the videos are inside {{{json.dumps(name)}: [...]}}; write that list alone, [...]")
        name = self.fields.get("video_id", self.fields.get("video"))
        texts = self.fields.get("captions", self.fields.get("prompts"))
        name = f"{self.number:04d}" if name is None and "prompts" in self.fields else name
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            self.refuse("it has no video_id, a text")
        segments = self.uniform(texts, segment_s) if "segments" not in self.fields else self.timed(segment_s)
        return Annotation(video_id=name, segments=segments, fps=self.fps())

    def timed(self, segment_s: float | None) -> tuple[Segment, ...]:
        given = self.fields["segments"]
        if segment_s is not None:
            raise ConfigError(f"{self.path} has times of its own; leave --segment-seconds out")
        if not isinstance(given, list) or not given:
            self.refuse("segments is a list of at least one")
        segments: list[Segment] = []
        for at, fields in enumerate(given, start=1):
            segments.append(self.segment(at, fields, segments[-1].end if segments else 0.0))
        return tuple(segments)

    def segment(self, at: int, fields: object, begins_s: float) -> Segment:
        if not isinstance(fields, Mapping):
            self.refuse(f'segment {at} is an object such as {{"start": 0, "end": 2.5, "caption": "a lake"}}')
        start, end = (self.quantity(fields, name, f"segment {at}: ") for name in ("start", "end"))
        if start < begins_s:
            before = "the beginning" if at == 1 else f"segment {at - 1} ends, at {begins_s:g}"
            self.refuse(f"segment {at} begins at {start:g} s, before {before}; times ascend without overlap")
        if end <= start:
            self.refuse(f"segment {at} ends at {end:g} s, not after it begins at {start:g}")
        return Segment(start=start, end=end, caption=self.caption(fields.get("caption"), at))

    def uniform(self, texts: object, segment_s: float | None) -> tuple[Segment, ...]:
        if not isinstance(texts, list) or not texts:
            self.refuse(f"it has no segments, such as in {EXAMPLE}, and no list of captions or prompts")
        if segment_s is None:
            raise ConfigError(
                f"{self.path} has texts without times; --segment-seconds says for how long each is told, such as 10"
            )
        return tuple(
            Segment(start=at * segment_s, end=(at + 1) * segment_s, caption=self.caption(text, at + 1))
            for at, text in enumerate(texts)
        )

    def caption(self, text: object, at: int) -> str:
        if not isinstance(text, str) or not text.strip() or not _is_text(text):
            self.refuse(f"segment {at} has no caption, a text")
        if len(text) > MOST_CHARACTERS:
            self.refuse(f"segment {at} has a caption of {len(text):,} characters; it may have {MOST_CHARACTERS:,}")
        return text

    def fps(self) -> float | None:
        if self.fields.get("fps") is None:
            return None
        fps = self.quantity(self.fields, "fps", "")
        if not fps:
            self.refuse("fps is above 0")
        return fps

    def quantity(self, fields: Mapping[str, Any], name: str, place: str) -> float:
        value = fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12:
            self.refuse(f"{place}{name} is a number from 0, got {json.dumps(value)[:40]}")
        return float(value)

    def refuse(self, reason: str) -> NoReturn:
        known = self.fields.get("video_id", self.fields.get("video")) if isinstance(self.fields, dict) else None
        name = repr(known[:80]) if isinstance(known, str) else f"number {self.number}"
        raise AnnotationError(f"{self.path}, video {name}: {reason}")


def _is_text(text: str) -> bool:
    """Whether it can be written: JSON may hold half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
