"""The one transformer of a folder is found among the other files there, and doubt is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from worldsim.errors import WeightsError
from worldsim.models.wan.files import choose, find_transformer, listed, shard_names, shards

WAN = ["Wan2.1_VAE.pth", "diffusion_pytorch_model.safetensors", "models_t5_umt5-xxl-enc-bf16.pth"]
SHARDED = [f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["checkpoints/self_forcing_dmd.pt"], "checkpoints/self_forcing_dmd.pt"),
        (WAN, "diffusion_pytorch_model.safetensors"),
        ([*SHARDED, INDEX, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"], INDEX),
        (["longlive_models/models/longlive_base.pt", "longlive_models/models/lora.pt"],) * 2,
        (["a/model.bin", "a/model.safetensors"], "a/model.safetensors"),
        (["base_distilled_model/base_distill.safetensors", "Wan2.1_VAE.pth"],) * 2,
        (["model.safetensors", "text_encoder/model.safetensors", "google/umt5-xxl/a.bin", "VAE/a.pt"],) * 2,
        (["transformer/a.safetensors", "merged.safetensors"], "transformer/a.safetensors"),
    ],
)
def test_the_transformer_is_chosen_by_what_files_are_called(names: list[str], chosen: str | list[str]) -> None:
    assert choose(names, "here") == (chosen if isinstance(chosen, str) else names[0])


def test_more_than_one_transformer_is_told_by_name() -> None:
    with pytest.raises(
        WeightsError, match=r"here holds weights of more than one transformer; name one: here:a.pt, here:b.pt"
    ):
        choose(["b.pt", "a.pt", "vae.pt"], "here")
    with pytest.raises(WeightsError, match=r"name one: here/a.pt is one, here/b.pt is one$"):
        choose(["b.pt", "a.pt"], Path("here"), looks=lambda name: " is one")


def test_a_folder_without_a_transformer_says_what_is_there() -> None:
    with pytest.raises(WeightsError, match=r"here holds no weights of a transformer .*there: Wan2.1_VAE.pth"):
        choose(["Wan2.1_VAE.pth"], "here")
    with pytest.raises(WeightsError, match=r"there: none"):
        choose([], "here")


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_is_looked_through_three_deep_for_files_of_weights(tmp_path: Path) -> None:
    make(tmp_path, "a.pt", "x/y/b.pt", "x/y/z/c.pt", "notes.txt", "x/d.safetensors.index.json")
    assert listed(tmp_path) == ["a.pt", "x/d.safetensors.index.json", "x/y/b.pt"]


def test_a_file_is_itself_and_a_folder_what_is_in_it(tmp_path: Path) -> None:
    make(tmp_path, "a.pt")
    assert find_transformer(tmp_path) == find_transformer(tmp_path / "a.pt") == (tmp_path / "a.pt",)
    with pytest.raises(WeightsError, match=r"there is no file .*b.pt"):
        find_transformer(tmp_path / "b.pt")


def write_index(folder: Path, *names: str) -> Path:
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {f"t{at}": name for at, name in enumerate(names)}}))
    return path


def test_an_index_is_its_shards_and_a_missing_one_is_named(tmp_path: Path) -> None:
    names = [f"m-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index = write_index(tmp_path, *names, names[0])
    assert shard_names(index) == tuple(names)
    make(tmp_path, names[0])
    with pytest.raises(WeightsError, match=r"needs m-00002-of-00002.safetensors beside it.* of 2 shards 1 are there"):
        shards(index)
    make(tmp_path, names[1])
    assert find_transformer(tmp_path) == tuple(tmp_path / name for name in names)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "\xff"])
def test_what_is_no_index_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.safetensors.index.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(WeightsError, match="is no index of shards"):
        shards(path)


@pytest.mark.parametrize("names", [["../m.safetensors"], ["/etc/m.safetensors"], ["m.txt"], []])
def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(WeightsError, match="lie beside their index"):
        shards(write_index(tmp_path, *names))


def test_a_pipe_in_place_of_an_index_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors.index.json")
    with pytest.raises(WeightsError, match=r"index\.json is no index of shards \(.*it is a device or a pipe"):
        shards(tmp_path / "m.safetensors.index.json")
