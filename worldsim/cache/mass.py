"""How much attention tokens receive, and the fewest of them that hold most of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError

AT_ONCE = 64
"""Queries whose attention is held at once: that many times heads times keys, however many queries there are."""
ROUNDING = 1e-12
"""Share of the whole mass that a sum in float64 may lack and still count as enough."""


@torch.no_grad()
def mass_by_probes(q: Tensor, k: Tensor, *, probes: int, own: Tensor | None = None) -> Tensor:
    """The share of attention that every key receives of some of the queries, float32 [K], 1 in all.

    Args:
        q: queries after rotary embedding, [Q, heads, head_dim], Q at least 1.
        k: keys after rotary embedding, [K, heads, head_dim].
        probes: how many of the queries are asked at most, evenly spread over them; as many as there are ask all.
        own: keys that are attended to as well but have no share, such as those of the queries' own block,
            [O, heads, head_dim].

    Returns:
        Summed over heads and probes. Where all attention goes to `own`, every key has the same share.

    Raises:
        ShapeError: the tensors do not belong together.
        ConfigError: fewer than 1 probe.

    Source: attention received as saliency, BlockVid, Zhang et al. 2025 (arXiv:2511.22973), semantic sparse cache, which
        asks every query; probes in place of all, ZipVL, He et al. 2024 (arXiv:2410.08584). The probes here are spread
        evenly, not drawn, so that equal blocks are scored alike.
    """
    _check(q, k, *([] if own is None else [own]))
    if probes < 1:
        raise ConfigError(f"attention is measured by at least 1 probe, got probes={probes}")
    count = min(probes, len(q))
    picked = (2 * torch.arange(count, device=q.device) + 1) * len(q) // (2 * count)
    keys = k if own is None else torch.cat((k, own))
    mass = torch.zeros(len(keys), device=k.device)
    for some in q[picked].split(AT_ONCE):
        mass += _scores(some, keys).softmax(-1).sum((0, 1))
    return _shares(mass[: len(k)])


@torch.no_grad()
def mass_by_lse(q: Tensor, k: Tensor, lse: Tensor) -> Tensor:
    """The share of attention that every key receives of all queries, float32 [K], 1 in all.

    What mass_by_probes tells of as many probes as queries, without their softmax once more; keys that have no share
    are in the log-sum-exp and nowhere else.

    Args:
        q: queries after rotary embedding, [Q, heads, head_dim], Q at least 1.
        k: keys after rotary embedding, [K, heads, head_dim].
        lse: log of the sum of exp(q . key / sqrt(head_dim)) over all keys that a query attended to, float32 [heads, Q],
            as kernels of attention return it.

    Raises:
        ShapeError: the tensors do not belong together.

    Source: as mass_by_probes; the sum over queries from the log-sum-exp is the one that backward passes of
        FlashAttention use, Dao et al. 2022 (arXiv:2205.14135), appendix B.2.
    """
    _check(q, k)
    if lse.shape != (q.shape[1], len(q)):
        raise ShapeError(f"expected a log-sum-exp of every head and query {[q.shape[1], len(q)]}, got {[*lse.shape]}")
    mass = torch.zeros(len(k), device=k.device)
    for some, known in zip(q.split(AT_ONCE), lse.float().split(AT_ONCE, dim=1), strict=True):
        mass += (_scores(some, k) - known[..., None]).exp().sum((0, 1))
    return _shares(mass)


def fewest(mass: Tensor, tau: float) -> Tensor:
    """The fewest tokens whose mass is at least the share tau of all of it: their indices, int64, ascending.

    Of tokens with equal mass the earlier ones are taken first, so equal masses give equal answers.

    Args:
        mass: of each token, not below 0, [K]; it need not be 1 in all.
        tau: above 0 and at most 1, which takes all tokens that have any mass.

    Raises:
        ShapeError: mass is no row of numbers.
        ConfigError: tau is out of range, or there is no mass to share.

    Source: the coverage threshold of ZipVL, He et al. 2024 (arXiv:2410.08584), and of BlockVid, Zhang et al. 2025
        (arXiv:2511.22973), whose tau is 0.97 or 0.98.
    """
    if mass.ndim != 1:
        raise ShapeError(f"expected the mass of each token [K], got {[*mass.shape]}")
    if not 0 < tau <= 1:
        raise ConfigError(f"a share of attention is above 0 and at most 1, got tau={tau}")
    # On the CPU, whose sums come out the same every time; how many are kept has to be known there anyway.
    ranked, order = mass.double().cpu().sort(descending=True, stable=True)
    held = ranked.cumsum(0)
    total = float(held[-1]) if len(held) else 0.0
    if not 0 < total < math.inf:
        raise ConfigError(f"{len(mass)} tokens with a mass of {total} in all have none to share; measure it first")
    enough = held >= (tau - ROUNDING) * total
    count = int(enough.int().argmax()) + 1
    return order[:count].sort().values.to(mass.device)


def _check(q: Tensor, *keys: Tensor) -> None:
    if q.ndim != 3 or not len(q) or any(k.ndim != 3 or k.shape[1:] != q.shape[1:] for k in keys):
        raise ShapeError(
            f"expected queries and keys [tokens, heads, head_dim] of the same heads and 1 query or more, "
            f"got {[*q.shape]} and {', '.join(str([*k.shape]) for k in keys)}"
        )


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """How well each key answers each query, float32 [heads, Q, K]."""
    return q.float().transpose(0, 1) @ k.float().permute(1, 2, 0) / math.sqrt(q.shape[-1])


def _shares(mass: Tensor) -> Tensor:
    total = mass.sum()
    return torch.where(total > 0, mass / total, 1 / max(1, len(mass)))
