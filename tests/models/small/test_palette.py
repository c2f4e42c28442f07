"""A palette: how sure it is, what it draws, and what surprises it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldsim.errors import ShapeError
from worldsim.models.small.palette import OFFSET_DEVIATION, SAME, SHARPNESS, Palette

SIZE, VALUES, DIM = 5, 6, 8


def filled(seed: int) -> Palette:
    generator = torch.Generator().manual_seed(seed)
    palette = Palette(SIZE, VALUES, DIM)
    palette.fill(torch.randn(SIZE, VALUES, generator=generator))
    return palette


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw(palette: Palette, logits: Tensor, offset: Tensor, dice: Tensor, unlikely: float | Tensor = 0.0) -> Tensor:
    """A draw of every token by itself."""
    return palette.draw(logits, offset, palette.likely(logits, unlikely), dice)


def test_draws_follow_the_law_of_the_logits() -> None:
    """20,000 draws of two tokens; each frequency within 5 standard errors."""
    palette, logits = filled(1), noise(2, SIZE, seed=2)
    count = 20_000
    dice = torch.rand(count, 2, generator=torch.Generator().manual_seed(3))
    patches = draw(palette, logits.expand(count, 2, SIZE), torch.zeros(count, 2, VALUES), dice)
    picks = palette.nearest(patches)
    for token in range(2):
        law = logits[token].double().softmax(-1)
        found = torch.bincount(picks[:, token], minlength=SIZE) / count
        assert ((found - law).abs() < 5 * (law * (1 - law) / count).sqrt()).all()


def test_what_is_unlikely_beside_the_likeliest_is_never_drawn_and_the_rest_keep_their_odds() -> None:
    palette = filled(21)
    logits = torch.tensor([0.5, 0.24, 1.0, 0.1, 0.26]).log()
    count = 20_000
    dice = torch.rand(count, generator=torch.Generator().manual_seed(22))
    unlikely = torch.tensor([0.25, 0.7]).repeat(count // 2)
    drawn = draw(palette, logits.expand(count, SIZE), torch.zeros(count, VALUES), dice, unlikely)
    picks = palette.nearest(drawn).unflatten(0, (-1, 2))
    for column, law in enumerate((torch.tensor([0.5, 0.0, 1.0, 0.0, 0.26]) / 1.76, torch.eye(SIZE)[2])):
        found = torch.bincount(picks[:, column], minlength=SIZE) / (count // 2)
        assert ((found - law).abs() <= 5 * (law * (1 - law) / (count // 2)).sqrt()).all()


@pytest.mark.parametrize("dot", [0.0, 1.0 - 2**-24])
def test_the_ends_of_the_dice_draw_the_first_and_the_last_patch_that_is_possible(dot: float) -> None:
    palette = filled(4)
    logits = torch.tensor([[-math.inf, 0.3, -1.0, 2.0, -math.inf]])
    drawn = draw(palette, logits, torch.zeros(1, VALUES), torch.tensor([dot]))
    assert torch.allclose(drawn[0], palette.centres[1 if dot == 0 else 3], atol=1e-3)


def test_equal_dice_draw_equal_patches_and_the_offset_is_added_to_whichever() -> None:
    palette, logits, offset = filled(5), noise(40, SIZE, seed=6), noise(40, VALUES, seed=7)
    dice = torch.rand(40, generator=torch.Generator().manual_seed(8))
    drawn = draw(palette, logits, offset, dice)
    assert torch.equal(drawn, draw(palette, logits, offset, dice))
    assert torch.allclose(drawn - offset, palette.centres[palette.nearest(drawn - offset)], atol=1e-2)


def test_shades_of_one_patch_are_no_choice_but_their_mean() -> None:
    """Patches 0 and 1 are nearly the same: whichever is drawn, what comes is between them, by their odds."""
    palette = Palette(SIZE, VALUES, DIM)
    centres = noise(SIZE, VALUES, seed=23)
    centres[1] = centres[0] + 0.02
    palette.fill(centres)
    logits = torch.tensor([0.3, 0.6, 0.05, 0.03, 0.02]).log().expand(200, SIZE)
    dice = torch.rand(200, generator=torch.Generator().manual_seed(24))
    drawn = draw(palette, logits, torch.zeros(200, VALUES), dice)
    one = drawn[(drawn - centres[0]).abs().max(-1).values < 0.1]
    assert len(one) > 150
    assert torch.allclose(one, (centres[0] + 2 * centres[1]) / 3, atol=2e-3)


def test_kin_are_the_shades_of_one_patch_also_after_other_patches_are_filled_in_or_loaded() -> None:
    palette, other = filled(25), Palette(SIZE, VALUES, DIM)
    assert torch.equal(palette.kin, torch.eye(SIZE))
    centres = noise(SIZE, VALUES, seed=26)
    centres[1] = centres[0] + 0.02
    other.fill(centres)
    wanted = torch.eye(SIZE)
    wanted[0, 1] = wanted[1, 0] = 1
    palette.load_state_dict(other.state_dict())
    assert torch.equal(palette.kin, wanted)
    palette.fill(noise(SIZE, VALUES, seed=25))
    assert torch.equal(palette.kin, torch.eye(SIZE))


def test_a_patch_that_is_brighter_and_stands_out_more_may_be_the_same_in_another_light() -> None:
    palette, centres = Palette(SIZE, VALUES, DIM), noise(SIZE, VALUES, seed=23)
    centres[1] = 0.4 * centres[0] - 0.3
    centres[2] = -centres[0]
    palette.fill(centres)
    wanted = torch.corrcoef(centres) > SAME
    assert wanted[0].tolist() == [True, True, *[False] * (SIZE - 2)]
    assert torch.equal(palette.same, wanted)
    others = noise(SIZE, VALUES, seed=25)
    palette.fill(others)
    assert torch.equal(palette.same, torch.corrcoef(others) > SAME)


def test_ground_that_was_seen_before_is_its_likeliest_kind_and_who_walks_over_it_is_left_to_chance() -> None:
    """Patches 0 and 1 are shades of one ground, together likelier than 2, which alone is likelier than either."""
    palette = Palette(SIZE, VALUES, DIM)
    centres = noise(SIZE, VALUES, seed=23)
    centres[1] = centres[0] + 0.02
    palette.fill(centres)
    palette.restless[3] = 1
    likely = torch.tensor([[0.25, 0.2, 0.3, 0.15, 0.1], [0.1, 0.1, 0.3, 0.5, 0.0]])
    wanted = torch.tensor([[0.25, 0.2, 0.0, 0.15, 0.0], [0.0, 0.0, 0.3, 0.5, 0.0]])
    assert torch.equal(palette.surest_ground(likely), wanted)


def test_the_mean_is_that_of_the_law() -> None:
    palette, logits, offset = filled(9), noise(3, SIZE, seed=10), noise(3, VALUES, seed=11)
    law = logits.double().softmax(-1)
    wanted = law @ palette.centres.double() + offset
    assert torch.allclose(palette.mean(logits, offset).double(), wanted, atol=1e-6)


def test_an_aim_at_a_code_is_surest_of_its_patch() -> None:
    palette = filled(12)
    with torch.no_grad():
        palette.aim.weight.zero_()
        for index in range(SIZE):
            palette.aim.bias.copy_(palette.codes[index])
            assert palette.logits(torch.zeros(DIM)).argmax() == index


def test_codes_are_the_patches_whitened_to_one_length() -> None:
    palette = filled(13)
    assert torch.isclose(palette.codes.square().sum(-1).mean(), torch.tensor(SHARPNESS))
    assert palette.codes.mean(0).abs().max() < 1e-5
    covariance = palette.codes.T @ palette.codes / SIZE
    stretched = covariance.diagonal()
    assert (covariance - stretched.diag()).abs().max() < 1e-4 * stretched.max()
    # Five patches vary along four axes, about equally once whitened; along the others they do not.
    along = stretched.sort(descending=True).values
    assert along[:4].min() > 0.3 * along[0]
    assert along[4:].max() < 1e-4 * along[0]


def test_surprise_is_the_cross_entropy_and_the_squared_miss_of_the_offset() -> None:
    palette, tokens, offset = filled(14), noise(2, 3, 4, DIM, seed=15), noise(2, 3, 4, VALUES, seed=16) / 9
    labels = torch.randint(SIZE, (2, 3, 4), generator=torch.Generator().manual_seed(17))
    patches = palette.centres[labels] + 0.01
    logits = palette.logits(tokens)
    law = logits.double().log_softmax(-1)
    missed = -law.gather(-1, labels[..., None])[..., 0]
    error = (0.01 - offset.double()).square().mean(-1) / (2 * OFFSET_DEVIATION**2)
    assert torch.allclose(palette.surprise(logits, offset, patches).double(), missed + error, atol=1e-5)


def test_nearest_is_nearest_by_plain_distances_in_half_precision_too() -> None:
    palette, patches = filled(18), noise(7, 11, VALUES, seed=19)
    wanted = torch.cdist(patches, palette.centres.expand(7, -1, -1)).argmin(-1)
    assert torch.equal(palette.nearest(patches), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(palette.nearest(patches), wanted)


def test_patches_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected centres \[5, 6\], got \[5, 7\]"):
        filled(20).fill(torch.zeros(SIZE, VALUES + 1))
