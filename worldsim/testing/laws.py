"""Judges whether samples follow a law that is known exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from worldsim.errors import ShapeError


def p_value(counts: Tensor, law: Tensor, *, least: float = 5.0) -> float:
    """How likely a deviation at least this large is if the samples follow the law; near 0 if they do not.

    Args:
        counts: how often each outcome was seen, any shape.
        law: the probability of each outcome, float64 of the same shape; sums to 1.
        least: the rarest outcomes are counted as one, so that every group is expected at least this often.

    Returns:
        The p-value, 0.0 if an outcome was seen that cannot happen. A test that asks n times divides its level by n.

    Raises:
        ShapeError: the shapes differ, or there are too few samples for two groups of outcomes.

    Source: the chi-square test of Pearson, with Cochran's rule for rare outcomes.
    """
    if counts.shape != law.shape:
        raise ShapeError(f"each outcome has a count and a probability, got {list(counts.shape)} and {list(law.shape)}")
    if bool(counts[law == 0].any()):
        return 0.0
    expected, order = (law[law > 0].double() * counts.sum()).sort()
    seen = counts[law > 0][order].double()
    rare = max(int((expected < least).sum()), int((expected.cumsum(0) < least).sum()) + 1)
    if rare >= len(expected):
        raise ShapeError(f"{int(counts.sum())} samples are too few to judge {law.numel()} outcomes by; draw more")
    seen, expected = (torch.cat((group[:rare].sum(0, keepdim=True), group[rare:])) for group in (seen, expected))
    statistic = ((seen - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(expected) - 1, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))
