"""Models small enough that their exact laws are known, for tests of decoders and samplers.

Every one counts in `calls` how often it was asked, as a network's forward passes would be counted. All are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.noise import uniforms


def draw(laws: Tensor, coins: Tensor) -> Tensor:
    """One symbol from each law by inversion, int64 [...].

    Args:
        laws: weights of the symbols, [..., V], not necessarily summing to 1. A symbol of weight 0 is never drawn.
        coins: uniform in [0, 1), [...].
    """
    ends = laws.cumsum(-1)
    return torch.searchsorted(ends, (coins * ends[..., -1])[..., None], right=True)[..., 0]


def random_laws(shape: Sequence[int], seed: int, *, contrast: float = 1.0) -> Tensor:
    """Random laws, [*shape] with the last axis summing to 1; uniform over all laws at contrast 1, uneven above."""
    weights = (-torch.log1p(-uniforms(seed, 0, 0, shape))) ** contrast
    return weights / weights.sum(-1, keepdim=True)


def one_hot_laws(laws: Tensor) -> Tensor:
    """The laws that always give the likeliest symbol: what decoding greedily means."""
    return torch.nn.functional.one_hot(laws.argmax(-1), laws.shape[-1]).to(laws.dtype)


class Joint:
    """A short text as a masked model sees it: the law of any place given any others, from one table.

    law: the probability of every whole text, [V] * T.
    """

    def __init__(self, law: Tensor) -> None:
        self.law = law
        self.calls = 0
        self._texts = torch.cartesian_prod(*map(torch.arange, law.shape)).reshape(-1, law.ndim)
        self._symbols = torch.nn.functional.one_hot(self._texts, len(law)).to(law.dtype)

    @classmethod
    def random(cls, places: int, symbols: int, seed: int, *, contrast: float = 1.0) -> Joint:
        """A table of random probabilities over texts of that many places and symbols."""
        return cls(random_laws((symbols**places,), seed, contrast=contrast).reshape((symbols,) * places))

    def __call__(self, values: Tensor, open: Tensor) -> Tensor:
        """The law of each place given the values [T] at those that are not open, [T, V]; one-hot where given."""
        self.calls += 1
        possible = ((self._texts == values) | open).all(-1)
        laws = torch.einsum("n,ntv->tv", self.law.flatten() * possible, self._symbols)
        return laws / laws.sum(-1, keepdim=True)


class Chain:
    """An endless text as a causal model sees it: each symbol depends on the two before it.

    table: the law of a symbol after each pair, [V, V, V]. Before the text stand two symbols 0.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.calls = 0

    @classmethod
    def random(cls, symbols: int, seed: int, *, contrast: float = 1.0) -> Chain:
        """A chain of random laws over that many symbols."""
        return cls(random_laws((symbols,) * 3, seed, contrast=contrast))

    def __call__(self, text: Sequence[int]) -> Tensor:
        """The law of the next symbol after each beginning of text, the empty and the whole one too, [T + 1, V]."""
        self.calls += 1
        padded = torch.tensor([0, 0, *text])
        return self.table[padded[:-1], padded[1:]]

    def greedy(self) -> Chain:
        """The chain that always continues with the likeliest symbol."""
        return Chain(one_hot_laws(self.table))

    def law(self, length: int) -> Tensor:
        """The probability of every text of that length, [V] * length, by enumeration."""
        symbols = len(self.table)
        texts = torch.cartesian_prod(*[torch.arange(symbols)] * length).reshape(-1, length)
        padded = torch.cat((torch.zeros(len(texts), 2, dtype=torch.int64), texts), dim=1)
        steps = self.table[padded[:, :-2], padded[:, 1:-1], padded[:, 2:]]
        return steps.prod(-1).reshape((symbols,) * length)


class GaussianVideo:
    """A stationary Gaussian autoregression over frames, with unit variance and its exact denoisers.

    Every latent number is a series of its own. Frame t is sum(weights[i] * frame[t - 1 - i]) plus fresh noise.
    """

    def __init__(self, *weights: float) -> None:
        self.weights = weights
        self.calls = 0
        response = [1.0]
        while len(response) < 2_000:
            response.append(sum(weight * past for weight, past in zip(weights, reversed(response), strict=False)))
        impulse = torch.tensor(response, dtype=torch.float64)
        if impulse[-1].abs() > 1e-12:
            raise ConfigError(f"an autoregression with weights {weights} does not settle; use smaller ones")
        self._impulse = impulse / impulse.norm()

    def covariance(self, lag: int) -> float:
        """Of two numbers that many frames apart; 1 at lag 0."""
        return float(self._impulse[lag:] @ self._impulse[: len(self._impulse) - lag])

    def expect(self, past: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """What is known of the next frames: their mean like past, [B, frames, ...], and covariance [frames, frames].

        past: the latest frames, [B, P, ...]; P may be 0. With fewer than the autoregression reaches back over, this
            is all that anybody can know who sees no more.
        """
        seen = past.shape[1]
        times = range(seen + frames)
        joint = torch.tensor([[self.covariance(abs(i - j)) for j in times] for i in times], dtype=torch.float64)
        gain = torch.linalg.solve(joint[:seen, :seen], joint[:seen, seen:])
        mean = torch.einsum("bp...,pf->bf...", past, gain)
        return mean, joint[seen:, seen:] - joint[seen:, :seen] @ gain

    def clean(self, noisy: Tensor, sigma: float, past: Tensor) -> Tensor:
        """The mean of the clean block given noisy [B, F, ...] at level sigma and past: what flow matching learns."""
        return self._towards_clean(noisy, sigma, past, lambda own, total: (1 - sigma) * own / total)

    def jump(self, noisy: Tensor, sigma: float, past: Tensor) -> Tensor:
        """The clean end of the deterministic path through noisy: what a consistency model learns.

        Over noisy blocks of level sigma its answers have exactly the law of clean blocks.
        """
        return self._towards_clean(noisy, sigma, past, lambda own, total: (own / total).sqrt())

    def _towards_clean(
        self, noisy: Tensor, sigma: float, past: Tensor, gain: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Along each axis of the block's covariance: gain of the clean variance and of that of the noisy block."""
        self.calls += 1
        mean, covariance = self.expect(past, noisy.shape[1])
        own, axes = torch.linalg.eigh(covariance)
        gains = axes @ torch.diag(gain(own, (1 - sigma) ** 2 * own + sigma**2)) @ axes.T
        return mean + torch.einsum("fg,bg...->bf...", gains, noisy - (1 - sigma) * mean)
