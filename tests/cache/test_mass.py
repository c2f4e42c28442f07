"""The attention that tokens receive, against the whole attention matrix in float64."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from worldsim.cache import mass as module
from worldsim.cache.mass import AT_ONCE, fewest, mass_by_lse, mass_by_probes
from worldsim.errors import ConfigError, ShapeError

QUERIES = 2 * AT_ONCE + 7
KEYS = 53
HEADS, HEAD_DIM = 3, 10


def random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def tokens(count: int, *, seed: int) -> Tensor:
    """Queries or keys of tokens, so large that some keys receive far more than others."""
    return 2 * random(count, HEADS, HEAD_DIM, seed=seed)


def scores(q: Tensor, k: Tensor) -> Tensor:
    """The whole matrix in float64, [heads, Q, K]."""
    return torch.einsum("qhd,khd->hqk", q.double(), k.double()) / HEAD_DIM**0.5


def truth(q: Tensor, k: Tensor, own: Tensor | None = None) -> Tensor:
    whole = scores(q, k if own is None else torch.cat((k, own))).softmax(-1).sum((0, 1))[: len(k)]
    return whole / whole.sum()


def test_as_many_probes_as_queries_measure_the_whole_matrix() -> None:
    q, k = tokens(QUERIES, seed=0), tokens(KEYS, seed=1)
    measured = mass_by_probes(q, k, probes=QUERIES)
    assert measured.dtype == torch.float32
    torch.testing.assert_close(measured.double(), truth(q, k), rtol=1e-5, atol=0)
    assert measured.max() > 10 * measured.min(), "the case tells nothing: all keys receive about the same"


def test_more_probes_than_queries_ask_every_query_once() -> None:
    q, k = tokens(5, seed=0), tokens(KEYS, seed=1)
    assert torch.equal(mass_by_probes(q, k, probes=99), mass_by_probes(q, k, probes=5))


def test_fewer_probes_are_spread_evenly_over_the_queries() -> None:
    q, k = tokens(QUERIES, seed=0), tokens(KEYS, seed=1)
    # Four probes of 135 queries stand in the middle of four equal parts.
    picked = [QUERIES // 8, 3 * QUERIES // 8, 5 * QUERIES // 8, 7 * QUERIES // 8]
    torch.testing.assert_close(mass_by_probes(q, k, probes=4).double(), truth(q[picked], k), rtol=1e-5, atol=0)


def test_keys_of_the_block_itself_take_attention_and_have_no_share() -> None:
    q, k, own = tokens(QUERIES, seed=0), tokens(KEYS, seed=1), tokens(9, seed=2)
    measured = mass_by_probes(q, k, probes=QUERIES, own=own)
    torch.testing.assert_close(measured.double(), truth(q, k, own), rtol=1e-5, atol=0)
    assert not torch.allclose(measured, mass_by_probes(q, k, probes=QUERIES), rtol=1e-2, atol=0)


def test_keys_that_receive_nothing_at_all_have_equal_shares() -> None:
    q = torch.ones(2, 1, 4)
    measured = mass_by_probes(q, -1e4 * torch.ones(3, 1, 4), probes=2, own=1e4 * torch.ones(1, 1, 4))
    torch.testing.assert_close(measured, torch.full((3,), 1 / 3))


@pytest.mark.parametrize("own", [None, tokens(9, seed=2)], ids=["keys alone", "beside the block's own"])
def test_the_log_sum_exp_tells_the_same_as_every_query_asked(own: Tensor | None) -> None:
    q, k = tokens(QUERIES, seed=0), tokens(KEYS, seed=1)
    lse = scores(q, k if own is None else torch.cat((k, own))).logsumexp(-1).float()
    measured = mass_by_lse(q, k, lse)
    torch.testing.assert_close(measured.double(), truth(q, k, own), rtol=1e-5, atol=0)
    torch.testing.assert_close(measured, mass_by_probes(q, k, probes=QUERIES, own=own), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_measured_in_float32(dtype: torch.dtype) -> None:
    q, k = tokens(QUERIES, seed=0).to(dtype), tokens(KEYS, seed=1).to(dtype)
    for measured in (mass_by_probes(q, k, probes=QUERIES), mass_by_lse(q, k, scores(q, k).logsumexp(-1).float())):
        assert measured.dtype == torch.float32
        torch.testing.assert_close(measured.double(), truth(q, k), rtol=1e-5, atol=0)


def test_the_whole_matrix_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    plain = module._scores

    def watched(q: Tensor, k: Tensor) -> Tensor:
        nonlocal largest
        made = plain(q, k)
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(module, "_scores", watched)
    q, k = tokens(QUERIES, seed=0), tokens(KEYS, seed=1)
    mass_by_probes(q, k, probes=QUERIES)
    mass_by_lse(q, k, scores(q, k).logsumexp(-1).float())
    assert 0 < largest <= HEADS * AT_ONCE * KEYS


def test_no_gradient_is_kept() -> None:
    q, k = tokens(5, seed=0).requires_grad_(), tokens(KEYS, seed=1)
    assert not mass_by_probes(q, k, probes=5).requires_grad
    assert not mass_by_lse(q, k, torch.zeros(HEADS, 5)).requires_grad


def test_no_keys_have_no_mass() -> None:
    q, none = tokens(5, seed=0), tokens(0, seed=1)
    assert mass_by_probes(q, none, probes=5, own=tokens(2, seed=2)).shape == (0,)
    assert mass_by_lse(q, none, torch.zeros(HEADS, 5)).shape == (0,)


def test_what_does_not_belong_together_is_refused() -> None:
    q, k = tokens(5, seed=0), tokens(KEYS, seed=1)
    with pytest.raises(ShapeError, match=r"\[5, 3, 10\] and \[53, 2, 10\]"):
        mass_by_probes(q, k[:, :2], probes=5)
    with pytest.raises(ShapeError, match=r"\[53, 3, 10\], \[4, 3, 9\]"):
        mass_by_probes(q, k, probes=5, own=k[:4, :, :9])
    with pytest.raises(ShapeError, match="1 query or more"):
        mass_by_probes(q[:0], k, probes=5)
    with pytest.raises(ShapeError, match=r"\[3, 5\], got \[5, 3\]"):
        mass_by_lse(q, k, torch.zeros(5, HEADS))
    with pytest.raises(ConfigError, match="probes=0"):
        mass_by_probes(q, k, probes=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tau", [0.05, 0.5, 0.9, 0.97, 1.0])
def test_no_smaller_set_of_tokens_holds_the_share(seed: int, tau: float) -> None:
    mass = random(9, seed=seed).exp()
    kept = fewest(mass, tau).tolist()
    assert kept == sorted(set(kept))
    wanted = tau * float(mass.double().sum())
    assert float(mass.double()[kept].sum()) >= wanted * (1 - 1e-9)
    smaller = combinations(mass.double().tolist(), len(kept) - 1)
    assert all(sum(one) < wanted for one in smaller)


def test_of_equal_tokens_the_earlier_ones_are_kept() -> None:
    assert fewest(torch.full((10,), 0.1), 0.3).tolist() == [0, 1, 2]
    assert fewest(torch.full((1000,), 7.0), 0.97).tolist() == [*range(970)]
    assert fewest(torch.ones(100), 0.07).tolist() == [*range(7)], "0.07 * 100 is above 7 in float64"
    assert fewest(torch.tensor([1.0, 5.0, 1.0, 5.0, 1.0]), 0.8).tolist() == [0, 1, 3]


def test_the_whole_share_leaves_out_only_tokens_without_mass() -> None:
    assert fewest(torch.tensor([0.0, 1e-9, 0.0, 1.0]), 1.0).tolist() == [1, 3]


def test_a_share_of_nothing_is_refused() -> None:
    for tau in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            fewest(torch.ones(3), tau)
    for mass in (torch.zeros(3), torch.empty(0), torch.tensor([1.0, float("nan")]), torch.tensor([float("inf"), 1.0])):
        with pytest.raises(ConfigError, match="none to share"):
            fewest(mass, 0.9)
    with pytest.raises(ShapeError, match=r"\[K\], got \[1, 3\]"):
        fewest(torch.ones(1, 3), 0.9)
