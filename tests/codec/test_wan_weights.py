"""Published weights of the Wan 2.1 codec: both layouts fill the same network, and whatever else is refused."""

from __future__ import annotations

import json
import math
import pickle
import random
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldsim.codec.wan_tiles import Tiling
from worldsim.codec.wan_weights import check_tensors, diffusers_name, fill, lacks_codec, load_wan_codec, read_tensors
from worldsim.errors import MissingDependency, WeightsError

diffusers = pytest.importorskip("diffusers")
CPU = torch.device("cpu")


def original(dim: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of Wan2.1_VAE.pth at that width, with 16 channels of a latent."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, given: int, made: int, *kernel: int) -> None:
        shapes.update({f"{name}.weight": (made, given, *kernel), f"{name}.bias": (made,)})

    def residual(name: str, given: int, made: int) -> None:
        shapes.update({f"{name}.residual.0.gamma": (given, 1, 1, 1), f"{name}.residual.3.gamma": (made, 1, 1, 1)})
        convolution(f"{name}.residual.2", given, made, 3, 3, 3)
        convolution(f"{name}.residual.6", made, made, 3, 3, 3)
        if given != made:
            convolution(f"{name}.shortcut", given, made, 1, 1, 1)

    def middle(name: str, width: int) -> None:
        residual(f"{name}.0", width, width)
        shapes[f"{name}.1.norm.gamma"] = (width, 1, 1)
        convolution(f"{name}.1.to_qkv", width, 3 * width, 1, 1)
        convolution(f"{name}.1.proj", width, width, 1, 1)
        residual(f"{name}.2", width, width)

    def ends(name: str, given: int, first: int, last: int, made: int) -> None:
        convolution(f"{name}.conv1", given, first, 3, 3, 3)
        shapes[f"{name}.head.0.gamma"] = (last, 1, 1, 1)
        convolution(f"{name}.head.2", last, made, 3, 3, 3)

    widths = [dim, dim, 2 * dim, 4 * dim, 4 * dim]
    ends("encoder", 3, dim, widths[-1], 32)
    place = 0
    for level, (given, made) in enumerate(pairwise(widths)):
        residual(f"encoder.downsamples.{place}", given, made)
        residual(f"encoder.downsamples.{place + 1}", made, made)
        if level < 3:
            convolution(f"encoder.downsamples.{place + 2}.resample.1", made, made, 3, 3)
        if level in (1, 2):
            convolution(f"encoder.downsamples.{place + 2}.time_conv", made, made, 3, 1, 1)
        place += 3
    middle("encoder.middle", widths[-1])
    convolution("conv1", 32, 32, 1, 1, 1)
    convolution("conv2", 16, 16, 1, 1, 1)
    ends("decoder", 16, widths[-1], dim, 3)
    middle("decoder.middle", widths[-1])
    place, given = 0, widths[-1]
    for level, made in enumerate(reversed(widths[1:])):
        for _ in range(3):
            residual(f"decoder.upsamples.{place}", given, made)
            given, place = made, place + 1
        if level < 3:
            convolution(f"decoder.upsamples.{place}.resample.1", made, made // 2, 3, 3)
            given = made // 2
        if level < 2:
            convolution(f"decoder.upsamples.{place}.time_conv", made, 2 * made, 3, 1, 1)
        place += 1
    return shapes


def weights(*, seed: int, dim: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / 10 for name, shape in original(dim).items()}


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {diffusers_name(name): tensor for name, tensor in tensors.items()}


def shown(path: Path) -> Tensor:
    codec = load_wan_codec(path, device=CPU, dtype=torch.float32)
    latents = torch.randn(2, 16, 2, 3, generator=torch.Generator().manual_seed(1))
    return codec.decode(latents, codec.open())[0]


def test_every_original_name_has_its_place_in_the_full_network() -> None:
    with torch.device("meta"):
        model = diffusers.AutoencoderKLWan()
    shapes = original(96)
    assert len(shapes) == 194
    assert sum(math.prod(shape) for shape in shapes.values()) == 126_892_531
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {diffusers_name(name): shape for name, shape in shapes.items()} == wanted


def test_names_are_those_that_diffusers_gives() -> None:
    utilities = pytest.importorskip("diffusers.loaders.single_file_utils")
    given = {name: name for name in original(8)}
    assert {diffusers_name(name): name for name in given} == utilities.convert_wan_vae_to_diffusers(given)


def test_names_of_diffusers_and_unknown_ones_stay() -> None:
    with torch.device("meta"):
        names = [*diffusers.AutoencoderKLWan(base_dim=8).state_dict(), "step", "encoder", "decoder.what.conv1.weight"]
    assert [diffusers_name(name) for name in names[:-2]] == names[:-2]
    assert diffusers_name(names[-1]) == names[-1]


def write_original_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, folder / "anything.pth")
    return folder / "anything.pth"


def write_original_folder(folder: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, folder / "Wan2.1_VAE.pth")
    return folder


def write_diffusers_folder(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(renamed(tensors), folder / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "AutoencoderKLWan", "base_dim": 8, "z_dim": 16, "_diffusers_version": "0.35.0"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_pipeline_folder(folder: Path, tensors: dict[str, Tensor]) -> Path:
    (folder / "vae").mkdir()
    write_diffusers_folder(folder / "vae", tensors)
    return folder


def write_original_safetensors(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "vae.safetensors")
    return folder / "vae.safetensors"


def write_diffusers_safetensors(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(renamed(tensors), folder / "vae.safetensors")
    return folder / "vae.safetensors"


LAYOUTS = [
    write_original_file,
    write_original_folder,
    write_diffusers_folder,
    write_pipeline_folder,
    write_original_safetensors,
    write_diffusers_safetensors,
]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_fills_the_same_network(write: Callable[[Path, dict[str, Tensor]], Path], tmp_path: Path) -> None:
    tensors = weights(seed=2)
    codec = load_wan_codec(write(tmp_path, tensors), device=CPU, dtype=torch.float32)
    filled = codec.model.state_dict()
    assert filled.keys() == renamed(tensors).keys()
    assert all(torch.equal(filled[name], tensor) for name, tensor in renamed(tensors).items())
    assert not codec.model.training
    assert not any(parameter.requires_grad for parameter in codec.model.parameters())


@pytest.mark.parametrize("write", [write_original_folder, write_diffusers_folder, write_pipeline_folder])
def test_a_folder_lacks_a_codec_until_there_is_one(
    write: Callable[[Path, dict[str, Tensor]], Path], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert lacks_codec(tmp_path)
    assert not lacks_codec(write(tmp_path, weights(seed=1)))


def test_weights_outlive_their_file(tmp_path: Path) -> None:
    path = write_original_file(tmp_path, weights(seed=3))
    codec = load_wan_codec(path, device=CPU, dtype=torch.float32)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(codec.model.state_dict()["quant_conv.bias"], weights(seed=3)["conv1.bias"])


def test_a_codec_computes_where_and_in_what_it_is_told(tmp_path: Path) -> None:
    path = write_original_file(tmp_path, weights(seed=4))
    codec = load_wan_codec(path, device=CPU, dtype=torch.bfloat16)
    assert (codec.device, codec.dtype, codec.tiling) == (CPU, torch.bfloat16, None)
    assert load_wan_codec(path, device=CPU, dtype=torch.bfloat16, offload=True).tiling == Tiling()
    assert codec.decode(torch.zeros(1, 16, 2, 2), codec.open())[0].dtype == torch.uint8


def test_what_a_folder_says_of_its_latents_is_used(tmp_path: Path) -> None:
    tensors = weights(seed=5)
    plain = shown(write_diffusers_folder(tmp_path, tensors))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latents_std": [0.5] * 16}))
    assert not torch.equal(shown(tmp_path), plain)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_missing_unexpected_and_misshaped_tensors_are_listed(tmp_path: Path) -> None:
    tensors = without(weights(seed=6), "conv2.bias", "decoder.head.2.bias", *(f"encoder.middle.{n}" for n in range(3)))
    tensors["extra"] = torch.zeros(1)
    tensors["conv1.bias"] = torch.zeros(31)
    with pytest.raises(WeightsError) as told:
        load_wan_codec(saved(tmp_path / "a.pth", tensors), device=CPU, dtype=torch.float32)
    for text in (
        "2 missing (decoder.conv_out.bias, post_quant_conv.bias)",
        "1 unexpected (extra)",
        "1 mis-shaped (quant_conv.bias [31] instead of [32])",
        "the codec of Wan 2.1 in its original names",
    ):
        assert text in str(told.value)


def test_tensors_of_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    tensors = weights(seed=7) | {"conv1.bias": torch.zeros(32, dtype=torch.int64)}
    with pytest.raises(WeightsError, match=r"quant_conv\.bias holds torch\.int64"):
        load_wan_codec(saved(tmp_path / "a.pth", tensors), device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("blocks.0.self_attn.q.weight", "a Wan transformer"),
        ("model.blocks.0.self_attn.q.weight", "a Wan transformer"),
        ("token_embedding.weight", "a text encoder"),
        ("decoder.1.weight", "TAEHV"),
        ("decoder.3.conv.0.weight", "TAEHV"),
        ("encoder.downsamples.0.downsamples.0.residual.0.gamma", r"Wan 2\.2 5B"),
        ("step", r"nothing known, with 1 tensors \(step\)"),
    ],
)
def test_a_foreign_file_is_told_by_its_names(name: str, looks: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {name: torch.zeros(3)})
    with pytest.raises(WeightsError, match=rf"194 missing .* and 190 more\).*It looks like .*{looks}"):
        load_wan_codec(path, device=CPU, dtype=torch.float32)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


def test_what_could_run_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "a.pth", {"conv1.bias": Harmful()})
    with pytest.raises(WeightsError, match="holds more than tensors and is not opened"):
        read_tensors(path)
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(WeightsError, match=r"b\.pth"):
        read_tensors(tmp_path / "b.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.zeros(3), "one Tensor and no tensors by name"),
        ({"state": {"a": torch.zeros(3)}}, "'state' is a dict"),
        ({"epoch": 3, "a": torch.zeros(3)}, "'epoch' is a int"),
        ({3: torch.zeros(3)}, "3 is a Tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=says):
        read_tensors(saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize("write", [write_original_file, write_original_safetensors])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_a_torn_file_is_told(write: Callable[[Path, dict[str, Tensor]], Path], share: float, tmp_path: Path) -> None:
    path = write(tmp_path, weights(seed=8))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match=r"torn.*copy it again from its source"):
        read_tensors(path)


def test_a_safetensors_file_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path, tensors = tmp_path / "a.safetensors", {"conv2.bias": torch.ones(16)}
    for padding in range(256):  # until the length of its header, which is its first byte, is the mark of a pickle
        save_file(tensors, path, metadata={"padding": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert torch.equal(read_tensors(path)["conv2.bias"], torch.ones(16))


@pytest.mark.parametrize("write", [write_original_file, write_original_safetensors])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_damaged_file_is_told_or_read(
    write: Callable[[Path, dict[str, Tensor]], Path], seed: int, tmp_path: Path
) -> None:
    path = write(tmp_path, {"conv2.bias": torch.zeros(16), "conv2.weight": torch.zeros(16, 16, 1, 1, 1)})
    whole, dice, told = path.read_bytes(), random.Random(seed), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 4, 40))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except WeightsError:
            told += 1
    assert told


@pytest.mark.parametrize("made", [torch.eye(3).to_sparse(), torch.empty(3, 3, device="meta")])
def test_tensors_without_plain_numbers_are_told_by_name(made: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2), "b": made}, path)
    told = r"a\.pth holds 1 of 2 tensors otherwise than as plain numbers \(b (is sparse|has a shape and no numbers)"
    with pytest.raises(WeightsError, match=told):
        read_tensors(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no weights file"):
        load_wan_codec(tmp_path / "a.pth", device=CPU, dtype=torch.float32)


def test_an_old_format_of_pytorch_is_told(tmp_path: Path) -> None:
    torch.save(weights(seed=9), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"before 1\.6"):
        read_tensors(tmp_path / "a.pth")


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        WeightsError,
        match=r"nor Wan2\.1_VAE\.pth; there is: config\.json; get it by `hf download Wan-AI/\S+ Wan2\.1_VAE\.pth --loc",
    ):
        load_wan_codec(tmp_path, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is for list"),
        ('{"_class_name": "AutoencoderKL"}', "is for AutoencoderKL;"),
        ('{"is_residual": true}', r"Wan 2\.2 5B"),
        ('{"patch_size": 2}', r"Wan 2\.2 5B"),
        ('{"dim_mult": "x"}', "describes no codec that can be built"),
        ('{"base_dim": 16}', r"188 mis-shaped \(decoder\.conv_in\.bias \[32\] instead of \[64\],"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told(config: str, says: str, tmp_path: Path) -> None:
    write_diffusers_folder(tmp_path, weights(seed=10))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=says):
        load_wan_codec(tmp_path, device=CPU, dtype=torch.float32)


def test_without_diffusers_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_original_file(tmp_path, weights(seed=11))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependency, match=r"pip install .* --editable '\.\[wan\]'"):
        load_wan_codec(path, device=CPU, dtype=torch.float32)


def test_any_network_is_checked_and_filled() -> None:
    with torch.device("meta"):
        network = nn.Linear(2, 3)
    tensors = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    check_tensors(Path("a"), network, tensors, looks=tensors)
    fill(network, tensors.items(), Path("a"), device=CPU, dtype=torch.float64)
    tensors["weight"].zero_()
    assert network(torch.ones(1, 2, dtype=torch.float64)).tolist() == [[2, 2, 2]]
    with pytest.raises(WeightsError, match=r"1 missing \(bias\)"):
        check_tensors(Path("a"), network, {"weight": torch.ones(3, 2)}, looks=["weight"])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, number: float) -> None:
    spoilt = weights(seed=12)
    spoilt["decoder.conv1.weight"].view(-1)[3] = number
    path = write_original_file(tmp_path, spoilt)
    with pytest.raises(WeightsError, match=rf"{path} is damaged: decoder\.conv_in\.weight holds numbers that are none"):
        load_wan_codec(path, device=CPU, dtype=torch.float32)


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "Wan2.1_VAE.pth").mkdir()
    with pytest.raises(WeightsError, match=r"Wan2\.1_VAE\.pth is a folder, and weights are a file"):
        load_wan_codec(tmp_path, device=CPU, dtype=torch.float32)
