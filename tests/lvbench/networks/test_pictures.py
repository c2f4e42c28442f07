"""Pictures reach the networks as in the published program: its own numbers on its own clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lvbench.consistency import consistency
from lvbench.networks.pictures import clarity_input, clip_input, dino_input, edges, inside, planes
from tests.lvbench.films import synthetic


def clip() -> torch.Tensor:
    return planes(synthetic(), torch.device("cpu"))


def test_the_clip_is_the_one_that_was_measured():
    assert clip().shape == (12, 3, 48, 64)
    assert clip().sum(dtype=torch.float64) == 14_243_155


def test_clip_sees_what_the_published_program_shows_it():
    seen = clip_input(clip())
    assert seen.shape == (12, 3, 224, 224)
    found = [float(value) for value in (seen.mean(dtype=torch.float64), seen.double().std(), seen.min(), seen.max())]
    assert found == pytest.approx([0.218481332, 1.085565879, -2.615897179, 2.955394745], abs=1e-6)


def test_dino_sees_what_the_published_program_shows_it():
    seen = dino_input(clip())
    assert seen.shape == (12, 3, 224, 298)
    assert [float(seen.double().mean()), float(seen.double().std())] == pytest.approx(
        [0.248864193, 1.233151924], abs=1e-6
    )


@pytest.mark.parametrize(
    ("size", "shown"), [((480, 832), (224, 388)), ((300, 200), (336, 224)), ((224, 224), (224,) * 2)]
)
def test_the_shorter_side_becomes_224_and_the_other_is_cut_down_to_a_whole_number(size, shown):
    assert dino_input(torch.zeros(1, 3, *size)).shape[-2:] == shown
    assert clip_input(torch.zeros(1, 3, *size)).shape[-2:] == (224, 224)


def test_clip_sees_the_middle():
    picture = torch.zeros(1, 3, 224, 300)
    picture[..., 38:262] = 255
    assert clip_input(picture).amin((0, 2, 3)) == pytest.approx(clip_input(picture).amax((0, 2, 3)))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((480, 832), (295, 512)), ((720, 1280), (288, 512)), ((300, 400), (300, 400)), ((1, 2000), (1, 512))],
)
def test_clarity_is_judged_with_the_longer_side_at_most_512(size, shown):
    seen = clarity_input(torch.full((1, 3, *size), 255.0))
    assert seen.shape[-2:] == shown
    assert [float(seen.min()), float(seen.max())] == pytest.approx([1, 1])


def test_subject_consistency_is_the_published_one_with_a_stand_in_for_the_network():
    weights = torch.linspace(-1, 1, 6144).reshape(8, 768)
    features = F.adaptive_avg_pool2d(dino_input(clip()), 16).flatten(1) @ weights.T
    assert consistency(features.numpy()).value == pytest.approx(0.999981932, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "multiple", "least", "added"),
    [
        ((480, 832), 8, 128, (0, 0, 0, 0)),
        ((1080, 1921), 8, 128, (3, 4, 0, 0)),
        ((270, 480), 16, 128, (0, 0, 1, 1)),
        ((72, 129), 16, 128, (7, 8, 28, 28)),
    ],
)
def test_sides_become_multiples_and_the_picture_is_had_back(size, multiple, least, added):
    assert edges(size, multiple, least) == added
    picture = torch.arange(float(size[0] * size[1])).reshape(1, 1, *size)
    padded = F.pad(picture, added, mode="replicate")
    assert all(side % multiple == 0 and side >= least for side in padded.shape[-2:])
    assert torch.equal(inside(padded, added), picture)


def test_frames_become_planes_of_the_same_numbers():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    assert np.array_equal(planes(frames, torch.device("cpu")).numpy(), frames.transpose(0, 3, 1, 2))
