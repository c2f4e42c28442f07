"""The palette of a world: a few hundred patches, so that every patch that was recorded is near one of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worldsim.errors import DataError

SINGLES = 50_000
RARITY = 0.25
FAINTEST = 0.03
"""Deviation of the values of a patch, below which it counts no more for being fainter."""
SEEDING_ROUNDS = 25
ROUNDS = 12


@torch.no_grad()
def fit_palette(patches: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Centres of patches by k-means, [size, P], float32.

    A patch counts by the fourth root of how often it was seen, so that what is rare keeps a centre of its own, and the
    more the fainter it is, so that what is dark is told apart as well as what is bright. Of the patches seen only once
    50,000 drawn ones count.

    Args:
        patches: [N, P], float32.
        size: how many centres.
        rng: the only source of randomness.

    Raises:
        DataError: fewer different patches than centres.

    Source: seeding by squared distance, several at once, Bahmani et al. 2012 (arXiv:1203.6402), algorithm 2, then
        Lloyd's rounds.
    """
    values, counts = torch.unique(patches, dim=0, return_counts=True)
    often, once = (counts > 1).nonzero()[:, 0], (counts == 1).nonzero()[:, 0]
    drawn = torch.from_numpy(rng.permutation(len(once))[:SINGLES]).to(once.device)
    chosen = torch.cat((often, once[drawn]))
    if len(chosen) < size:
        raise DataError(f"{len(chosen)} different patches give no palette of {size}; record more, or ask for fewer")
    points = values[chosen]
    weights = counts[chosen].to(values.dtype) ** RARITY / (points.var(-1) + FAINTEST**2)
    centres = _seeds(points, weights, size, rng)
    for _ in range(ROUNDS):
        nearest = (points @ centres.T - centres.square().sum(-1) / 2).argmax(-1)
        mass = torch.zeros(size, device=points.device).index_add_(0, nearest, weights)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points * weights[:, None])
        centres = torch.where(mass[:, None] > 0, sums / mass[:, None].clamp_min(1e-9), centres)
    return centres


def _seeds(points: Tensor, weights: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """That many of the points, each drawn by its weighted squared distance from those drawn before it."""
    picks = [int(rng.integers(len(points)))]
    distance = (points - points[picks[0]]).square().sum(-1)
    while len(picks) < size:
        law = (distance * weights).double().cpu().numpy()
        if not law.any():
            raise DataError(f"only {len(picks)} patches differ, for a palette of {size}; record more, or ask for fewer")
        most = min(max(1, size // SEEDING_ROUNDS), size - len(picks), int((law > 0).sum()))
        new = rng.choice(len(points), size=most, replace=False, p=law / law.sum())
        picks += new.tolist()
        fresh = points[torch.from_numpy(new).to(points.device)]
        squares = points.square().sum(-1)[:, None] - 2 * points @ fresh.T + fresh.square().sum(-1)
        distance = torch.minimum(distance, squares.min(-1).values).clamp_min_(0)
    return points[torch.tensor(picks, device=points.device)]
