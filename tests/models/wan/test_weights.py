"""Every layout of the files gives the same tensors by the same names, lazily, and every bad file is told."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldsim.errors import WeightsError
from worldsim.models.wan import weights as module
from worldsim.models.wan.weights import Weights, check_state, load_tensors, open_tensors

NAMES = ["patch_embedding.weight", "blocks.0.self_attn.q.weight", "blocks.0.modulation", "head.head.bias"]
DIFFUSERS = ["patch_embedding.weight", "blocks.0.attn1.to_q.weight", "blocks.0.scale_shift_table", "proj_out.bias"]
SHAPES = [[6, 2, 1, 2, 2], [6, 6], [1, 6, 6], [8]]


def tensors(seed: int, prefix: str = "", names: list[str] = NAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return {prefix + name: tensor for name, tensor in zip(names, made, strict=True)}


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("prefix", ["", "model.", "model._fsdp_wrapped_module.", "_orig_mod.model."])
@pytest.mark.parametrize("part", ["", "generator", "generator_ema", "state_dict"])
def test_a_pickle_gives_its_tensors_by_their_public_names(tmp_path: Path, prefix: str, part: str) -> None:
    path, state = tmp_path / "a.pt", tensors(1, prefix)
    torch.save({part: state, "step": 7} if part else state, path)
    found = load_tensors(path)
    assert_same(found, tensors(1))
    assert found.shapes == dict(zip(NAMES, SHAPES, strict=True))
    assert found.origin.part == part
    assert set(found.origin.stripped) == {each for each in re.findall(r"\w+\.", prefix) if prefix}
    assert found.origin.files == (path,)


def test_averaged_weights_are_taken_when_asked_for_and_doubt_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"generator": tensors(1, "model."), "generator_ema": tensors(2, "model."), "critic": tensors(3)}, path)
    assert_same(load_tensors(path, ema=False), tensors(1))
    found = load_tensors(path, ema=True)
    assert_same(found, tensors(2))
    assert (found.origin.part, found.origin.left) == ("generator_ema", ("critic", "generator"))
    with pytest.raises(WeightsError, match=r"holds generator_ema and generator: say whether .* --ema or --no-ema"):
        load_tensors(path)
    torch.save({"generator_ema": tensors(2)}, path)
    with pytest.raises(WeightsError, match=r"holds generator_ema and no weights that are not averaged; .* --ema`"):
        load_tensors(path, ema=False)


def test_a_part_that_is_not_there_is_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"generator": tensors(1), "critic": tensors(2)}, path)
    with pytest.raises(
        WeightsError, match=r"holds generator and no averaged weights; .* `worldsim convert .*a.pt NEW --no-ema`"
    ):
        load_tensors(path, ema=True)
    torch.save({"critic": tensors(2)}, path)
    with pytest.raises(WeightsError, match=r"has none of the parts generator, .*; it holds critic"):
        load_tensors(path)


def test_a_file_of_one_set_has_nothing_to_choose(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors(1, "model."), path)
    for ema in (None, True, False):
        assert_same(load_tensors(path, ema=ema), tensors(1))


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_shards_are_one_model(tmp_path: Path, ending: str) -> None:
    state = tensors(1)
    for at, names in enumerate((NAMES[:1], NAMES[1:])):
        part, path = {name: state[name] for name in names}, tmp_path / f"m-0000{at + 1}-of-00002{ending}"
        save_file(part, path) if ending == ".safetensors" else torch.save(part, path)
    where = ", ".join(f'"{name}": "m-0000{1 + (at > 0)}-of-00002{ending}"' for at, name in enumerate(NAMES))
    (tmp_path / f"m{ending}.index.json").write_text(f'{{"weight_map": {{{where}}}}}')
    found = load_tensors(tmp_path)
    assert_same(found, state)
    assert len(found.origin.files) == 2


def test_a_tensor_in_two_files_is_told(tmp_path: Path) -> None:
    torch.save(tensors(1), tmp_path / "a.pt")
    torch.save(tensors(1, "model."), tmp_path / "b.pt")
    with pytest.raises(WeightsError, match=r"holds patch_embedding.weight twice"):
        open_tensors([tmp_path / "a.pt", tmp_path / "b.pt"])


def test_a_folder_of_diffusers_has_public_names(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    save_file(tensors(1, names=DIFFUSERS), tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    (tmp_path / "vae").mkdir()
    save_file(tensors(2), tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    found = load_tensors(tmp_path)
    assert_same(found, tensors(1))
    assert found.origin.diffusers


def lora(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    name = "base_model.model.blocks.0.self_attn.q"
    return {
        f"{name}.lora_A.weight": torch.randn(2, 6, generator=generator),
        f"{name}.lora_B.weight": torch.randn(6, 2, generator=generator),
    }


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_a_lora_is_merged_where_it_belongs_and_nowhere_else(tmp_path: Path, alpha: float | None) -> None:
    base, added = tmp_path / "longlive_base.pt", tmp_path / "lora.pt"
    torch.save({"generator": tensors(1, "model.")}, base)
    torch.save({"generator_lora": lora(2), "critic_lora": lora(3)}, added)
    found = load_tensors(base, lora=added, alpha=alpha)
    down, up = lora(2).values()
    wanted = tensors(1)
    wanted[NAMES[1]] = torch.add(wanted[NAMES[1]], up @ down, alpha=(alpha or 2) / 2)
    assert_same(found, wanted)
    assert (found.origin.merged, found.origin.alpha) == ((added,), alpha)
    with pytest.raises(WeightsError, match=r"longlive_base.pt is no LoRA|has none of the parts generator_lora"):
        load_tensors(base, lora=base)


def test_a_file_is_opened_for_tensors_alone_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    torch.save({"generator": tensors(1)}, path)
    asked: list[dict[str, Any]] = []
    real = torch.load

    def load(path: Path, **options: Any) -> object:
        asked.append(options)
        return real(path, **options)

    monkeypatch.setattr(torch, "load", load)
    assert_same(load_tensors(path), tensors(1))
    assert asked
    assert all(options["weights_only"] and options["mmap"] for options in asked)


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_tensor_is_mapped_from_its_file_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    big = {"patch_embedding.weight": torch.ones(3, 1 << 20)}
    save_file(big, path) if ending == ".safetensors" else torch.save(big, path)
    monkeypatch.setattr(module, "PORTION_BYTES", 1)
    found = load_tensors(path)
    tensor = found["patch_embedding.weight"]
    assert is_mapped(path)
    assert tensor.sum() == 3 << 20
    del tensor
    assert not is_mapped(path)
    assert found["patch_embedding.weight"].sum() == 3 << 20


@pytest.mark.parametrize("portion", [1, 1 << 28])
def test_a_pickle_is_mapped_anew_after_each_portion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    path, opened = tmp_path / "a.pt", 0
    torch.save(tensors(1), path)
    real = torch.load

    def load(path: Path, **options: Any) -> object:
        nonlocal opened
        opened += 1
        return real(path, **options)

    monkeypatch.setattr(torch, "load", load)
    monkeypatch.setattr(module, "PORTION_BYTES", portion)
    assert_same(load_tensors(path), tensors(1))
    assert opened == (len(NAMES) if portion == 1 else 1)


def test_shapes_are_known_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in tensors(1).items()}, path)
    found = load_tensors(path)
    path.unlink()
    assert found.shapes == dict(zip(NAMES, SHAPES, strict=True))
    assert all(meta.device.type == "meta" and meta.dtype == torch.bfloat16 for meta in found.metas.values())
    assert NAMES[0] in found
    with pytest.raises(WeightsError, match="torn or gone"):
        found[NAMES[0]]


def test_a_file_that_torch_wrote_before_it_wrote_zips_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(tensors(1), path, _use_new_zipfile_serialization=False)
    assert_same(load_tensors(path), tensors(1))


def test_parameters_come_without_their_gradients(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors(1).items()}, path)
    found = load_tensors(path)
    assert_same(found, tensors(1))
    assert not any(tensor.requires_grad for tensor in found.values())


class Runs:
    """What a pickle may hold and must not be run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(WeightsError, match=words):
        yield


def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"generator": tensors(1), "extra": Runs()}, path)
    with refused(r"a.pt is torn, or holds more than tensors.*save its state dict alone, as safetensors"):
        load_tensors(path)
    path.write_bytes(pickle.dumps(Runs()))
    with refused("holds more than tensors"):
        load_tensors(path)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_torn_file_is_told(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a{ending}"
    save_file(tensors(1), path) if ending == ".safetensors" else torch.save(tensors(1), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with refused(r"is torn"):
        load_tensors(path)


@pytest.mark.parametrize(
    "head", [b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x89PNG\r\n\x1a\n\x00", b"\x00\x00\x00\x20ftypisom"]
)
def test_a_picture_or_a_video_is_told_as_no_file_of_weights(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "lake.jpg").write_bytes(head + bytes(300))
    with refused(r"lake\.jpg is no file of weights: it begins neither as those of PyTorch do nor as safetensors"):
        load_tensors(tmp_path / "lake.jpg")


@pytest.mark.parametrize("held", [[1, 2], {"step": 3}, {}, torch.ones(2)])
def test_a_pickle_without_tensors_by_name_is_told(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "a.pt")
    with refused("holds no tensors by name"):
        load_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_a_pickle_without_its_end_is_told_as_torn_and_to_get_again(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.randn(9_000)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with refused(r"a\.pth is torn: its end is missing, .*; get it again from where it comes from"):
        open_tensors([path])


@pytest.mark.filterwarnings("ignore")  # of what torch will not have any longer
@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: torch.eye(6).to_sparse(), r"is sparse \(torch\.sparse_coo\)"),
        (lambda: torch.eye(6).to_sparse_csr(), r"is sparse \(torch\.sparse_csr\)"),
        (lambda: torch.empty(6, 6, device="meta"), r"has a shape and no numbers \(it was saved on meta\)"),
        (lambda: torch.quantize_per_tensor(torch.eye(6), 0.1, 0, torch.qint8), r"is quantised \(torch\.qint8\)"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested"),
    ],
)
def test_a_tensor_without_plain_numbers_is_told_by_name_where_it_is_wanted(
    tmp_path: Path, made: Callable[[], Tensor], told: str
) -> None:
    path = tmp_path / "a.pt"
    torch.save({"generator": tensors(1), "generator_ema": tensors(2) | {NAMES[1]: made()}}, path)
    with refused(rf"a\.pt holds 1 of 4 tensors otherwise than as plain numbers \({NAMES[1]} {told}\); save its state"):
        load_tensors(path, ema=True)
    assert_same(load_tensors(path, ema=False), tensors(1))


def test_a_file_that_is_not_there_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    with refused("there is no file"):
        load_tensors(tmp_path / "a.pt")
    with refused("cannot be read: No such file or directory; see that it may be read, or get it again"):
        open_tensors([tmp_path / "a.pt"])
    with refused("is a folder, and weights are a file"):
        open_tensors([tmp_path])


def test_of_several_files_each_is_told_by_what_it_looks_like(tmp_path: Path) -> None:
    torch.save({"generator": tensors(1)}, tmp_path / "a.pt")
    save_file({"patch_embedding.weight": torch.ones(1536, 16, 1, 2, 2), "head.head.weight": torch.ones(64, 1536)},
              tmp_path / "b.safetensors")  # fmt: skip
    with refused(r"name one: .*a.pt \(no model known here; .*\), .*b.safetensors \(a Wan 2.1 transformer 1.3B \("):
        load_tensors(tmp_path)


def test_weights_are_checked_to_be_numbers_that_are_computed_with(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2), "b": torch.ones(3, dtype=torch.int8)}, path)
    found = open_tensors([path])
    with refused(r"a.safetensors holds coded numbers \(b in torch.int8\), .*; get the model in float32, bfloat16 or"):
        found.check({"a": [2], "b": [3]}, path)
    save_file({"a": torch.ones(2), "b": torch.ones(3).to(torch.float8_e4m3fn)}, path)
    open_tensors([path]).check({"a": [2], "b": [3]}, path)
    save_file({"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, path)
    with refused(r"holds coded numbers \(b in torch.float4_e2m1fn_x2\)"):
        open_tensors([path]).check({"a": [2], "b": [3]}, path)


def test_a_state_that_fits_passes_and_any_other_is_listed() -> None:
    wanted = {"a": [1], "b": [2, 3], **{f"c{at}": [1] for at in range(9)}}
    check_state(dict(wanted), wanted, "x.pt")
    check_state({name: torch.Size(shape) for name, shape in wanted.items()}, wanted, "x.pt")
    found = {"a": [1], "b": [3, 2], "shared.weight": [4, 4], "encoder.block.0.layer.0.layer_norm.weight": [4]}
    words = (
        "x.pt does not fit: 9 of 11 tensors missing (c0, c1, c2, c3 and 5 more); 2 unexpected (shared.weight, "
        "encoder.block.0.layer.0.layer_norm.weight); 1 of another shape (b [3, 2] instead of [2, 3]); it looks like a "
        "T5 text encoder, as transformers stores it"
    )
    with refused(re.escape(words)):
        check_state(found, wanted, "x.pt")


@pytest.mark.parametrize("change", [{"a": [2]}, {"z": [1]}])
def test_a_single_difference_is_enough(change: dict[str, list[int]]) -> None:
    with refused("does not fit"):
        check_state({"a": [1], **change}, {"a": [1]}, "x.pt")
    with refused("1 of 2 tensors missing"):
        check_state({"a": [1]}, {"a": [1], "b": [1]}, "x.pt")


def test_tensors_under_other_names_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors(1), path)
    found = open_tensors([path]).under({"new": NAMES[3]})
    assert isinstance(found, Weights)
    assert [*found] == ["new"]
    assert found.shapes == {"new": SHAPES[3]}
    with safe_open(path, framework="pt") as opened:
        assert torch.equal(found["new"], opened.get_tensor(NAMES[3]))
