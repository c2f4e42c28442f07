"""Draws in which things neither double nor vanish: the tokens of a frame settle together which of them show one.

A creature that may step onto four tiles is believed of five tokens, each with a share of one. Drawn each by itself they
show none in a third of all frames, and two in a sixth. So neighbours meet in duels over what they share: the sum of
their chances stays, and one of the two comes out settled. Each token shows a thing as often as it is believed to, and
of five tokens that share one thing exactly one does.

What is believed of a crowd may still add up to more than it is, and then it grows, and the larger it is the faster. But
into a view things come at its edge: away from there a crowd never grows, and at the edge only until it is a herd.

Source: the local pivotal method, Grafström, Lundström & Schelin 2012 (Biometrics 68, 514-520), algorithm LPM2, after
the pivotal method of Deville & Tillé 1998. Departures: the nearest partner is taken in reading order, not by dice, and
who finds none nearby is settled alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REACH = 2
"""How far apart, in steps along rows and columns, two places of one thing may be: it moves by one in any direction."""
FEW = 3.0
"""Of fewer tokens than this a thing is believed that rests. Where a move may fail, that it is in one place or in the
next is then one draw, and not two."""
CROWD = 3
"""Of so few things more may come to be in the midst of a view, as when one lets another fly."""
HERD = 6
"""Until there are so many, things come into a view. Of 57,000 recorded Crafter frames 99.9 % show no more creatures and
arrows."""
SURE = 1e-3
"""Chances that are nearer to 0 or 1 than this are taken for it."""


def settle(
    likely: Tensor, kin: Tensor, restless: Tensor, before: Tensor, dice: Tensor, *, fields: Sequence[int]
) -> Tensor:
    """What is likely once every token has settled whether it shows a thing, like likely.

    A thing is what is restless, and what FEW tokens of the frame are believed to show, shades of it included, such as a
    lone tree; all else is ground. Which thing or which ground it is stays as it was believed.

    Args:
        likely: how likely each of K patches is, [B, F, tokens, K], not normalised.
        kin: 1 where one patch is a shade of the other, else 0, [K, K].
        restless: which patches are, bool [K].
        before: how many tokens of the frame before the first showed what is restless, [B].
        dice: uniform numbers in [0, 1), [B, F, rows, columns], which decide the duels.
        fields: how many rows of tokens belong together, from the top; things enter and leave at the edge of a field, so
            two tokens there have nothing to share.
    """
    law = likely / likely.sum(-1, keepdim=True)
    things = (law.sum(2) @ kin.to(law) < FEW)[:, :, None] | restless  # [B, F, 1, K]
    chances, alive = (
        (law * those).sum(-1).double().cpu().unflatten(-1, dice.shape[-2:]).numpy() for those in (things, restless)
    )
    rolled = dice.float().cpu().numpy()
    edge = _edge(fields, dice.shape[-1])
    shows = np.zeros(chances.shape, np.bool_)
    for video, crowd in enumerate(before.tolist()):
        for frame, chance in enumerate(chances[video]):
            settled = _duels(chance, edge, _coins(rolled[video, frame]))
            lively = alive[video, frame] > chance / 2
            settled = _held_down(settled, lively & ~edge, chance, max(crowd, CROWD))
            shows[video, frame] = _held_down(settled, lively, chance, max(crowd, HERD))
            crowd = int((shows[video, frame] & lively).sum())
    shown = torch.from_numpy(shows).to(likely.device).flatten(2)[..., None]
    return likely * (things == shown)


def _held_down(
    shows: NDArray[np.bool_], lively: NDArray[np.bool_], chances: NDArray[np.float64], most: int
) -> NDArray[np.bool_]:
    """Which tokens show a thing, no more than so many of these lively ones: those believed least go."""
    crowd = np.argwhere(shows & lively)
    if len(crowd) <= most:
        return shows
    unsure = sorted((chances[row, column], row, column) for row, column in crowd)[: len(crowd) - most]
    held = shows.copy()
    for chance, row, column in unsure:
        held[row, column] = chance >= 1 - SURE
    return held


def _edge(fields: Sequence[int], columns: int) -> NDArray[np.bool_]:
    """Which tokens lie at the edge of a field, [rows, columns]."""
    edge = np.zeros((sum(fields), columns), np.bool_)
    edge[:, [0, -1]] = True
    for below, rows in zip(np.cumsum(fields), fields, strict=True):
        edge[[below - rows, below - 1]] = True
    return edge


def _coins(dice: NDArray[np.float32]) -> np.random.Generator:
    """As many uniform numbers as there may be duels, the same for the same dice; they share nothing with the dice."""
    key = np.resize(dice, 4).view(np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def _duels(chances: NDArray[np.float64], edge: NDArray[np.bool_], coins: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens show a thing, [rows, columns], each with its chance."""
    chance = {(int(row), int(column)): float(chances[row, column]) for row, column in np.argwhere(chances > SURE)}
    open_ = [place for place in chance if chance[place] < 1 - SURE]
    while open_:
        one = open_.pop(0)
        while SURE < chance[one] < 1 - SURE:
            near = [other for other in open_ if _apart(one, other) <= REACH and not (edge[one] and edge[other])]
            if not near:
                chance[one] = float(coins.random() < chance[one])
                break
            other = min(near, key=lambda place: _apart(one, place))
            chance[one], chance[other] = _duel(chance[one], chance[other], coins.random())
            if not SURE < chance[other] < 1 - SURE:
                open_.remove(other)
    shows = np.zeros(chances.shape, np.bool_)
    for place, settled in chance.items():
        shows[place] = settled > 0.5
    return shows


def _duel(one: float, other: float, coin: float) -> tuple[float, float]:
    """The chances of two after a duel: their sum stays, their means stay, and one of them is 0 or 1."""
    both = one + other
    if both < 1:
        return (0.0, both) if coin * both < other else (both, 0.0)
    return (1.0, both - 1) if coin * (2 - both) < 1 - other else (both - 1, 1.0)


def _apart(one: tuple[int, int], other: tuple[int, int]) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])
