"""The judge of samples: its p-values against tables, its pooling, its level."""

from __future__ import annotations

import pytest
import torch

from worldsim.errors import ShapeError
from worldsim.noise import uniforms
from worldsim.testing.laws import p_value
from worldsim.testing.toys import draw, random_laws


@pytest.mark.parametrize(
    ("statistic", "outcomes", "level"), [(3.841459, 2, 0.05), (18.307038, 11, 0.05), (6.634897, 2, 0.01)]
)
def test_the_p_value_is_the_one_in_the_tables(statistic, outcomes, level):
    # Two equal outcomes deviate so that the statistic is this, the others not at all.
    law = torch.full((outcomes,), 1 / outcomes, dtype=torch.float64)
    counts = torch.full((outcomes,), 10_000.0, dtype=torch.float64)
    deviation = (statistic * 10_000 / 2) ** 0.5
    counts[0] += deviation
    counts[1] -= deviation
    assert p_value(counts, law) == pytest.approx(level, rel=1e-4)


def test_samples_of_the_law_itself_give_p_values_spread_evenly_over_the_unit_interval():
    law = random_laws((37,), seed=1, contrast=3.0)
    values = torch.tensor(
        [
            p_value(draw(law.expand(500, -1), uniforms(seed, 0, 0, (500,))).bincount(minlength=37), law)
            for seed in range(400)
        ]
    )
    distance = (values.sort().values - torch.arange(1, 401) / 400).abs().max()
    assert distance < 1.95 / 400**0.5, "Kolmogorov's test at a level of 0.1 % refuses it"


def test_samples_of_another_law_give_a_p_value_near_zero():
    law, other = random_laws((9,), seed=1), random_laws((9,), seed=2)
    counts = draw(other.expand(2_000, -1), uniforms(3, 0, 0, (2_000,))).bincount(minlength=9)
    assert p_value(counts, law) < 1e-9


def test_rare_outcomes_are_counted_as_one():
    law = torch.tensor([0.5, 0.46, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64)
    counts = torch.tensor([100, 92, 0, 8, 0, 0])
    joined = p_value(torch.tensor([100, 92, 8]), torch.tensor([0.5, 0.46, 0.04], dtype=torch.float64))
    assert p_value(counts, law) == pytest.approx(joined)


def test_rare_outcomes_that_are_still_too_few_join_the_rarest_other():
    law = torch.tensor([0.3, 0.69, 0.01], dtype=torch.float64)
    joined = p_value(torch.tensor([40, 60]), torch.tensor([0.31, 0.69], dtype=torch.float64))
    assert p_value(torch.tensor([38, 60, 2]), law) == pytest.approx(joined)


def test_an_outcome_that_cannot_happen_is_ignored_until_it_happens():
    law = torch.tensor([[0.5, 0.0], [0.5, 0.0]], dtype=torch.float64)
    assert p_value(torch.tensor([[50, 0], [50, 0]]), law) == 1.0
    assert p_value(torch.tensor([[50, 1], [50, 0]]), law) == 0.0


def test_too_few_samples_and_foreign_shapes_are_refused():
    with pytest.raises(ShapeError, match="9 samples are too few to judge 2 outcomes by"):
        p_value(torch.tensor([5, 4]), torch.tensor([0.5, 0.5], dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"got \[3\] and \[2\]"):
        p_value(torch.tensor([5, 4, 1]), torch.tensor([0.5, 0.5], dtype=torch.float64))
