"""How far the later chunks of a video are from its first: as published, and without the faults of that form."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lvbench.errors import ConfigError, UnknownName
from lvbench.score import Result, Score, Unscored

Floats = NDArray[np.floating[Any]]
PublishedWeights = Literal["linear", "log"]
Weights = Literal["equal", "rising"]
LANES = 8
"""How many partial sums the published program's tensor library keeps, on every CPU."""
SHARE_FLOOR = 0.01
"""Of a score from 0 to 1: what the first chunk has to be over, for others to be measured by it."""
ROWS_AT_ONCE = 256
"""Frames that are compared with those of the first chunk at once, so that long chunks need little memory."""


def vde(values: Sequence[float], weights: PublishedWeights = "linear") -> float:
    """Video drift error in its published form: sum over chunks i = 2 .. N of w_i |m_i - m_1| / m_1.

    Args:
        values: m_1 .. m_N, one quality score per equal chunk, in time order; taken as float32.
        weights: "linear" is w_i = N - i + 1, "log" its natural logarithm: both fall, so that an early change
            counts most.

    Returns:
        A float32 number. As published it is not divided by the weights' sum, is 0 below two chunks, infinite where the
        first chunk is 0, negative where that is negative, and NaN where any value is: `drift` is without these faults.

    The order of the sum is that of torch.sum on a CPU. With linear weights the number is therefore the published one
    bit for bit for 9 to 32 chunks, 10 being the published number of them; ln is rounded correctly, which torch's is not
    everywhere.

    Raises ConfigError unless values are one row of numbers.

    Source: BlockVid, 2025 (arXiv:2511.22973), video drift error.
    """
    if weights not in get_args(PublishedWeights):
        raise UnknownName("weighting", weights, get_args(PublishedWeights))
    chunks = _row(values).astype(np.float32)
    if len(chunks) < 2:
        return 0.0
    if chunks[0] == 0:
        return math.inf
    falling = np.arange(len(chunks) - 1, 0, -1, dtype=np.float64)
    weight = (np.log(falling) if weights == "log" else falling).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return _published_sum(weight * (np.abs(chunks[1:] - chunks[0]) / chunks[0]))


def drift(values: Sequence[float], weights: Weights = "equal", *, floor: float = 0.0) -> Result:
    """Mean relative distance of the later chunks from the first; 0 for a video that never drifts.

    Args:
        values: one quality score per equal chunk, in time order.
        weights: "equal" counts every later chunk alike; "rising" counts chunk i with i - 1, so that what lasts to the
            end counts most.
        floor: what the magnitude of the first chunk has to be over, in the unit of the scores: next to nothing, any
            change is a large one.

    Returns:
        sum w_i |m_i - m_1| / (|m_1| sum w_i), which does not grow with the number of chunks; Unscored below two chunks,
        where the first chunk is not over the floor, and where a chunk or the result has no number.

    Raises ConfigError unless values are one row of numbers.

    Source: BlockVid, 2025 (arXiv:2511.22973); a departure in the division by the weights' sum, the
        magnitude of m_1, the floor, the weights, and undefined cases.
    """
    if weights not in get_args(Weights):
        raise UnknownName("weighting", weights, get_args(Weights))
    chunks = _row(values)
    if len(chunks) < 2:
        return Unscored(f"drift needs at least 2 chunks, got {len(chunks)}")
    if not np.isfinite(chunks).all():
        return Unscored(f"chunk {int(np.flatnonzero(~np.isfinite(chunks))[0]) + 1} has no number")
    if abs(chunks[0]) <= floor:
        return Unscored(f"the first chunk scored {floor:g} or less, so relative drift is undefined")
    weight = np.arange(1.0, len(chunks)) if weights == "rising" else np.ones(len(chunks) - 1)
    with np.errstate(over="ignore"):
        mean = float((weight * (np.abs(chunks[1:] - chunks[0]) / abs(chunks[0]))).sum() / weight.sum())
    return Score(mean, len(weight)) if math.isfinite(mean) else Unscored("the drift is too large for a number")


def identity(chunks: Sequence[Floats] | Floats) -> list[float]:
    """How much of what each chunk shows was seen in the first, 0 to 1; 1 for nothing new.

    Args:
        chunks: features of the frames of each chunk, [F_i, D] each, or [N, F, D] where all are as long.

    Returns:
        A number per chunk, m_i. A frame is as like the first chunk as its cosine to the frame there that is most like
        it, or to the mean direction of them all if that is larger, and not less than 0: the former knows every face of
        a subject that turns, the latter a noisy one. m_1 is the mean over the first chunk of how like the others there
        each frame is; later ones are the mean over their frames, at most m_1: to be more alike is no loss. NaN where
        features are 0 or none, and where the first chunk has one frame.

    Raises ConfigError unless each chunk is a table of numbers, all with the same D.
    """
    rows = [unit(chunk) for chunk in _tables(chunks)]
    if not rows or len(rows[0]) < 2:
        return [math.nan] * len(rows)
    first, mean = rows[0], unit(rows[0].sum(0, keepdims=True))
    others = _likeness(first, first, unit(first.sum(0) - first), alone=True)
    later = [_likeness(chunk, first, mean) for chunk in rows[1:]]
    return [others, *(float(np.minimum(value, others)) for value in later)]


def identity_drift(chunks: Sequence[Floats] | Floats, weights: Weights = "equal") -> Result:
    """How much of what the later chunks show was not seen in the first, 0 to 1: the drift of `identity`.

    Args:
        chunks: see identity; in time order.
        weights: see drift.

    Returns:
        sum w_i (m_1 - m_i) / (m_1 sum w_i). 0 for a video that repeats its first chunk, or stays at a frame of it, in
        any order; Unscored where the frames of the first chunk are not alike at all.

    The published dimensions Subject and Background compare frames within a chunk only, so that what changes slowly,
    or from one chunk to the next, leaves no trace in them.
    """
    return drift(identity(chunks), weights, floor=SHARE_FLOOR)


def unit(features: Floats) -> NDArray[np.float64]:
    """Features [F, D] with rows of length 1; NaN where a row is 0."""
    rows = np.asarray(features, np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(rows / np.sqrt((rows * rows).sum(1, keepdims=True)), np.float64)


def table(features: Floats) -> Floats:
    """Features of frames as an array, [F, D]; of no frames [0, 0]. Raises ConfigError if they are none."""
    rows = _numbers(features)
    if rows is not None and rows.shape == (0,):
        return rows.reshape(0, 0)
    if rows is None or rows.ndim != 2:
        raise ConfigError(
            f"expected features of the frames of one video, [F, D] numbers, got {_shown(features, rows)}; put the "
            "features of each frame into a row, with numpy.stack"
        )
    return rows


def _row(values: Sequence[float]) -> NDArray[np.float64]:
    try:
        row = np.asarray(values, np.float64)  # None becomes NaN: in scores.json null stands for it
    except (TypeError, ValueError):
        row = None
    if row is None or row.ndim != 1:
        raise ConfigError(
            f"expected one score for each chunk of one video, [N] numbers, got {_shown(values, row)}; call it for each "
            "video, and average the scores of its frames in each chunk"
        )
    return row


def _tables(chunks: Sequence[Floats] | Floats) -> list[Floats]:
    parts = list(chunks) if np.iterable(chunks) else [chunks]
    tables = [_numbers(part) for part in parts]
    known = [rows for rows in tables if rows is not None and rows.ndim == 2]
    if len(known) < len(parts) or len({rows.shape[1] for rows in known}) > 1:
        shapes = ", ".join(_shown(part, rows) for part, rows in zip(parts[:3], tables, strict=False))
        raise ConfigError(
            f"expected features of each chunk, [F, D] numbers each with one D, got chunks of {shapes}; cut the "
            "features [frames, D] of a video with numpy.array_split(features, 10)"
        )
    return known


def _numbers(values: object) -> NDArray[Any] | None:
    """An array of real numbers; None of what is none, such as text or rows of several lengths."""
    try:
        found = np.asarray(values)
    except (TypeError, ValueError):
        return None
    return found if found.dtype.kind in "biuf" else None


def _shown(values: object, array: NDArray[Any] | None) -> str:
    """What was given: its shape, or where it has none some of itself."""
    return reprlib.repr(values) if array is None else str(list(array.shape))


def _likeness(rows: Floats, known: Floats, means: Floats, *, alone: bool = False) -> float:
    """The mean over rows [F, D] of how like one that is known [K, D], or their mean [1 or F, D], each is; see identity.

    Args:
        rows, known, means: of length 1.
        alone: the rows are the known ones themselves, and none is compared with itself.
    """
    nearest = []
    for begun in range(0, len(rows), ROWS_AT_ONCE):
        # Not a matrix product: its libraries take a thread for each core, gigabytes of memory where those are many.
        cosines = np.einsum("fd,kd->fk", rows[begun : begun + ROWS_AT_ONCE], known)
        if alone:
            cosines[range(len(cosines)), range(begun, begun + len(cosines))] = -1
        nearest.append(cosines.max(1))
    if not nearest:
        return math.nan
    likest = np.fmax(np.concatenate(nearest), (rows * means).sum(1))
    return float(np.clip(likest, 0, 1).mean())


def _published_sum(terms: NDArray[np.float32]) -> float:
    """The terms added in float32: what is left over of whole rows of 8, then the 8 sums of the columns."""
    whole = len(terms) // LANES * LANES
    columns = terms[:whole].reshape(-1, LANES).sum(0, dtype=np.float32) if whole else terms[:0]
    total = np.float32(0)
    for term in (*terms[whole:], *columns):
        total += term
    return float(total)
