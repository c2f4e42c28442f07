"""The noise that blocks begin with: levels by the number of a block, and draws that frames side by side share."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from worldsim.decoding.noise_plan import PLAIN, NoisePlan, noise_text, parse_noise
from worldsim.errors import ConfigError, UnknownName
from worldsim.noise import frame_noise

RISING = NoisePlan(low=40, high=90, period=6)


def test_linear_levels_rise_evenly_over_a_period_and_begin_anew():
    assert [RISING.level(block) for block in range(8)] == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 0.5])


def test_cosine_levels_rise_slowly_at_both_ends():
    plan = NoisePlan(curve="cosine", low=20, high=100, period=5)
    assert [plan.level(block) for block in range(6)] == pytest.approx([0.2, 0.317157, 0.6, 0.882843, 1.0, 0.2])


@pytest.mark.parametrize("plan", [PLAIN, NoisePlan(curve="cosine", window=4)])
def test_a_plan_without_a_rise_leaves_all_levels_as_they_are(plan):
    assert all(plan.sigmas(block, (1.0, 0.7)) == (1.0, 0.7) for block in range(70))


def test_the_levels_of_a_sampler_are_scaled_to_that_of_the_block():
    assert RISING.sigmas(1, (1.0, 0.6, 0.2)) == pytest.approx((0.5, 0.3, 0.1))


def test_every_draw_is_met_twice_in_windows_side_by_side_and_never_again():
    plan = NoisePlan(window=6)
    sources = [plan.source(9, frame) for frame in range(600)]
    windows = [set(sources[start : start + 6]) for start in range(0, 600, 6)]
    assert all(len(window) == 6 for window in windows)
    assert all(len(one & other) == 3 for one, other in pairwise(windows))
    assert all(not one & other for one, other in zip(windows, windows[2:], strict=False))
    assert Counter(Counter(sources).values()) == {2: 297, 1: 6}


def test_the_order_is_of_the_window_and_of_the_seed():
    plan = NoisePlan(window=8)
    orders = {
        tuple(plan.source(seed, 8 * window + at) - 4 * window for at in range(8))
        for seed in (1, 2, 3)
        for window in range(30)
    }
    assert len(orders) == 90


@pytest.mark.parametrize("length", [1, 2, 4])
def test_frames_share_the_same_noise_whatever_the_block_length(length):
    plan = NoisePlan(window=4)
    whole = plan.shared(frame_noise, 5, range(24), (2, 3))
    blocks = [plan.shared(frame_noise, 5, range(at, at + length), (2, 3)) for at in range(0, 24, length)]
    assert torch.equal(torch.cat(blocks, dim=1), whole)
    assert torch.equal(whole[0, 7], frame_noise(5, plan.source(5, 7), (2, 3)))


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("plain", PLAIN),
        ("published:frames=42", NoisePlan(published=42)),
        ("published", NoisePlan(published=21)),
        ("linear", NoisePlan(low=60)),
        ("cosine:low=50,high=90,period=7,window=6", NoisePlan(curve="cosine", low=50, high=90, period=7, window=6)),
        ("shuffled", NoisePlan(window=4)),
        ("shuffled:window=8", NoisePlan(window=8)),
    ],
)
def test_a_plan_is_read_from_its_name_and_written_so_that_it_is_read_again(text, plan):
    assert parse_noise(text) == plan
    assert parse_noise(noise_text(plan)) == plan


def test_a_plan_that_does_nothing_is_written_as_the_plain_one():
    idle = NoisePlan(curve="cosine", period=9)
    assert idle.is_plain
    assert noise_text(idle) == "plain"
    assert not NoisePlan(window=2).is_plain
    assert not NoisePlan(low=99).is_plain


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("cosin", UnknownName, r"no noise 'cosin'; known: .*did you mean 'cosine'"),
        ("plain:window=4", UnknownName, "no option 'window' of noise 'plain'"),
        ("shuffled:low=4", UnknownName, "no option 'low' of noise 'shuffled'; known: window"),
        ("linear:low=0", ConfigError, "1 <= low <= high <= 100"),
        ("linear:low=70,high=60", ConfigError, "1 <= low <= high <= 100"),
        ("cosine:high=101", ConfigError, "1 <= low <= high <= 100"),
        ("cosine:period=1", ConfigError, "at least 2 blocks, got cosine:low=60,high=100,period=1$"),
        ("published:frames=0", ConfigError, "a video has 1 frame or more, got frames=0; ask for plain"),
        (
            "published:frames=1025",
            ConfigError,
            "a video of up to 1024 frames, .* got 1025; name as many",
        ),
        (
            "published:frames=999999999999999999",
            ConfigError,
            "a video of up to 1024 frames, .* got 9{18}; name",
        ),
        ("shuffled:window=0", ConfigError, "in windows of 2 frames or more, got window=0; ask for plain"),
        ("shuffled:window=3", ConfigError, "an even number of frames up to 1024, or of 0, got 3"),
        ("shuffled:window=2000000", ConfigError, "up to 1024, or of 0, got 2000000"),
        ("linear:low=x", ConfigError, "as a whole number"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_what_does(text, error, told):
    with pytest.raises(error, match=told):
        parse_noise(text)


def test_a_curve_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="rises linear or cosine"):
        NoisePlan(curve="square")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"window": "4"}, "window of noise is a whole number, got '4'"),
        ({"window": 2.0}, r"window of noise is a whole number, got 2\.0"),
        ({"period": None}, "period of noise is a whole number, got None"),
        ({"low": 60.5}, r"low of noise is a whole number, got 60\.5"),
        ({"high": float("nan")}, "high of noise is a whole number, got nan"),
        ({"low": True}, "low of noise is a whole number, got True"),
        ({"published": 21.0}, r"published of noise is a whole number, got 21\.0"),
        ({"published": -1}, "up to 1024 frames, drawn at once, or of 0 for none, got -1"),
        ({"published": 21, "window": 4}, "neither shuffled nor of other levels, got frames=21, window=4 and low=100"),
    ],
)
def test_numbers_of_a_plan_that_no_text_could_name_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        NoisePlan(**settings)


def test_numbers_of_a_plan_are_those_of_python_whatever_they_came_as():
    assert type(NoisePlan(window=np.int64(4)).window) is int
