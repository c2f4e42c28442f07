"""How far the later chunks of a video are from its first: as published, and without the faults of that form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lvbench.errors import UnknownName
from lvbench.score import Result, Score, Unscored

Floats = NDArray[np.floating[Any]]
PublishedWeights = Literal["linear", "log"]
Weights = Literal["equal", "rising"]
LANES = 8
"""How many partial sums the published program's tensor library keeps, on every CPU."""


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

    Source: BlockVid, 2025 (arXiv:2511.22973), video drift error.
    """
    if weights not in get_args(PublishedWeights):
        raise UnknownName("weighting", weights, get_args(PublishedWeights))
    chunks = np.asarray(values, np.float32)
    if len(chunks) < 2:
        return 0.0
    if chunks[0] == 0:
        return math.inf
    falling = np.arange(len(chunks) - 1, 0, -1, dtype=np.float64)
    weight = (np.log(falling) if weights == "log" else falling).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return _published_sum(weight * (np.abs(chunks[1:] - chunks[0]) / chunks[0]))


def drift(values: Sequence[float], weights: Weights = "equal") -> Result:
    """Mean relative distance of the later chunks from the first; 0 for a video that never drifts.

    Args:
        values: one quality score per equal chunk, in time order.
        weights: "equal" counts every later chunk alike; "rising" counts chunk i with i - 1, so that what lasts to the
            end counts most.

    Returns:
        sum w_i |m_i - m_1| / (|m_1| sum w_i), which does not grow with the number of chunks; Unscored below two chunks,
        where the first chunk is 0, and where a chunk has no number.

    Source: BlockVid, 2025 (arXiv:2511.22973); a departure in the division by the weights' sum, the
        magnitude of m_1, the weights, and undefined cases.
    """
    if weights not in get_args(Weights):
        raise UnknownName("weighting", weights, get_args(Weights))
    chunks = np.asarray(values, np.float64)
    if len(chunks) < 2:
        return Unscored(f"drift needs at least 2 chunks, got {len(chunks)}")
    if not np.isfinite(chunks).all():
        return Unscored(f"chunk {int(np.flatnonzero(~np.isfinite(chunks))[0]) + 1} has no number")
    if chunks[0] == 0:
        return Unscored("the first chunk scored 0, so relative drift is undefined")
    later = np.abs(chunks[1:] - chunks[0]) / abs(chunks[0])
    weight = np.arange(1.0, len(chunks)) if weights == "rising" else np.ones(len(chunks) - 1)
    return Score(math.fsum(weight * later) / math.fsum(weight), count=len(later))


def identity(chunks: Sequence[Floats]) -> list[float]:
    """How like the first chunk each chunk is, 1 for the same: mean cosine of its frames to the mean of the first's.

    Args:
        chunks: features of the frames of each chunk, [F_i, D].

    Returns:
        A number per chunk, the first included: how much that one varies by itself. NaN where features are 0 or none.
    """
    if not chunks:
        return []
    anchor = unit(unit(chunks[0]).mean(0, keepdims=True))[0]
    return [float((unit(chunk) * anchor).sum(1).mean()) for chunk in chunks]


def identity_drift(chunks: Sequence[Floats], weights: Weights = "equal") -> Result:
    """How far what is seen wanders from the first chunk: the drift of `identity`.

    Args:
        chunks: features of the frames of each chunk, [F_i, D], in time order.
        weights: see drift.

    The published dimensions Subject and Background compare frames within a chunk only, so that what changes slowly,
    or from one chunk to the next, leaves no trace in them.
    """
    return drift(identity(chunks), weights)


def unit(features: Floats) -> NDArray[np.float64]:
    """Features [F, D] with rows of length 1; NaN where a row is 0."""
    rows = np.asarray(features, np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(rows / np.sqrt((rows * rows).sum(1, keepdims=True)), np.float64)


def _published_sum(terms: NDArray[np.float32]) -> float:
    """The terms added in float32: what is left over of whole rows of 8, then the 8 sums of the columns."""
    whole = len(terms) // LANES * LANES
    columns = terms[:whole].reshape(-1, LANES).sum(0, dtype=np.float32) if whole else terms[:0]
    total = np.float32(0)
    for term in (*terms[whole:], *columns):
        total += term
    return float(total)
