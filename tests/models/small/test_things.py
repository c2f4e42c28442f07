"""Things that neither double nor vanish: how many there are, how often each token shows one, and what stays apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.models.small.things import settle

ROWS, COLUMNS = 5, 7
GRASS, SAND, COW, DUSKY_COW = range(4)
KIN = torch.eye(4)
KIN[COW, DUSKY_COW] = KIN[DUSKY_COW, COW] = 1
RESTLESS = torch.tensor([False, False, True, True])


def meadow(chances: dict[tuple[int, int], float], ground: int = GRASS) -> Tensor:
    """A frame of one ground with a cow here and there by chance, [1, 1, tokens, 4]."""
    law = torch.zeros(ROWS, COLUMNS, 4)
    law[..., ground] = 1
    for (row, column), chance in chances.items():
        law[row, column, ground], law[row, column, COW] = 1 - chance, chance
    return law.view(1, 1, -1, 4)


def cows(law: Tensor, draws: int, *, seed: int, fields: tuple[int, ...] = (ROWS,), before: int = 99) -> Tensor:
    """Which tokens show a thing in so many frames of that law, after one with so many, [draws, rows, columns]."""
    dice = torch.rand(draws, 1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))
    crowds = torch.full((draws,), before)
    settled = settle(law.expand(draws, -1, -1, -1), KIN, RESTLESS, crowds, dice, fields=fields)
    return (settled[..., COW:].sum(-1) > 0).view(draws, ROWS, COLUMNS)


def off(found: Tensor, chance: float) -> float:
    """By how many standard errors a frequency is off."""
    return abs(float(found.double().mean()) - chance) / (chance * (1 - chance) / len(found)) ** 0.5


CROSS = {(2, 3): 0.5, (1, 3): 0.125, (3, 3): 0.125, (2, 2): 0.125, (2, 4): 0.125}


def test_of_the_places_that_share_one_thing_exactly_one_shows_it_each_as_often_as_believed() -> None:
    found = cows(meadow(CROSS), 4_000, seed=1)
    assert (found.sum((1, 2)) == 1).all()
    for (row, column), chance in CROSS.items():
        assert off(found[:, row, column], chance) < 4


def test_a_thing_that_may_be_gone_is_there_once_or_not_at_all() -> None:
    shares = {place: 0.7 * chance for place, chance in CROSS.items()}
    found = cows(meadow(shares), 4_000, seed=2)
    assert found.sum((1, 2)).max() == 1
    assert off(found.any(2).any(1), 0.7) < 4
    for (row, column), chance in shares.items():
        assert off(found[:, row, column], chance) < 4


def test_chances_of_any_sum_are_kept_and_the_number_is_the_whole_one_below_or_above() -> None:
    generator = torch.Generator().manual_seed(3)
    places = [(2, 3), (2, 4), (3, 3), (3, 4)]
    chances = dict(zip(places, torch.rand(4, generator=generator).tolist(), strict=True))
    whole = int(sum(chances.values()))
    found = cows(meadow(chances), 4_000, seed=4)
    assert set(found.sum((1, 2)).tolist()) == {whole, whole + 1}
    for (row, column), chance in chances.items():
        assert off(found[:, row, column], chance) < 4


def test_a_thing_is_one_on_whatever_ground_it_stands() -> None:
    law = meadow(CROSS).view(ROWS, COLUMNS, 4)
    law[2, 4] = torch.tensor([0.0, 0.875, 0.0, 0.125])  # sand all over, and on it the cow looks otherwise
    law[:, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    found = cows(law.view(1, 1, -1, 4), 2_000, seed=5)
    assert (found.sum((1, 2)) == 1).all()


def test_which_thing_and_which_ground_stays_as_it_was_believed() -> None:
    law = torch.tensor([0.5, 0.3, 0.12, 0.08]).expand(2, 1, 16, 4) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    dice = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(6))
    settled = settle(law, KIN, RESTLESS, torch.tensor([99, 99]), dice, fields=(4,))
    shown = settled[..., COW:].sum(-1) > 0
    assert 0 < shown.sum() < 32
    things, grounds = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert torch.equal(settled, law * torch.where(shown[..., None], things, grounds))


def test_places_further_apart_than_a_thing_moves_know_nothing_of_each_other() -> None:
    found = cows(meadow({(1, 1): 0.5, (3, 3): 0.5}), 4_000, seed=7)
    assert off(found[:, 1, 1] & found[:, 3, 3], 0.25) < 4


@pytest.mark.parametrize(
    ("one", "other", "fields", "apart"),
    [
        ((0, 3), (0, 4), (5,), True),
        ((1, 6), (2, 6), (5,), True),
        ((0, 3), (1, 3), (5,), False),
        ((2, 3), (2, 4), (5,), False),
        ((2, 3), (2, 4), (3, 2), True),
        ((3, 3), (2, 4), (3, 2), True),
    ],
)
def test_at_the_edge_of_a_field_things_come_and_go_each_by_itself(
    one: tuple[int, int], other: tuple[int, int], fields: tuple[int, ...], apart: bool
) -> None:
    found = cows(meadow({one: 0.5, other: 0.5}), 2_000, seed=8, fields=fields)
    both = found[:, one[0], one[1]] & found[:, other[0], other[1]]
    assert (off(both, 0.25) < 4) if apart else not both.any()


@pytest.mark.parametrize("before", [0, 3, 5, 11])
def test_away_from_the_edge_a_crowd_never_grows_beyond_three_and_those_believed_least_go(before: int) -> None:
    """Fifteen places away from the edge, each with a cow by a chance of its own."""
    chances = {(row, column): 0.5 + 0.02 * (5 * row + column) for row in range(1, 4) for column in range(1, 6)}
    law = meadow(chances)
    free, held = (cows(law, 500, seed=12, before=crowd) for crowd in (99, before))
    inside = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    assert not (held & ~free).any()
    count = (free & inside).sum((1, 2))
    assert torch.equal((held & inside).sum((1, 2)), count.clamp(max=max(before, 3)))
    believed = law[0, 0, :, COW].view(ROWS, COLUMNS)
    for drawn, shown in zip(free & inside, held & inside, strict=True):
        gone = drawn & ~shown
        assert not gone.any() or believed[gone].max() <= believed[shown].min()


@pytest.mark.parametrize("before", [0, 4, 6, 9])
def test_in_the_whole_view_a_crowd_never_grows_beyond_six_and_those_believed_least_go(before: int) -> None:
    """Twenty places at the edge, each with a cow by a chance of its own, and two away from it."""
    edge = [(row, column) for row in range(ROWS) for column in range(COLUMNS) if row in (0, 4) or column in (0, 6)]
    law = meadow({place: 0.4 + 0.02 * number for number, place in enumerate(edge)} | {(2, 2): 0.95, (2, 5): 0.95})
    free, held = (cows(law, 500, seed=12, before=crowd) for crowd in (99, before))
    assert not (held & ~free).any()
    assert torch.equal(held.sum((1, 2)), free.sum((1, 2)).clamp(max=max(before, 6)))
    believed = law[0, 0, :, COW].view(ROWS, COLUMNS)
    for drawn, shown in zip(free, held, strict=True):
        gone = drawn & ~shown
        assert not gone.any() or believed[gone].max() <= believed[shown].min()


def test_what_rests_is_a_thing_too_where_few_tokens_may_show_it_and_never_held_down() -> None:
    """A patch of sand that is in one place or in the next, and five more of which it is not sure whether they are."""
    law = meadow({}).view(ROWS, COLUMNS, 4)
    for place in ((1, 2), (1, 3)):
        law[place] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    dice = torch.rand(500, 1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(15))

    def sand(law: Tensor) -> Tensor:
        many = law.view(1, 1, -1, 4).expand(500, -1, -1, -1)
        settled = settle(many, KIN, RESTLESS, torch.zeros(500), dice, fields=(ROWS,))
        picked = dice.flatten(2)[..., None] * settled.sum(-1, keepdim=True) < settled.cumsum(-1)
        return (picked.int().argmax(-1) == SAND).sum(-1)

    assert (sand(law) == 1).all()
    for row, column in ((3, 1), (3, 3), (3, 5), (2, 4), (2, 1)):
        law[row, column] = torch.tensor([0.6, 0.4, 0.0, 0.0])
    assert sand(law).max() > 4  # of three tokens and more it is ground, drawn each by itself


def test_what_is_sure_is_never_held_down() -> None:
    law = meadow(dict.fromkeys([(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)], 1.0) | {(3, 4): 0.6})
    found = cows(law, 50, seed=13, before=0)
    assert (found.sum((1, 2)) == 5).all()


def test_within_a_block_every_frame_is_held_to_the_one_before_it() -> None:
    """Five cows, one of which leaves in the second frame: the third has no five again."""
    places = [(1, 1), (1, 3), (1, 5), (3, 1), (3, 3)]
    frames = [dict.fromkeys(places, 1.0), dict.fromkeys(places[1:], 1.0), dict.fromkeys(places, 0.998)]
    law = torch.cat([meadow(frame) for frame in frames], dim=1)
    dice = torch.rand(1, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(14))
    settled = settle(law, KIN, RESTLESS, torch.tensor([5]), dice, fields=(ROWS,))
    assert (settled[..., COW:].sum(-1) > 0).sum(-1).tolist() == [[5, 4, 4]]


def test_equal_dice_settle_alike_whatever_else_is_in_the_batch() -> None:
    law = torch.cat((meadow(CROSS), meadow({(2, 2): 0.5, (2, 3): 0.5}, ground=SAND)))
    dice = torch.rand(2, 1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(10))
    together = settle(law, KIN, RESTLESS, torch.tensor([1, 2]), dice, fields=(ROWS,))
    ones = (slice(at, at + 1) for at in range(2))
    alone = [settle(law[one], KIN, RESTLESS, torch.tensor([99]), dice[one], fields=(ROWS,)) for one in ones]
    assert torch.equal(together, torch.cat(alone))
