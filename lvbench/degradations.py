"""How far each light score moves when a clip goes bad in a known way: `python -m lvbench.degradations` tells.

The clip is drawn: a striped ball wanders before a landscape that passes by, much the same in every chunk, so that it
drifts by little but what is done to it. What is done grows from nothing after the first chunk, or sets in half way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lvbench.extractor import Extractor
from lvbench.judge import Judged, judge
from lvbench.light import Light
from lvbench.measures import DIMENSIONS
from lvbench.score import Result, Score
from lvbench.video import Facts, Frame, batches

FPS = 16
CHUNKS = 10
SUBJECTS = ((220, 60, 40), (250, 220, 90)), ((40, 90, 220), (60, 220, 210))
"""Two colours of a ball each."""
LANDSCAPES = (120.0, 200.0, 90.0), (200.0, 150.0, 190.0)
HALF_WAY = 0.55
"""Not at the border of two chunks, where dimensions that look into one chunk at a time would be blind."""
SHOWN = tuple(name for name in DIMENSIONS if name != "aesthetic")
COMPANIONS_SHOWN = ("imaging_quality", "motion_smoothness", "temporal_flicker", "dynamic_degree")


READING = """\
Of a drift low is good, of the others high is good, or livelier. What a line is meant to move is compared with the
first line; the other scores should stay near theirs. A loop is no better than the clip that it is made of, though it
drifts less in some: each of its chunks shows the same frames again, so later ones are as near to the first as can be.
Drift asks how far a video has gone from its beginning, and not whether it goes anywhere. Where the loop leaps back,
motion is less smooth, and chunks hold a leap or two each, which moves dynamic drift."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """What becomes of a clip. Shares are of the way through it, 0 to 1.

    moves: which scores are meant to see it, and which way they go beside the clip as it was.
    picture: what becomes of a frame at a share; the generator is for what is left to chance.
    moment: which frame of the clip is seen as frame t of so many.
    subject: which of SUBJECTS is seen at a share.
    place: which of LANDSCAPES is seen at a share.
    """

    moves: str
    picture: Callable[[Frame, float, np.random.Generator], Frame] = lambda frame, share, generator: frame
    moment: Callable[[int, int], int] = lambda t, count: t
    subject: Callable[[float], int] = lambda share: 0
    place: Callable[[float], int] = lambda share: 0


def _late(share: float) -> float:
    """0 over the first chunk, then rising to 1 at the end."""
    return max(0.0, share - 1 / CHUNKS) / (1 - 1 / CHUNKS)


def _blurred(frame: Frame, share: float, generator: np.random.Generator) -> Frame:
    sigma = 3.0 * _late(share)
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), sigma), np.uint8) if sigma > 0 else frame


def _noisy(frame: Frame, share: float, generator: np.random.Generator) -> Frame:
    grain = generator.normal(0.0, 20.0 * _late(share), frame.shape)
    return np.clip(np.rint(frame + grain), 0, 255).astype(np.uint8)


def _tinted(frame: Frame, share: float, generator: np.random.Generator) -> Frame:
    tint = np.array([60.0, 0.0, -60.0]) * _late(share)
    return np.clip(np.rint(frame + tint), 0, 255).astype(np.uint8)


DEGRADATIONS: Mapping[str, Degradation] = {
    "none": Degradation("nothing"),
    "blur, to sigma 3": Degradation("up: clarity drift; down: imaging quality", picture=_blurred),
    "noise, to sigma 20": Degradation(
        "up: clarity and motion drift; down: imaging quality, motion smoothness, temporal flicker", picture=_noisy
    ),
    "freeze, half way": Degradation(
        "up: dynamic and motion drift, motion smoothness, temporal flicker",
        moment=lambda t, count: min(t, round(HALF_WAY * count)),
    ),
    "colour shift, to 60 levels": Degradation("up: identity drift", picture=_tinted),
    "jump cut, half way": Degradation("up: background and identity drift", place=lambda share: int(share >= HALF_WAY)),
    "identity change, half way": Degradation(
        "up: identity and subject drift", subject=lambda share: int(share >= HALF_WAY)
    ),
    "loop of a chunk and a half": Degradation(
        "none has to: nothing new comes, and no score asks whether it does",
        moment=lambda t, count: t % (3 * count // (2 * CHUNKS)),
    ),
}


def clip(degradation: Degradation, size: tuple[int, int], count: int, seed: int) -> Iterator[Frame]:
    """The frames of a clip, uint8 RGB [H, W, 3] of that (height, width), with what is done to it."""
    generator = np.random.default_rng(seed)
    relief = _relief(size, generator)
    lands = [np.clip(relief[..., None] * colour + 30, 0, 255).astype(np.uint8) for colour in LANDSCAPES]
    for t in range(count):
        share = t / count
        at = degradation.moment(t, count)
        left = at * size[1] // 100
        frame = np.take(lands[degradation.place(share)], range(left, left + size[1]), axis=1, mode="wrap")
        _draw(frame, at, SUBJECTS[degradation.subject(share)])
        yield degradation.picture(frame, share, generator)


def scores(
    degradation: Degradation, extractor: Extractor, *, size: tuple[int, int] = (480, 832), count: int = 320
) -> Judged:
    """What a clip scores with what is done to it, straight from its frames."""
    extraction = extractor.begin(Facts(container="drawn", codec="none", size=size, fps=FPS))
    for frames in batches(clip(degradation, size, count, seed=0), extractor.batch):
        extraction.add(frames)
    return judge(extraction.features(), extractor.missing, tuple(DIMENSIONS), CHUNKS)


def table(found: Mapping[str, Judged]) -> str:
    """A table in Markdown, a line for each degradation, and how to read it; drifts are with equal weights."""
    names = [*(f"drift.{name}" for name in SHOWN), *COMPANIONS_SHOWN]
    heads = [
        "",
        "meant to move",
        *(f"{name} drift" for name in SHOWN),
        *(name.replace("_", " ") for name in COMPANIONS_SHOWN),
    ]
    lines = [
        [kind, DEGRADATIONS[kind].moves, *(_cell(judged.scores[name]) for name in names)]
        for kind, judged in found.items()
    ]
    rows = [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines)]
    return "\n".join([*rows, "", READING])


def _cell(result: Result) -> str:
    return f"{result.value:.4f}" if isinstance(result, Score) else "unscored"


def _relief(size: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float32]:
    """A strip of hills three pictures wide that closes, 0 to 1: noise of every scale down to single pixels."""
    height, width = size[0], 3 * size[1]
    relief = np.zeros((height, width), np.float32)
    rows = 4
    while rows <= height:
        hills = generator.random((rows, 6 * rows), dtype=np.float32)
        hills = np.concatenate([hills, hills[:, :1]], axis=1)
        relief += cv2.resize(hills, (width, height), interpolation=cv2.INTER_CUBIC) / rows**0.5
        rows *= 2
    return np.asarray((relief - relief.min()) / (relief.max() - relief.min()), np.float32)


def _draw(frame: Frame, at: int, colours: tuple[tuple[int, int, int], tuple[int, int, int]]) -> None:
    """Draw the ball where it is at a moment."""
    height, width = frame.shape[:2]
    radius = height // 5
    x = round(width / 2 + width / 10 * np.sin(at / 7))
    y = round(height / 2 + height / 12 * np.sin(at / 5))
    cv2.circle(frame, (x, y), radius, colours[0], -1, cv2.LINE_AA)
    for stripe in (-1, 0, 1):
        reach = round((radius**2 - (stripe * radius / 2) ** 2) ** 0.5)
        level = y + stripe * radius // 2
        cv2.line(frame, (x - reach, level), (x + reach, level), colours[1], max(1, radius // 6), cv2.LINE_AA)


if __name__ == "__main__":
    print(table({kind: scores(degradation, Light()) for kind, degradation in DEGRADATIONS.items()}))
