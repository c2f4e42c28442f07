"""An archive gives its numbers, and nothing in it is run."""

from __future__ import annotations

import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from lvbench.networks.archive import is_archive, read_archive


class Inner(nn.Module):
    """Something with weights, as a program."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 5, 3)).half()
        self.register_buffer("counts", torch.arange(6).view(2, 3).t())
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


@pytest.fixture
def archive(tmp_path):
    module, path = Inner(), tmp_path / "a.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), str(path))
    return module, path


def test_the_tensors_of_an_archive_come_back_by_name(archive):
    module, path = archive
    found, wanted = read_archive(path), module.state_dict()
    assert is_archive(path)
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in wanted.items()
    )


def test_what_torch_saves_otherwise_is_no_archive(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"hello")
    assert not is_archive(tmp_path / "a.pt")
    assert not is_archive(tmp_path / "b.pt")


class Harmful:
    """Makes a file when it is unpickled the usual way."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_an_archive_that_asks_for_more_than_numbers_is_refused_and_not_run(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("a/constants.pkl", b"")
        file.writestr("a/data.pkl", pickle.dumps(Harmful(tmp_path / "made"), protocol=2))
    with pytest.raises(pickle.UnpicklingError, match=r"asks for .*open"):
        read_archive(tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()
