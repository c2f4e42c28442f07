"""A file of weights becomes a network, or one clear line about what is wrong with it."""

from __future__ import annotations

import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lvbench.errors import ConfigError
from lvbench.networks.reading import fill, read
from tests.lvbench.networks.test_archive import Harmful
from tests.lvbench.random_weights import drawn


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm2d(4))


def state(prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: drawn(name, tuple(tensor.shape)) for name, tensor in network().state_dict().items()}


@pytest.mark.parametrize("wrapped", [None, "state_dict", "params"])
@pytest.mark.parametrize("prefix", ["", "module.", "visual."])
def test_what_torch_saved_fills_the_network_whatever_is_around_it(tmp_path, wrapped, prefix):
    path = tmp_path / "a.pth"
    extra = {"text": torch.zeros(3)} if prefix == "visual." else {}
    torch.save({wrapped: state(prefix) | extra, "epoch": 3} if wrapped else state(prefix) | extra, path)
    filled = fill(network(), read(path), path)
    assert torch.equal(filled[0].weight, state()["0.weight"])
    assert not filled.training
    assert not any(parameter.requires_grad for parameter in filled.parameters())


def test_safetensors_and_halves_are_read_as_float32(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state().items()}, path)
    filled = fill(network(), read(path), path)
    assert filled[0].weight.dtype == torch.float32
    assert torch.equal(filled[0].weight, state()["0.weight"].half().float())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda given: given.pop("0.bias"), r"it lacks 0\.bias$"),
        (lambda given: given.update(head=torch.zeros(1)), "head is one too many$"),
        (
            lambda given: given.update({"0.weight": torch.zeros(4, 5)}),
            r"0\.weight is floats \[4, 5\] and should be floats \[4, 3\]$",
        ),
        (lambda given: given.clear(), "and 6 more$"),
    ],
)
def test_the_weights_of_another_network_are_told(tmp_path, change, reason):
    given = state()
    change(given)
    with pytest.raises(ConfigError, match=f"a.pth has the weights of another network: .*{reason}"):
        fill(network(), given, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda tensor: tensor.to(torch.int64), "int64"),
        (lambda tensor: tensor.to(torch.uint8), "uint8"),
        (lambda tensor: tensor.to(torch.bool), "bool"),
        (lambda tensor: tensor.to(torch.complex64), "complex64"),
        (lambda tensor: tensor.to_sparse(), "packed"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "packed"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch means to drop quantized ones
def test_weights_that_are_no_floats_are_told(tmp_path, change, kind):
    given = state() | {"0.weight": change(state()["0.weight"])}
    torch.save(given, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=rf"0\.weight is {kind} \[4, 3\] and should be floats \[4, 3\]$"):
        fill(network(), read(tmp_path / "a.pth"), tmp_path / "a.pth")


@pytest.mark.parametrize(
    "change", [lambda tensor: tensor / 0, lambda tensor: tensor * torch.nan, lambda t: t.to("meta")]
)
def test_weights_without_a_finite_number_are_told(tmp_path, change):
    torch.save(state() | {"0.bias": change(state()["0.bias"])}, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"a\.pth has no finite numbers in 0\.bias, or not only such"):
        fill(network(), read(tmp_path / "a.pth"), tmp_path / "a.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_off_anywhere_or_has_another_byte_is_told_or_read(tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    data, drawn_at = path.read_bytes(), np.random.default_rng(0)
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at])
        with pytest.raises(ConfigError):
            fill(network(), read(path), path)
    for _ in range(200):
        torn = bytearray(data)
        torn[drawn_at.integers(len(data))] = drawn_at.integers(256)
        path.write_bytes(torn)
        with suppress(ConfigError):
            fill(network(), read(path), path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", "half"])
def test_a_file_that_is_torn_or_none_of_weights_is_told(tmp_path, name, content):
    path = tmp_path / name
    if content == "half":
        save_file(state(), path) if path.suffix == ".safetensors" else torch.save(state(), path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name} is torn, or holds more than weights"):
        read(path)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_file_that_would_run_something_is_refused_and_does_not(tmp_path, save):
    save({"0.weight": Harmful(tmp_path / "made")}, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="holds more than weights"):
        read(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_gone_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.pth cannot be read: No such file"):
        read(tmp_path / "a.pth")
