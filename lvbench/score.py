"""A score, or the reason why there is none: what is undefined is not zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """A number, and how many samples are behind it."""

    value: float
    count: int


@dataclass(frozen=True, slots=True)
class Unscored:
    """No number, and why."""

    reason: str


Result = Score | Unscored


def to_json(result: Result) -> dict[str, Any]:
    """A result as scores.json has it: {"value", "count"} or {"unscored"}; JSON has no infinity, so that is a string."""
    match result:
        case Score(value, count):
            return {"value": value if math.isfinite(value) else str(value), "count": count}
        case Unscored(reason):
            return {"unscored": reason}


def from_json(fields: Mapping[str, Any]) -> Result:
    """The result that to_json wrote. Raises KeyError, TypeError, ValueError or OverflowError if it did not."""
    if "unscored" in fields:
        return Unscored(str(fields["unscored"]))
    return Score(float(fields["value"]), int(fields["count"]))
