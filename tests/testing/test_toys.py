"""The toys: what they say is the law must be the law."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.noise import block_noise, uniforms
from worldsim.schedules import mix
from worldsim.testing.toys import Chain, GaussianVideo, Joint, draw, one_hot_laws, random_laws


def test_a_draw_is_the_symbol_whose_share_of_the_unit_interval_holds_the_coin():
    laws = torch.tensor([0.25, 0.0, 0.5, 0.25, 0.0], dtype=torch.float64).expand(6, -1)
    coins = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert draw(laws, coins).tolist() == [0, 0, 2, 2, 3, 3]


def test_a_draw_takes_weights_of_any_sum_and_never_a_symbol_of_weight_zero():
    weights = random_laws((999, 5), seed=1) * uniforms(2, 0, 0, (999, 1))
    weights[:, 4] = 0
    last_coin = torch.full((999,), 1 - 2**-53, dtype=torch.float64)
    assert draw(weights, last_coin).max() == 3
    coins = uniforms(3, 0, 0, (999,))
    assert torch.equal(draw(weights, coins), draw(weights / weights.sum(-1, keepdim=True), coins))


def test_random_laws_are_laws_and_differ_by_seed_only():
    laws = random_laws((3, 7, 5), seed=4, contrast=2.0)
    torch.testing.assert_close(laws.sum(-1), torch.ones(3, 7, dtype=torch.float64))
    assert laws.min() >= 0
    assert torch.equal(laws, random_laws((3, 7, 5), seed=4, contrast=2.0))
    assert not torch.equal(laws, random_laws((3, 7, 5), seed=5, contrast=2.0))


def test_contrast_makes_laws_uneven():
    peaks = [float(random_laws((500, 5), seed=1, contrast=contrast).amax(-1).mean()) for contrast in (0.5, 1.0, 3.0)]
    assert peaks == sorted(peaks)


def test_one_hot_laws_give_the_likeliest_symbol():
    laws = random_laws((11, 5), seed=6)
    assert torch.equal(draw(one_hot_laws(laws), uniforms(1, 0, 0, (11,))), laws.argmax(-1))


def test_a_joint_knows_the_law_of_every_place_given_any_others():
    joint = Joint.random(3, 4, seed=1)
    for values in product(range(4), repeat=3):
        for open in product([False, True], repeat=3):
            laws = joint(torch.tensor(values), torch.tensor(open))
            for place, symbol in product(range(3), range(4)):
                weight = total = 0.0
                for text in product(range(4), repeat=3):
                    if all(free or text[at] == values[at] for at, free in enumerate(open)):
                        total += float(joint.law[text])
                        weight += float(joint.law[text]) * (text[place] == symbol)
                assert float(laws[place, symbol]) == pytest.approx(weight / total, abs=1e-12)


def test_a_chain_answers_for_every_beginning_of_a_text_in_one_call():
    chain = Chain.random(3, seed=2)
    laws = chain([2, 1, 0, 2])
    assert chain.calls == 1
    expected = [chain.table[0, 0], chain.table[0, 2], chain.table[2, 1], chain.table[1, 0], chain.table[0, 2]]
    assert torch.equal(laws, torch.stack(expected))
    assert torch.equal(chain([]), chain.table[0, :1])


@pytest.mark.parametrize("length", [1, 2, 4])
def test_the_law_of_a_chain_is_the_product_of_its_answers(length):
    chain = Chain.random(3, seed=3)
    law = chain.law(length)
    assert float(law.sum()) == pytest.approx(1.0)
    for text in product(range(3), repeat=length):
        answers = chain(text)[:-1]
        assert float(law[text]) == pytest.approx(float(answers[torch.arange(length), torch.tensor(text)].prod()))


def test_a_greedy_chain_has_the_same_likeliest_symbols_and_no_others():
    chain = Chain.random(4, seed=5)
    assert torch.equal(chain.greedy().table.argmax(-1), chain.table.argmax(-1))
    assert chain.greedy().table.unique().tolist() == [0, 1]


def test_the_covariances_of_a_gaussian_video_obey_the_equations_of_yule_and_walker():
    video = GaussianVideo(0.5, -0.3, 0.2)
    assert video.covariance(0) == pytest.approx(1.0)
    for lag in range(1, 9):
        past = [video.covariance(abs(lag - 1 - back)) for back in range(3)]
        assert video.covariance(lag) == pytest.approx(0.5 * past[0] - 0.3 * past[1] + 0.2 * past[2])


def test_what_a_gaussian_video_expects_next_is_what_its_weights_say():
    video = GaussianVideo(0.5, 0.3)
    past = block_noise(1, 0, 0, (2, 5, 3)).double()
    mean, covariance = video.expect(past, 1)
    torch.testing.assert_close(mean[:, 0], 0.5 * past[:, -1] + 0.3 * past[:, -2])
    innovation = 1 - 0.5 * video.covariance(1) - 0.3 * video.covariance(2)
    assert float(covariance) == pytest.approx(innovation)


def test_a_gaussian_video_without_a_past_is_expected_to_be_zero_with_its_own_covariance():
    video = GaussianVideo(0.8)
    mean, covariance = video.expect(torch.zeros(2, 0, 3, dtype=torch.float64), 3)
    assert torch.equal(mean, torch.zeros(2, 3, 3, dtype=torch.float64))
    assert torch.allclose(covariance, torch.tensor([[1, 0.8, 0.64], [0.8, 1, 0.8], [0.64, 0.8, 1]]).double())


@pytest.fixture
def clean_blocks() -> tuple[GaussianVideo, Tensor, Tensor]:
    """A video, a past and 100,000 blocks of three frames that may follow it."""
    video = GaussianVideo(0.6, 0.2)
    past = torch.tensor([0.7, -1.2], dtype=torch.float64).reshape(1, 2, 1).expand(1, 2, 100_000)
    mean, covariance = video.expect(past, 3)
    noise = block_noise(4, 0, 0, (1, 3, 100_000)).double()
    root = torch.linalg.cholesky(covariance)
    return video, past, mean + torch.einsum("fg,bgn->bfn", root, noise)


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0])
def test_the_clean_estimate_leaves_an_error_that_nothing_in_the_noisy_block_explains(clean_blocks, sigma):
    video, past, blocks = clean_blocks
    noisy = mix(blocks, block_noise(4, 0, 1, blocks.shape).double(), sigma)
    error = video.clean(noisy, sigma, past) - blocks
    limit = 5 / 100_000**0.5
    assert error.mean(-1).abs().max() < limit
    assert (torch.einsum("bfn,bgn->fg", error, noisy) / 100_000).abs().max() < 2 * limit


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0])
def test_a_jump_has_the_law_of_clean_blocks(clean_blocks, sigma):
    video, past, blocks = clean_blocks
    noisy = mix(blocks, block_noise(4, 0, 1, blocks.shape).double(), sigma)
    jumped = video.jump(noisy, sigma, past)[0]
    mean, covariance = video.expect(past[..., :1], 3)
    limit = 5 / 100_000**0.5
    assert (jumped.mean(-1) - mean[0, :, 0]).abs().max() < limit
    assert (jumped.cov() - covariance).abs().max() < 2**0.5 * limit


def test_a_jump_ends_where_many_small_steps_along_the_velocity_end():
    video = GaussianVideo(0.6, 0.2)
    past = block_noise(1, 0, 0, (1, 2, 5)).double()
    start = block_noise(1, 0, 1, (1, 3, 5)).double()
    values, steps = start, 2_000
    for step in range(steps):
        sigma, following = 1 - step / steps, 1 - (step + 1) / steps
        values = values + (following - sigma) * (values - video.clean(values, sigma, past)) / sigma
    assert (values - video.jump(start, 1.0, past)).abs().max() < 5 / steps
    assert video.calls == steps + 1


def test_at_level_zero_both_denoisers_give_the_block_back():
    video = GaussianVideo(0.6, 0.2)
    past, block = block_noise(1, 0, 0, (2, 2, 5)).double(), block_noise(1, 0, 1, (2, 3, 5)).double()
    torch.testing.assert_close(video.clean(block, 0.0, past), block)
    torch.testing.assert_close(video.jump(block, 0.0, past), block)


@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.4), (-1.1,)])
def test_an_autoregression_that_does_not_settle_is_refused(weights):
    with pytest.raises(ConfigError, match="does not settle"):
        GaussianVideo(*weights)
