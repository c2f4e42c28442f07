"""Starting places come back as they were written, and a file that holds none says so."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from worldsim.errors import ConfigError, WeightsError
from worldsim.noise import uniforms
from worldsim.runtime.starts import Starts


def places(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        ((uniforms(1, at, 0, (3, 6, 10, 3)) * 256).to(torch.uint8), uniforms(2, at, 0, (3, 5)).round().float())
        for at in range(count)
    ]


def test_places_come_back_as_they_were_written(tmp_path):
    path, written = tmp_path / "starts.safetensors", places(3)
    Starts.save(path, written)
    starts = Starts.load(path)
    assert len(starts) == 3
    for number, (frames, controls) in enumerate(written):
        found, held = starts.get(number)
        assert torch.equal(found, frames)
        assert torch.equal(held, controls)
        assert (found.dtype, held.dtype) == (torch.uint8, torch.float32)


@pytest.mark.parametrize("number", [-1, 3, 100])
def test_a_place_that_is_not_there_is_refused_with_the_range(number):
    frames, controls = (torch.stack(part) for part in zip(*places(3), strict=True))
    with pytest.raises(ConfigError, match=f"no starting place {number}; choose from 0 to 2"):
        Starts(frames, controls).get(number)


def test_a_file_that_is_missing_torn_or_foreign_says_so(tmp_path):
    path = tmp_path / "starts.safetensors"
    with pytest.raises(WeightsError, match=r"holds no starting places .*; install the package again"):
        Starts.load(path)
    Starts.save(path, places(2))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(WeightsError, match="holds no starting places"):
        Starts.load(path)
    save_file({"weights": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="holds no starting places"):
        Starts.load(path)


@pytest.mark.parametrize(
    "sizes", [((2, 3, 6, 10, 3), (2, 4, 5)), ((3, 6, 10, 3), (3, 6, 5)), ((0, 3, 6, 10, 3), (0, 3, 5))]
)
def test_tensors_of_other_shapes_are_no_starting_places(tmp_path, sizes):
    frames, controls = (torch.zeros(size, dtype=torch.uint8) for size in sizes)
    save_file({"frames": frames, "controls": controls}, tmp_path / "starts.safetensors")
    with pytest.raises(WeightsError, match=r"frames .* need controls"):
        Starts.load(tmp_path / "starts.safetensors")


def test_a_world_without_starting_places_says_to_begin_from_frames():
    with pytest.raises(ConfigError, match="begin from frames of your own"):
        Starts.none().get(Starts.none().pick(7))


@pytest.mark.parametrize("seed", [0, 2, 3, 10**12 + 1])
def test_a_seed_picks_one_of_the_places(tmp_path, seed):
    path = tmp_path / "starts.safetensors"
    Starts.save(path, places(3))
    assert Starts.load(path).pick(seed) == seed % 3
