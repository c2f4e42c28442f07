"""Masked block diffusion in the two loops, over models whose whole joint law is a table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Protocol

import pytest
import torch
from torch import Tensor

from worldsim.decoding.canvas import TokenCanvas
from worldsim.decoding.loop import Guarantee, decide, decode_blocks, weakest
from worldsim.errors import ConfigError
from worldsim.noise import uniforms
from worldsim.testing.laws import p_value
from worldsim.testing.toys import Joint, draw

LEVEL = 1e-3 / 3  # three laws are judged in this module


class Unmask(Protocol):
    """Decides some open places from the law of every place."""

    guarantee: Guarantee

    def __call__(self, canvas: TokenCanvas, laws: Tensor, coins: Tensor) -> TokenCanvas: ...


def settle(canvas: TokenCanvas, chosen: Tensor, tokens: Tensor) -> TokenCanvas:
    """Write tokens at the chosen places and close those; the canvas closes with its last place."""
    still_open = canvas.open & ~chosen
    values = torch.where(chosen, tokens, canvas.values)
    return canvas.after(values, still_open, keep=None if still_open.any() else len(values))


class FirstHitting:
    """Some uniformly chosen open places, drawn from their laws. Source: BD3-LM (arXiv:2503.09573), first hitting."""

    def __init__(self, per_step: int) -> None:
        self.per_step = per_step
        self.guarantee = Guarantee.EXACT_LAW if per_step == 1 else Guarantee.APPROXIMATE

    def __call__(self, canvas: TokenCanvas, laws: Tensor, coins: Tensor) -> TokenCanvas:
        order = coins[0].masked_fill(~canvas.open, 2.0).argsort().argsort()
        return settle(canvas, canvas.open & (order < self.per_step), draw(laws, coins[1]))


class MostConfident:
    """The open places that are surest of their token. Source: LLaDA (arXiv:2502.09992), low-confidence remasking."""

    guarantee = Guarantee.APPROXIMATE

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, canvas: TokenCanvas, laws: Tensor, coins: Tensor) -> TokenCanvas:
        steps_left = self.steps - canvas.step
        count = -(-int(canvas.open.sum()) // steps_left)
        confidence, tokens = laws.max(-1)
        order = confidence.masked_fill(~canvas.open, -1.0).argsort(descending=True, stable=True).argsort()
        return settle(canvas, canvas.open & (order < count), tokens)


@dataclass(kw_only=True)
class MaskedBlocks:
    """Blocks of masks, filled by an unmasking rule; what is given stands in its place from the start."""

    model: Joint
    block: int
    unmask: Unmask
    seed: int = 0
    given: tuple[int | None, ...] = ()
    mask: int = 0

    def __post_init__(self) -> None:
        self.text: list[int] = []
        self.blocks = 0
        self.guarantee = weakest(Guarantee.EXACT_LAW, self.unmask.guarantee)

    def propose(self, condition: None) -> TokenCanvas:
        places = range(len(self.text), min(len(self.text) + self.block, self.model.law.ndim))
        given = [self.given[place] if place < len(self.given) else None for place in places]
        canvas = TokenCanvas(
            values=torch.tensor([self.mask if value is None else value for value in given]),
            open=torch.tensor([value is None for value in given]),
        )
        return decide(canvas, self._predict, self._accept)

    def commit(self, block: TokenCanvas) -> None:
        self._ask(block.kept, block.open)  # the clean pass
        self.text += block.kept.tolist()
        self.blocks += 1

    def _predict(self, canvas: TokenCanvas) -> Tensor:
        return self._ask(canvas.values, canvas.open)[len(self.text) :][: len(canvas.values)]

    def _accept(self, canvas: TokenCanvas, laws: Tensor) -> TokenCanvas:
        coins = uniforms(self.seed, self.blocks, canvas.step, (2, len(canvas.values)))
        return self.unmask(canvas, laws, coins)

    def _ask(self, values: Tensor, open: Tensor) -> Tensor:
        """The laws of all places, those before the block given, those behind it unknown."""
        start, end = len(self.text), len(self.text) + len(values)
        whole, unknown = torch.zeros(self.model.law.ndim, dtype=torch.int64), torch.arange(self.model.law.ndim) >= end
        whole[:start], whole[start:end], unknown[start:end] = torch.tensor(self.text), values, open
        return self.model(whole, unknown)


def write(decoder: MaskedBlocks) -> list[int]:
    blocks = -(-decoder.model.law.ndim // decoder.block)
    assert len(list(decode_blocks(decoder, [None] * blocks))) == blocks
    return decoder.text


def count_texts(model: Joint, samples: int, **settings: object) -> Tensor:
    counts = torch.zeros(model.law.shape)
    for seed in range(samples):
        counts[tuple(write(MaskedBlocks(model=model, seed=seed, **settings)))] += 1
    return counts


def law_by_enumeration(model: Joint, known: dict[int, int], place: int) -> list[float]:
    """The law of a place given others, summed text by text."""
    weights = [0.0] * len(model.law)
    for text in product(range(len(model.law)), repeat=model.law.ndim):
        if all(text[index] == value for index, value in known.items()):
            weights[text[place]] += float(model.law[text])
    return [weight / sum(weights) for weight in weights]


def most_confident_reference(model: Joint, block: int, steps: int) -> tuple[list[int], int]:
    """LLaDA's low-confidence remasking written straight down; the text and how often the model was asked."""
    known: dict[int, int] = {}
    calls = 0
    for start in range(0, model.law.ndim, block):
        masked = list(range(start, min(start + block, model.law.ndim)))
        counts = [len(masked) // steps + (step < len(masked) % steps) for step in range(steps)]
        for count in filter(None, counts):
            laws = {place: law_by_enumeration(model, known, place) for place in masked}
            calls += 1
            for place in sorted(masked, key=lambda place: -max(laws[place]))[:count]:
                known[place] = laws[place].index(max(laws[place]))
                masked.remove(place)
    return [known[place] for place in range(model.law.ndim)], calls


@pytest.mark.parametrize(("block", "steps"), [(5, 5), (5, 2), (3, 2)])
def test_unmasking_the_most_confident_places_is_token_equal_to_a_direct_reference(block, steps):
    for seed in range(100):
        model = Joint.random(5, 2, seed, contrast=2.0)
        text, calls = most_confident_reference(model, block, steps)
        assert write(MaskedBlocks(model=model, block=block, unmask=MostConfident(steps))) == text, f"model {seed}"
        assert model.calls == calls + -(-5 // block), f"model {seed}: one clean pass a block belongs to the count"


@pytest.mark.parametrize("block", [4, 2])
def test_first_hitting_has_the_exact_law_one_place_at_a_time_and_not_two(block):
    model = Joint.random(4, 2, seed=2, contrast=2.0)
    one, two = FirstHitting(1), FirstHitting(2)
    assert p_value(count_texts(model, 1_500, block=block, unmask=one), model.law) > LEVEL
    assert p_value(count_texts(model, 300, block=block, unmask=two), model.law) < 1e-6
    assert MaskedBlocks(model=model, block=block, unmask=one).guarantee is Guarantee.EXACT_LAW
    assert MaskedBlocks(model=model, block=block, unmask=two).guarantee is Guarantee.APPROXIMATE


def test_what_is_given_inside_the_canvas_stays_and_the_rest_has_the_law_that_follows_from_it():
    model = Joint.random(4, 3, seed=2, contrast=3.0)
    given = (None, 2, None, None)
    counts = count_texts(model, 1_500, block=4, unmask=FirstHitting(1), given=given)
    law = torch.zeros_like(model.law)
    law[:, 2] = model.law[:, 2] / model.law[:, 2].sum()
    assert p_value(counts, law) > LEVEL
    assert p_value(counts, model.law) < 1e-9


@pytest.mark.parametrize("mask", [0, 1, 2])
def test_what_an_open_place_holds_does_not_matter(mask):
    model = Joint.random(4, 3, seed=3)
    texts = [write(MaskedBlocks(model=model, block=3, unmask=FirstHitting(1), seed=7, mask=m)) for m in (0, mask)]
    assert texts[0] == texts[1]


def test_a_rule_that_writes_more_places_than_are_open_is_caught():
    """Choosing the top of a confidence that is -inf where closed once overwrote prompts in a public decoder."""
    canvas = TokenCanvas(values=torch.tensor([2, 0, 0]), open=torch.tensor([False, True, False]))
    with pytest.raises(ConfigError, match="open places only"):
        settle(canvas, torch.tensor([True, True, False]), torch.tensor([1, 1, 1]))


@pytest.mark.parametrize("unmask", [FirstHitting(1), FirstHitting(2), MostConfident(2)])
def test_a_proposal_can_be_thrown_away_and_made_again(unmask):
    decoder = MaskedBlocks(model=Joint.random(5, 3, seed=4), block=2, unmask=unmask, seed=5)
    while len(decoder.text) < 5:
        before = list(decoder.text)
        discarded, block = decoder.propose(None), decoder.propose(None)
        assert decoder.text == before
        assert discarded.kept.tolist() == block.kept.tolist()
        decoder.commit(block)
    assert decoder.text == write(MaskedBlocks(model=decoder.model, block=2, unmask=unmask, seed=5))
