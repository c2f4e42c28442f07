"""Speculative sampling and speculative Jacobi decoding in the two loops, over chains whose law is a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor

from worldsim.decoding.canvas import TokenCanvas
from worldsim.decoding.loop import Guarantee, decide, decode_blocks
from worldsim.noise import uniforms
from worldsim.testing.laws import p_value
from worldsim.testing.toys import Chain, draw, random_laws

Model = Callable[[Sequence[int]], Tensor]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
LEVEL = 1e-3 / 6  # six laws are judged in this module


def couple(drafts: Tensor, draft_laws: Tensor, target_laws: Tensor, coins: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [T] with exactly the target's laws that differ from the drafts as seldom as can be, and which are drafts.

    Decoding greedily is the case of one-hot laws. A place whose draft has weight 0 holds no draft.

    Args:
        drafts: [T].
        draft_laws: what each draft was drawn from, [T, V].
        target_laws: what each token is to be drawn from, [T, V].
        coins: uniform in [0, 1), [2, T].

    Source: Leviathan et al. 2023 (arXiv:2211.17192), algorithm 1.
    """
    at = torch.arange(len(drafts))
    weight = draft_laws[at, drafts]
    kept = (weight > 0) & (coins[0] * weight < target_laws[at, drafts])
    return torch.where(kept, drafts, draw((target_laws - draft_laws).clamp_min(0), coins[1])), kept


def trusting(drafts: Tensor, draft_laws: Tensor, target_laws: Tensor, coins: Tensor) -> tuple[Tensor, Tensor]:
    """A wrong rule: every draft that the target might have written passes."""
    kept = (draft_laws > 0)[torch.arange(len(drafts)), drafts] & (target_laws[torch.arange(len(drafts)), drafts] > 0)
    return torch.where(kept, drafts, draw(target_laws, coins[1])), kept


def forgetful(drafts: Tensor, draft_laws: Tensor, target_laws: Tensor, coins: Tensor) -> tuple[Tensor, Tensor]:
    """A wrong rule: a refused draft is replaced from the whole law of the target, not from what is left of it."""
    _, kept = couple(drafts, draft_laws, target_laws, coins)
    return torch.where(kept, drafts, draw(target_laws, coins[1])), kept


class Writer(Protocol):
    """A decoder of text; its condition is how many tokens are still wanted."""

    text: list[int]

    def propose(self, room: int, /) -> TokenCanvas: ...

    def commit(self, block: TokenCanvas, /) -> None: ...


@dataclass(kw_only=True)
class Speculative:
    """A drafter writes ahead, the target checks all of it in one call."""

    guarantee = Guarantee.EXACT_LAW
    target: Chain
    drafter: Model
    drafts: int
    seed: int = 0
    rule: Rule = couple
    stop: int | None = None

    def __post_init__(self) -> None:
        self.text: list[int] = []
        self.blocks = 0

    def propose(self, room: int) -> TokenCanvas:
        places = min(self.drafts + 1, room)
        empty = TokenCanvas(values=torch.zeros(places, dtype=torch.int64), open=torch.ones(places, dtype=torch.bool))
        return decide(empty, self._draft, self._verify)

    def commit(self, block: TokenCanvas) -> None:
        self.text += block.kept.tolist()
        self.blocks += 1

    def _coins(self, canvas: TokenCanvas) -> Tensor:
        return uniforms(self.seed, self.blocks, canvas.step, (3, len(canvas.values)))

    def _draft(self, canvas: TokenCanvas) -> tuple[Tensor, Tensor]:
        """Drafts and their laws; the last place holds none, it is for the target's own token."""
        drafts, laws = [], []
        for coin in self._coins(canvas)[0, :-1]:
            laws.append(self.drafter([*self.text, *drafts])[-1])
            drafts.append(int(draw(laws[-1], coin)))
        return torch.tensor([*drafts, 0]), torch.stack([*laws, torch.zeros(len(self.target.table)).double()])

    def _verify(self, canvas: TokenCanvas, proposal: tuple[Tensor, Tensor]) -> TokenCanvas:
        drafts, laws = proposal
        target_laws = self.target([*self.text, *drafts[:-1].tolist()])[-len(drafts) :]
        tokens, kept = self.rule(drafts, laws, target_laws, self._coins(canvas)[1:])
        keep = int(kept.cumprod(0).sum()) + 1
        if self.stop in tokens[:keep].tolist():
            keep = tokens.tolist().index(self.stop) + 1
        return canvas.after(tokens, torch.arange(len(tokens)) >= keep, keep=keep)


@dataclass(kw_only=True)
class Jacobi:
    """A window guessed at once and guessed again until its first tokens hold; the rest begins the next window.

    Greedily this is Jacobi decoding; otherwise its speculative form with a coupled tail.
    Source: Teng et al. 2024 (arXiv:2410.01699) and its maximal coupling (arXiv:2510.24211).
    """

    guarantee = Guarantee.EXACT_LAW
    target: Chain
    window: int
    least: int = 1
    seed: int = 0
    rule: Rule = couple

    def __post_init__(self) -> None:
        self.text: list[int] = []
        self.blocks = 0
        self.tail = torch.zeros(0, dtype=torch.int64)
        self.tail_laws = torch.zeros(0, len(self.target.table)).double()

    def propose(self, room: int) -> TokenCanvas:
        places, symbols = min(self.window, room), len(self.target.table)
        guess_laws = torch.full((places, symbols), 1 / symbols, dtype=torch.float64)
        guesses = draw(guess_laws, uniforms(self.seed, self.blocks, 0, (places,)))
        canvas = TokenCanvas(
            values=torch.cat((self.tail, guesses[len(self.tail) :]))[:places],
            open=torch.ones(places, dtype=torch.bool),
            laws=torch.cat((self.tail_laws, guess_laws[len(self.tail) :]))[:places],
        )
        return decide(canvas, self._ask, self._accept)

    def commit(self, block: TokenCanvas) -> None:
        assert block.laws is not None
        self.text += block.kept.tolist()
        self.blocks += 1
        self.tail, self.tail_laws = block.tail, block.laws[block.keep :]

    def _ask(self, canvas: TokenCanvas) -> Tensor:
        return self.target([*self.text, *canvas.values[:-1].tolist()])[-len(canvas.values) :]

    def _accept(self, canvas: TokenCanvas, target_laws: Tensor) -> TokenCanvas:
        assert canvas.laws is not None
        places = len(canvas.values)
        coins = uniforms(self.seed, self.blocks, canvas.step + 1, (2, places))
        tokens, kept = self.rule(canvas.values, canvas.laws, target_laws, coins)
        decided = min(int(kept.cumprod(0).sum()) + 1, places)
        return canvas.after(
            tokens,
            torch.arange(places) >= decided,
            laws=target_laws,
            keep=decided if decided >= min(self.least, places) else None,
        )


class StaleJacobi(Jacobi):
    """A wrong one: it forgets that the tail was drawn again, and from which laws."""

    def _accept(self, canvas: TokenCanvas, target_laws: Tensor) -> TokenCanvas:
        return replace(super()._accept(canvas, target_laws), laws=canvas.laws)


def room(decoder: Writer, length: int, stop: int | None = None) -> Iterator[int]:
    """How many tokens are still wanted, until none is or the last one written says stop."""
    while len(decoder.text) < length and (stop is None or stop not in decoder.text):
        yield length - len(decoder.text)


def write(decoder: Writer, length: int, stop: int | None = None) -> list[int]:
    for _ in decode_blocks(decoder, room(decoder, length, stop)):
        pass
    return decoder.text


def count_texts(make: Callable[[int], Writer], law: Tensor, samples: int) -> Tensor:
    counts = torch.zeros(law.shape)
    for seed in range(samples):
        counts[tuple(write(make(seed), law.ndim))] += 1
    return counts


def greedy_text(chain: Chain, length: int) -> list[int]:
    text: list[int] = []
    while len(text) < length:
        text.append(int(chain(text)[-1].argmax()))
    return text


@dataclass
class Misleading:
    """A drafter that knows the greedy text and is wrong at the last of every so many places."""

    chain: Chain
    every: int

    def __call__(self, text: Sequence[int]) -> Tensor:
        laws = self.chain.greedy()(text)
        wrong = torch.arange(len(laws)) % self.every == self.every - 1
        return torch.where(wrong[:, None], laws.roll(1, -1), laws)


def law_in_sixths(symbols: int, seed: int) -> Tensor:
    """A random law of multiples of 1/6, some of them 0."""
    cuts = (uniforms(seed, 0, 0, (symbols - 1,)) * 7).long().sort().values
    return torch.diff(cuts, prepend=torch.tensor([0]), append=torch.tensor([6])).double() / 6


def law_of_the_rule(rule: Rule, draft_law: Tensor, target_law: Tensor) -> Tensor:
    """The exact law of one token where both laws are in sixths.

    Every border between two choices of a rule is then a multiple of 1/60, so the middles of 60 cells stand for all
    coins.
    """
    middle = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    coins = torch.cartesian_prod(middle, middle).T
    law = torch.zeros_like(target_law)
    for draft, weight in enumerate(draft_law.tolist()):
        if weight:
            drafts = torch.full((3_600,), draft)
            tokens, _ = rule(drafts, draft_law.expand(3_600, -1), target_law.expand(3_600, -1), coins)
            law += weight * torch.nn.functional.one_hot(tokens, len(law)).double().mean(0)
    return law


def test_the_rule_gives_a_token_exactly_the_law_of_the_target_and_wrong_rules_do_not():
    distances = {couple: 0.0, trusting: 0.0, forgetful: 0.0}
    for seed in range(100):
        draft_law, target_law = law_in_sixths(4, seed), law_in_sixths(4, 1_000 + seed)
        for rule in distances:
            distance = (law_of_the_rule(rule, draft_law, target_law) - target_law).abs().sum() / 2
            distances[rule] = max(distances[rule], float(distance))
    assert distances[couple] < 1e-12
    assert distances[trusting] > 0.01
    assert distances[forgetful] > 0.01


@pytest.mark.parametrize("laws", ["equal", "apart"])
def test_equal_laws_keep_every_draft_and_laws_with_nothing_in_common_keep_none(laws):
    draft_law = torch.tensor([0.1, 0.9, 0.0, 0.0], dtype=torch.float64)
    target_law = draft_law if laws == "equal" else draft_law.flip(0)
    drafts = draw(draft_law.expand(501, -1), uniforms(1, 0, 0, (501,)))
    _, kept = couple(drafts, draft_law.expand(501, -1), target_law.expand(501, -1), uniforms(1, 0, 1, (2, 501)))
    assert kept.tolist() == [laws == "equal"] * 501


@pytest.mark.parametrize(("likeness", "drafts"), [(0.0, 1), (0.0, 2), (0.5, 2)])
def test_speculative_sampling_has_the_exact_law_and_wrong_rules_have_not(likeness, drafts):
    target = Chain.random(3, seed=3, contrast=2.0)
    drafter = Chain(torch.lerp(Chain.random(3, seed=4).table, target.table, likeness))
    law = target.law(3)

    def fit(rule: Rule, samples: int) -> float:
        def make(seed: int) -> Speculative:
            return Speculative(target=target, drafter=drafter, drafts=drafts, seed=seed, rule=rule)

        return p_value(count_texts(make, law, samples), law)

    assert fit(couple, 1_500) > LEVEL
    assert fit(trusting, 500) < 1e-6
    assert fit(forgetful, 1_000) < 1e-6


# The first shows a wrong rule and wrong laws of the tail best, the second coins that are used twice in a block.
THREE_SYMBOLS, TWO_SYMBOLS = Chain.random(3, seed=3, contrast=2.0), Chain.random(2, seed=5, contrast=2.0)


def fit_of_jacobi(kind: type[Jacobi], target: Chain, length: int, samples: int, **settings: Any) -> float:
    def make(seed: int) -> Jacobi:
        return kind(target=target, seed=seed, **settings)

    law = target.law(length)
    return p_value(count_texts(make, law, samples), law)


def test_speculative_jacobi_has_the_exact_law_and_wrong_rules_or_stale_laws_have_not():
    assert fit_of_jacobi(Jacobi, THREE_SYMBOLS, 3, 1_500, window=3) > LEVEL
    assert fit_of_jacobi(Jacobi, THREE_SYMBOLS, 3, 700, window=3, rule=trusting) < 1e-6
    assert fit_of_jacobi(Jacobi, THREE_SYMBOLS, 3, 700, window=3, rule=forgetful) < 1e-6
    assert fit_of_jacobi(StaleJacobi, THREE_SYMBOLS, 3, 700, window=3) < 1e-6


@pytest.mark.parametrize(("window", "least"), [(2, 2), (4, 3)])
def test_speculative_jacobi_has_the_exact_law_over_several_steps_in_one_canvas(window, least):
    assert fit_of_jacobi(Jacobi, TWO_SYMBOLS, 4, 1_500, window=window, least=least) > LEVEL


def test_a_chain_of_one_hot_laws_gives_greedy_text_from_any_drafter_in_as_few_calls_as_it_is_right():
    for seed in range(100):
        target = Chain.random(5, seed).greedy()
        expected = greedy_text(target, 23)
        for drafter, calls in (
            (target.greedy(), 6),  # always right: 4 tokens a call
            (Misleading(target, every=1), 23),  # always wrong: 1 token a call
            (Misleading(target, every=3), 8),  # wrong at the last draft: 3 tokens a call
            (Chain.random(5, seed + 1_000), None),
        ):
            target.calls = 0
            decoder = Speculative(target=target, drafter=drafter, drafts=3, seed=seed)
            assert write(decoder, 23) == expected, f"model {seed}, drafter {drafter}"
            assert calls is None or target.calls == calls


def greedy_chain(seed: int) -> Chain:
    """Odd seeds give a chain that depends on the second symbol back only, so that a window can run ahead of it."""
    shape = (5, 1, 5) if seed % 2 else (5, 5, 5)
    return Chain(random_laws(shape, seed).expand(5, 5, 5)).greedy()


def test_jacobi_gives_greedy_text_in_fewer_calls_than_tokens():
    calls = 0
    for seed in range(200):
        target = greedy_chain(seed)
        expected = greedy_text(target, 23)
        target.calls = 0
        assert write(Jacobi(target=target, window=7, least=1 + seed % 5, seed=seed), 23) == expected, f"model {seed}"
        assert target.calls <= 23
        calls += target.calls
    assert calls < 0.75 * 23 * 200


def test_the_tail_that_a_window_hands_over_saves_calls():
    class Forgetting(Jacobi):
        def commit(self, block: TokenCanvas) -> None:
            super().commit(block)
            self.tail, self.tail_laws = self.tail[:0], self.tail_laws[:0]

    calls = {Jacobi: 0, Forgetting: 0}
    for kind in calls:
        for seed in range(1, 61, 2):
            target = greedy_chain(seed)
            write(kind(target=target, window=7), 23)
            calls[kind] += target.calls
    assert calls[Jacobi] < 0.8 * calls[Forgetting]


def test_a_stop_inside_an_accepted_draft_cuts_the_text_there():
    stopped = 0
    for seed in range(50):
        target = Chain.random(4, seed).greedy()
        expected = greedy_text(target, 20)
        if 3 in expected:
            expected = expected[: expected.index(3) + 1]
            stopped += 1
        decoder = Speculative(target=target, drafter=target.greedy(), drafts=6, stop=3)
        assert write(decoder, 20, stop=3) == expected
    assert stopped >= 10


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_a_draft_longer_than_what_is_wanted_is_cut(length):
    target = Chain.random(4, seed=6)
    for decoder in (Speculative(target=target, drafter=target, drafts=9), Jacobi(target=target, window=9)):
        assert len(write(decoder, length)) == length


@pytest.mark.parametrize("kind", ["speculative", "jacobi"])
def test_a_proposal_can_be_thrown_away_and_made_again(kind):
    target, drafter = Chain.random(4, seed=8), Chain.random(4, seed=9)

    def make() -> Writer:
        if kind == "jacobi":
            return Jacobi(target=target, window=5, least=2, seed=3)
        return Speculative(target=target, drafter=drafter, drafts=4, seed=3)

    decoder = make()
    while len(decoder.text) < 17:
        before = list(decoder.text)
        discarded, block = decoder.propose(17 - len(before)), decoder.propose(17 - len(before))
        assert decoder.text == before
        assert discarded.values.tolist() == block.values.tolist()
        decoder.commit(block)
    assert decoder.text == write(make(), 17)
