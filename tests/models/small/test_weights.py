"""A weights file gives back what was written, and every bad one is told from every other."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldsim.errors import WeightsError
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.weights import load_weights, save_weights

CONFIG = SmallConfig(channels=3, height=2, width=3, controls=2, dim=16, layers=2, heads=2)
CPU = torch.device("cpu")


def state(seed: int = 1) -> dict[str, Tensor]:
    backbone = SmallBackbone(CONFIG, torch.Generator().manual_seed(seed))
    return dict(backbone.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good weights file."""
    path = tmp_path / "weights.safetensors"
    save_weights(path, CONFIG, state(), dtype=torch.float32)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_written_comes_back_in_that_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, CONFIG, state(), dtype=dtype)
    backbone = load_weights(path, dtype=torch.float32, device=CPU)
    assert backbone.config == CONFIG
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())
    for name, weight in backbone.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, state()[name].to(dtype).float())
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_is_replaced_only_by_a_whole_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path.read_bytes()

    def full(path: Path, tensors: dict[str, Tensor], fields: dict[str, object]) -> None:
        raise OSError(f"{path} cannot be written")

    monkeypatch.setattr("worldsim.models.small.weights.write_tensors", full)
    with pytest.raises(OSError, match=r"weights.safetensors cannot be written"):
        save_weights(path, CONFIG, state(2), dtype=torch.float32)
    assert path.read_bytes() == whole
    assert [*path.parent.iterdir()] == [path], "what is torn takes no room from what is whole"


def with_header(path: Path, header: object) -> None:
    save_file(load_file(path), path, metadata={"worldsim": json.dumps(header)})


def with_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"worldsim": json.dumps(CONFIG.to_dict())})


def with_sizes(path: Path, **sizes: int) -> None:
    with_header(path, CONFIG.to_dict() | sizes)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("the pickle was read",)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "there is no weights file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder, and the weights .* give the .safetensors"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is a device or a pipe and no file; give the .safeten"),
    "a link to itself": (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read .*; give the .safeten"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "torn or no safetensors file"),
    "cut in its header": (lambda path: path.write_bytes(path.read_bytes()[:50]), "torn or no safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "torn or no safetensors file"),
    "text": (lambda path: path.write_text("weights, honestly"), "torn or no safetensors file"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Trap())), "is a pickle, which can run code"),
    "a torch file": (lambda path: torch.save(state(), path), "is a pickle, which can run code"),
    "an old torch file": (
        lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False),
        "is a pickle, which can run code",
    ),
    "foreign": (lambda path: save_file(load_file(path), path), "does not say which backbone"),
    "a checkpoint": (lambda path: with_header(path, {"update": 3, "seed": 0}), "describes no small backbone"),
    "a saved session": (
        lambda path: with_header(path, {"format": 2, "keep": "pages"}),
        "is a saved session and no weights file; worldsim.restore goes on with it",
    ),
    "a list": (lambda path: with_header(path, [1, 2]), "describes no small backbone"),
    "no head": (lambda path: with_header(path, CONFIG.to_dict() | {"heads": 0}), "describes no small backbone"),
    "words": (lambda path: with_header(path, CONFIG.to_dict() | {"dim": "wide"}), "describes no small backbone"),
    "broken numbers": (lambda path: with_header(path, CONFIG.to_dict() | {"dim": 16.5}), "describes no small backbone"),
    **{
        f"{name} of {size}": (partial(with_sizes, **{name: size}), "describes no small backbone")
        for name in ("dim", "height", "layers")
        for size in (10**12, 10**30)
    },
    **{
        f"scroll of {value!r}": (
            lambda path, value=value: with_header(path, CONFIG.to_dict() | {"palette": 4, "scroll": value}),
            "describes no small backbone .*; it is damaged or of another version: copy it again",
        )
        for value in (0, [], "text", True, {"rows": 1.5, "body": [0, 1], "moves": [[0, 0, 1]]})
    },
    **{
        f"{name} of {value!r}": (
            lambda path, name=name, value=value: with_header(path, CONFIG.to_dict() | {name: value}),
            "describes no small backbone",
        )
        for name in ("theta", "unlikely", "glance", "palette")
        for value in (10**30, -(10**30), float("nan"), float("inf"), "x", None, [[]])
    },
    **{
        f"tensors of {dtype}": (
            lambda path, dtype=dtype: with_tensors(path, lambda t: t.update(place=t["place"].to(dtype))),
            f"'place' is of {dtype}; save it as torch.float32",
        )
        for dtype in (torch.int32, torch.uint8, torch.complex64, torch.bool)
    },
    **{
        f"a weight of {value}": (
            lambda path, value=value: with_tensors(path, lambda t: t["head.bias"].__setitem__(1, value)),
            "'head.bias' has 1 of its 3 numbers beyond torch.float32 or not a number at all; take weights from before",
        )
        for value in (float("nan"), float("inf"), -float("inf"))
    },
    "a weight beyond the precision": (
        lambda path: with_tensors(path, lambda t: t.update(place=t["place"].double() + 1e300)),
        "'place' has 96 of its 96 numbers beyond torch.float32",
    ),
    "nested without end": (
        lambda path: save_file(load_file(path), path, metadata={"worldsim": "[" * 100_000}),
        "describes no small backbone",
    ),
    "wider": (
        lambda path: with_header(path, CONFIG.to_dict() | {"dim": 32}),
        r"mis-shaped .*embed.bias \[16\] instead of \[32\], .* and \d+ more",
    ),
    "deeper": (lambda path: with_header(path, CONFIG.to_dict() | {"layers": 3}), r"missing layers\.2\..* and 6 more;"),
    "a tensor less": (lambda path: with_tensors(path, lambda t: t.pop("place")), "missing place; unexpected none"),
    "a tensor more": (
        lambda path: with_tensors(path, lambda t: t.update(extra=torch.ones(3))),
        "missing none; unexpected extra; mis-shaped none",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_with_its_name_and_what_is_wrong(kind: str, path: Path) -> None:
    spoil, says = BAD[kind]
    spoil(path)
    with pytest.raises(WeightsError, match=says) as raised:
        load_weights(path, dtype=torch.float32, device=CPU)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("changed", [{"dim": 16.5}, {"heads": 0}, {"theta": "x" * 900}, {"x" * 900: 1}, {"glance": -1}])
def test_of_a_configuration_only_the_field_that_is_wrong_is_told(path: Path, changed: dict[str, Any]) -> None:
    with_header(path, CONFIG.to_dict() | changed)
    with pytest.raises(WeightsError, match=next(iter(changed))[:20]) as raised:
        load_weights(path, dtype=torch.float32, device=CPU)
    said = str(raised.value).removeprefix(str(path))
    assert len(said) < 250
    assert "mlp_ratio" not in said


def test_what_cannot_be_read_as_a_file_is_refused() -> None:
    for path in (Path("/proc/version"), Path("a" * 5_000)):
        with pytest.raises(WeightsError, match=r"(copy it again|cannot be read .File name too long)"):
            load_weights(path, dtype=torch.float32, device=CPU)
