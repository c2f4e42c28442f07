"""What is written one tensor at a time is what safetensors reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from worldsim.errors import WeightsError
from worldsim.models.wan.shards import DTYPES, write_shards


def metas(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {str(dtype): torch.randn(3, 5, generator=generator).to(dtype) for dtype in DTYPES}
    turned = torch.randn(4, 3, generator=generator).T
    return {**made, "turned": turned, "one": torch.tensor(2.5), "none": torch.empty(0, 3), "odd": torch.ones(3).bool()}


def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    wanted = tensors(1)
    assert write_shards(tmp_path, wanted, metas(wanted)) == ("model.safetensors",)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].contiguous().reshape(-1).view(torch.uint8).tolist() == (
            tensor.contiguous().reshape(-1).view(torch.uint8).tolist()
        )


def test_every_tensor_begins_at_a_multiple_of_its_width(tmp_path: Path) -> None:
    wanted = tensors(1)
    write_shards(tmp_path, wanted, metas(wanted))
    data = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    for name, tensor in wanted.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0


def test_a_large_model_is_spread_over_files_with_an_index(tmp_path: Path) -> None:
    wanted = {f"t{at}": torch.full((10,), float(at)) for at in range(5)} | {"wide": torch.ones(50)}
    names = write_shards(tmp_path, wanted, metas(wanted), limit_bytes=80)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 400}
    assert names[:-1] == tuple(f"model-0000{at}-of-00004.safetensors" for at in range(1, 5))
    for name, tensor in wanted.items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][name])[name], tensor)
    assert all(sum(each.nbytes for each in load_file(tmp_path / n).values()) <= 80 for n in names[:3])


def test_one_tensor_is_asked_for_at_a_time(tmp_path: Path) -> None:
    class Lazy(Mapping[str, Tensor]):
        asked: list[str] = []  # noqa: RUF012

        def __getitem__(self, name: str) -> Tensor:
            self.asked.append(name)
            return torch.ones(3)

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("all at once")

        def __len__(self) -> int:
            return 2

    write_shards(tmp_path, Lazy(), metas({"b": torch.ones(3), "a": torch.ones(3)}))
    assert Lazy.asked == ["a", "b"]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    wrong = {"a": torch.ones(2, dtype=torch.complex64)}
    with pytest.raises(WeightsError, match=r"a is torch.complex64, which safetensors cannot hold"):
        write_shards(tmp_path, wrong, metas(wrong))
    with pytest.raises(WeightsError, match="a changed while it was written"):
        write_shards(tmp_path, {"a": torch.ones(3)}, metas({"a": torch.ones(2)}))
