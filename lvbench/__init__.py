"""LV-Bench: how far a minute of video drifts, for videos of any generator; knows nothing of any."""

from __future__ import annotations

from lvbench.consistency import consistency
from lvbench.drift import drift, identity, identity_drift, vde
from lvbench.dynamics import dynamic_degree, moves
from lvbench.score import Result, Score, Unscored

__all__ = [
    "Result",
    "Score",
    "Unscored",
    "consistency",
    "drift",
    "dynamic_degree",
    "identity",
    "identity_drift",
    "moves",
    "vde",
]
