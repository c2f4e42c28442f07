"""A converted model is one folder, whole or not there, that loads back and says where it is from."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError, WeightsError
from worldsim.models.wan import stored
from worldsim.models.wan.config import WanConfig, wan_config
from worldsim.models.wan.stored import read_card, read_config, read_stored, wanted_shapes, write_model
from worldsim.models.wan.weights import Weights, load_tensors

SMALL = replace(wan_config("1.3b"), dim=128, ffn_dim=40, layers=2, heads=1, freq_dim=16, text_dim=24)


def state(seed: int, config: WanConfig = SMALL) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in wanted_shapes(config).items()}


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    """Of a small backbone, as published."""
    path = tmp_path / "self_forcing_dmd.pt"
    torch.save(
        {"generator_ema": {f"model.{name}": tensor for name, tensor in state(1).items()}, "critic": state(2)}, path
    )
    return load_tensors(path)


def test_a_model_loads_back_as_it_was(weights: Weights, tmp_path: Path) -> None:
    out = write_model(tmp_path / "new" / "folder", weights, recipe="self-forcing")
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["folder"]
    found = load_tensors(out)
    assert found.keys() == state(1).keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state(1).items())
    assert read_config(out) == (SMALL, "self-forcing")


def test_a_card_says_where_a_model_is_from(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "self_forcing_dmd.pt"
    card = read_card(write_model(tmp_path / "out", weights))
    assert card == {
        "model": "a Wan 2.1 transformer of dim 128 (2 layers, 16 channels in)",
        "tensors": 15 + 2 * 27,
        "parameters": sum(tensor.numel() for tensor in state(1).values()),
        "files": [
            {
                "name": path.name,
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        ],
        "part": "generator_ema",
        "left_out": ["critic"],
        "stripped_from_names": ["model."],
        "renamed_from": None,
        "merged": [],
    }
    assert read_config(tmp_path / "out") == (SMALL, None)


def test_a_folder_with_something_in_it_is_left_alone(weights: Weights, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_model(out, weights)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for taken in (out, tmp_path / "self_forcing_dmd.pt"):
        with pytest.raises(ConfigError, match="is there and not an empty folder"):
            write_model(taken, weights)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_model_that_was_not_written_whole(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def full(folder: Path, *_: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(stored, "write_shards", full)
    with pytest.raises(type(error)):
        write_model(tmp_path / "out", weights)
    assert [path.name for path in tmp_path.iterdir()] == ["self_forcing_dmd.pt"]


def test_a_model_that_is_none_is_not_written(tmp_path: Path) -> None:
    def of(tensors: Mapping[str, Tensor]) -> Weights:
        torch.save(dict(tensors), tmp_path / "a.pt")
        return load_tensors(tmp_path / "a.pt")

    lacking = {name: tensor for name, tensor in state(1).items() if not name.endswith("norm_q.weight")}
    with pytest.raises(WeightsError, match=r"a.pt does not fit: 4 of 69 tensors missing"):
        write_model(tmp_path / "out", of(lacking))
    with pytest.raises(WeightsError, match=r"a.pt is no transformer of the Wan family; it looks like a VAE"):
        write_model(
            tmp_path / "out", of({"decoder.conv1.weight": torch.ones(4, 4, 3, 3, 3), "conv2.weight": torch.ones(4, 4)})
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[]", "not of a model that worldsim convert wrote"),
        (json.dumps({"model_type": "t2v", "dim": 1536}), "not of a model that worldsim convert wrote"),
        (json.dumps({"family": "wan", "dim": 128}), "describes no backbone"),
        (json.dumps({"family": "wan", **dict.fromkeys(("dim", "ffn_dim", "layers", "heads"), 0)}), "another version"),
    ],
)
def test_a_folder_that_is_no_converted_model_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=words):
        read_config(tmp_path)


def test_a_folder_without_a_card_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"card.json cannot be read .*; copy the whole folder again, or convert"):
        read_card(tmp_path)


def test_a_folder_says_what_it_was_converted_for_and_any_other_says_nothing(weights: Weights, tmp_path: Path) -> None:
    out = write_model(tmp_path / "out", weights, recipe="causvid")
    stored = read_stored(out)
    assert stored is not None
    assert (stored.config, stored.recipe, stored.card) == (SMALL, "causvid", read_card(out))
    assert read_stored(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "WanModel"}))
    assert read_stored(tmp_path) is None


@pytest.mark.parametrize("name", ["card.json", "config.json"])
def test_a_pipe_in_place_of_a_file_is_told_and_not_waited_for(weights: Weights, tmp_path: Path, name: str) -> None:
    out = write_model(tmp_path / "out", weights)
    (out / name).unlink()
    os.mkfifo(out / name)
    with pytest.raises(
        WeightsError, match=rf"{name} cannot be read \(it is a device or a pipe and no file\); copy the"
    ):
        read_stored(out)
    (out / "card.json").unlink()
    if name == "config.json":
        assert read_stored(out) is None


@pytest.mark.parametrize("text", ["{}", '{"files": [{}], "merged": []}', '{"files": 3, "merged": []}', "[" * 10**6])
def test_a_card_that_names_no_files_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(
        WeightsError, match=r"card\.json (does not say which files|cannot be read).*copy the whole folder"
    ):
        read_card(tmp_path)


def test_what_cannot_be_written_is_told_by_the_name_of_the_folder(weights: Weights, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match="File too large") as error:
            write_model(tmp_path / "out", weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert error.value.filename == str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["self_forcing_dmd.pt"]


def test_of_two_that_write_one_folder_the_first_to_end_is_kept_and_the_other_told(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write = stored.write_shards

    def while_another_ends(folder: Path, *given: Any) -> None:
        write(folder, *given)
        out.mkdir()
        (out / "theirs").touch()

    monkeypatch.setattr(stored, "write_shards", while_another_ends)
    with pytest.raises(ConfigError, match=r"out was made meanwhile, by another process, and stays as it is; take what"):
        write_model(out, weights)
    assert [path.name for path in out.iterdir()] == ["theirs"]


@pytest.mark.parametrize("missing", ["card.json", "config.json"])
def test_a_converted_folder_that_lacks_a_file_is_told(weights: Weights, tmp_path: Path, missing: str) -> None:
    out = write_model(tmp_path / "out", weights)
    (out / missing).unlink()
    with pytest.raises(
        WeightsError, match=rf"{missing} is missing, which `worldsim convert` writes .*; copy the whole"
    ):
        read_stored(out)


def test_a_quantised_model_is_not_converted(tmp_path: Path) -> None:
    coded = {name: tensor.to(torch.int8) if tensor.ndim > 1 else tensor for name, tensor in state(1).items()}
    torch.save(coded, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a.pt holds coded numbers \(.* in torch.int8.*; get the model in float32"):
        write_model(tmp_path / "out", load_tensors(tmp_path / "a.pt"))
