"""Every network answers as the extractor asks, and as the published program does with what it gives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lvbench.errors import ConfigError
from lvbench.networks import pictures
from lvbench.networks.loading import beauty, between, built, check, device, distance_of, flow, machine, slots_of
from lvbench.sizes import Sizes
from lvbench.weights import SOURCES
from tests.lvbench.films import synthetic
from tests.lvbench.random_weights import TINY, folder_of_weights, lpips_in, networks_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return networks_of(folder_of_weights(tmp_path_factory.mktemp("weights")))


class Average(nn.Module):
    """The plain average of two pictures."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        assert all(side % 16 == 0 for side in one.shape[-2:])
        return (one + other) / 2


def test_motion_is_the_published_number_with_a_plain_average_for_the_network():
    frames = synthetic()
    errors = [
        np.abs(frames[at].astype(int) - between(Average(), CPU, frames[at - 1], frames[at + 1])).mean()
        for at in range(1, 11, 2)
    ]
    assert len(errors) == 5
    assert np.mean(errors) == pytest.approx(22.175455729, abs=1e-6)
    assert (255 - np.mean(errors)) / 255 == pytest.approx(0.913037429, abs=1e-9)


def test_the_picture_between_is_cut_to_bytes_and_not_rounded():
    frames = np.array([10, 13], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 40, 33, 3), np.uint8)
    assert np.unique(between(Average(), CPU, *frames)).tolist() == [11]


class Where(nn.Module):
    """A flow that is the place of each pixel."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        y, x = torch.meshgrid(*map(torch.arange, one.shape[-2:]), indexing="ij")
        return torch.stack([x, y])[None].float()


@pytest.mark.parametrize(("size", "seen", "first"), [((130, 200), (136, 200), (0, 0)), ((48, 64), (48, 64), (32, 40))])
def test_flow_has_the_edges_of_a_large_picture_and_not_those_of_a_small_one(size, seen, first):
    frames = np.zeros((2, *size, 3), np.uint8)
    found = flow(Where(), CPU, *frames)
    assert found.shape == (*seen, 2)
    assert tuple(found[0, 0]) == first


def test_beauty_is_a_tenth_of_what_is_judged_of_features_of_length_one():
    judge = nn.Linear(3, 1)
    seeing = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.inference_mode():
        frames = torch.rand(4, 3, 40, 50, generator=torch.Generator().manual_seed(0)) * 255
        features = F.normalize(seeing(pictures.clip_input(frames)), dim=1)
        torch.testing.assert_close(beauty(seeing, judge, frames), judge(features)[:, 0] / 10)


def test_every_slot_gives_its_shape(networks):
    slots, frames = slots_of(networks), np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    assert slots.clarity(frames).shape == slots.aesthetic(frames).shape == (3,)
    assert slots.background(frames).shape == (3, TINY.background.out)
    assert slots.subject(frames).shape == (3, TINY.subject.width)
    assert slots.between(frames[0], frames[1]).shape == (48, 64, 3)
    assert slots.between(frames[0], frames[1]).dtype == np.uint8
    assert slots.flow(frames[0], frames[1]).shape == (48, 64, 2)


def test_a_slot_is_the_same_without_the_networks_of_the_others(networks):
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    kept = ("motion", "aesthetic", "aesthetic_head", "subject")
    few = {name: networks.weights[name] for name in kept}
    some, whole = slots_of(replace(networks, weights=few)), slots_of(networks)
    assert np.array_equal(some.aesthetic(frames), whole.aesthetic(frames))
    assert np.array_equal(some.subject(frames), whole.subject(frames))
    assert np.array_equal(some.between(frames[0], frames[1]), whole.between(frames[0], frames[1]))


def test_lpips_compares_two_frames_of_any_size(tmp_path):
    distance = distance_of(lpips_in(tmp_path))
    for size in ((7, 90), (64, 64)):
        one, other = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
        assert distance(one, one) == 0
        assert abs(distance(one, other)) > 1e-5


def test_the_number_of_threads_changes_no_bit(networks):
    slots, frames = slots_of(networks), np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), dtype=np.uint8)
    asked = [slots.clarity, slots.aesthetic, slots.background, slots.subject]
    pairs = [partial(slots.between, frames[0]), partial(slots.flow, frames[0])]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append([ask(frames).tobytes() for ask in asked] + [ask(frames[1]).tobytes() for ask in pairs])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_every_file_is_checked_against_its_network(networks, tmp_path):
    check(networks)
    folder = folder_of_weights(tmp_path / "wrong")
    torch.save({"weight": torch.zeros(1, 10), "bias": torch.zeros(2)}, folder / SOURCES["aesthetic_head"].names[0])
    with pytest.raises(ConfigError, match=r"linear\.pth has the weights of another network: bias is floats \[2\]"):
        check(networks_of(folder))
    with pytest.raises(ConfigError, match="another network"):
        check(networks_of(folder, Sizes()))


def test_every_source_has_its_network():
    assert all(built(name, TINY) for name in SOURCES)


def test_the_machine_is_told_by_torch_and_its_kind_of_device():
    assert machine() == f"torch {torch.__version__} on {device().type}"
