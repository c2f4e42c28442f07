"""Weights of the codecs of the Wan 2.1 family, as published: read without running anything, checked, and filled in."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from worldsim.codec.wan import LATENT_MEAN, LATENT_STD, SETTINGS, WanCodec
from worldsim.codec.wan_tiles import Tiling
from worldsim.errors import MissingDependency, WeightsError, fetching, installing
from worldsim.files import check_finite, check_holds_weights, is_computed_with, oddity

Shapes = Mapping[str, list[int]]

_WEIGHTS = "diffusion_pytorch_model.safetensors"
ORIGINAL = "Wan2.1_VAE.pth"
_REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B"
_RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
"""Layers of a residual block by their place in the original; the others have no weights."""
_PARTS = {
    "conv1": "conv_in",
    "head.0": "norm_out",
    "head.2": "conv_out",
    "middle.0": "mid_block.resnets.0",
    "middle.1": "mid_block.attentions.0",
    "middle.2": "mid_block.resnets.1",
}
PORTION_BYTES = 1 << 24
"""So much of a file is read before it is mapped anew: not all of it is to lie in memory beside what is made of it."""
_UP_BLOCK = 4
"""The original numbers the decoder's layers through: three residual blocks, then what enlarges, and so on."""
_TELLTALES = {
    r"\.(down|up)samples\.\d+\.(down|up)samples\.": "the codec of Wan 2.2 5B, which is another network",
    r"^decoder\.\d+\.(conv\.)?(\d\.)?weight$": "a tiny codec (TAEHV), which worldsim.codec.taehv loads",
    r"(^|\.)blocks\.\d+\.(self_attn|attn1)\.": "a Wan transformer and no codec",
    r"^(token_embedding|shared)\.": "a text encoder and no codec",
    r"^(encoder|decoder)\.(conv_in|mid_block)\.": "a codec of diffusers",
    r"^(encoder|decoder)\.(conv1|middle)\.": "the codec of Wan 2.1 in its original names",
}
"""Names that give a file away, the surest first."""
_TORN = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError),
    *(KeyError, IndexError, AttributeError, OverflowError, AssertionError),
)
"""What reading a file ends in whose bytes are not what was written; found by flipping and cutting some."""


def load_wan_codec(path: Path, *, device: torch.device, dtype: torch.dtype, offload: bool = False) -> WanCodec:
    """The codec of Wan 2.1 from public weights, on that device and in that dtype.

    Args:
        path: a folder of diffusers (config.json and diffusion_pytorch_model.safetensors) or one with such a folder
            `vae`; the original Wan2.1_VAE.pth or a folder with it; or a .safetensors file in either's names.
        device: where to put it. Tensors are read and moved one at a time: little more host memory is taken than for
            what stays there.
        dtype: to compute in; float32 is what the weights are published in.
        offload: cut frames into tiles, and let what it carries wait in host memory.

    Raises:
        WeightsError: nothing of the kind is there, or it is torn, holds more than tensors, or is for another network;
            missing, unexpected and mis-shaped tensors are listed.
        MissingDependency: diffusers is not installed.
    """
    file, settings = _found(path)
    original = read_tensors(file)
    tensors = {diffusers_name(name): tensor for name, tensor in original.items()}
    first = tensors.get("encoder.conv_in.weight")
    if settings is None:
        settings = {} if first is None or first.ndim != 5 else {"base_dim": first.shape[0]}
    model = _empty(path, settings)
    check_tensors(file, model, tensors, looks=original)
    del original, tensors, first
    fill(model, _anew(file), file, device=device, dtype=dtype)
    return WanCodec(model, tiling=Tiling(), home=torch.device("cpu")) if offload else WanCodec(model)


def lacks_codec(folder: Path) -> bool:
    """Whether load_wan_codec finds none in a folder: neither ORIGINAL nor one of diffusers."""
    return _of_diffusers(folder) is None and not (folder / ORIGINAL).exists()


def _of_diffusers(path: Path) -> Path | None:
    """The folder of a codec of diffusers: a folder itself, or vae/ in it; None if it is in neither."""
    folders = (path, path / "vae")
    return next((each for each in folders if all((each / name).is_file() for name in ("config.json", _WEIGHTS))), None)


def _found(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The file of weights, and the settings beside it where there are any."""
    if not path.is_dir():
        return path, None
    if (folder := _of_diffusers(path)) is not None:
        return folder / _WEIGHTS, _read_settings(folder / "config.json")
    if (path / ORIGINAL).exists():
        return path / ORIGINAL, None
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise WeightsError(
        f"{path} holds no codec: neither config.json with {_WEIGHTS} (in itself or in vae/) nor {ORIGINAL}; there is: "
        f"{there}; get it by {fetching(_REPOSITORY, ORIGINAL, into=path)}"
    )


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON ({error}); copy it again from its source") from error
    if not isinstance(config, dict) or config.get("_class_name", "AutoencoderKLWan") != "AutoencoderKLWan":
        kind = config.get("_class_name") if isinstance(config, dict) else type(config).__name__
        raise WeightsError(f"{path} is for {kind}; this is the loader of AutoencoderKLWan")
    if config.get("is_residual") or config.get("patch_size") not in (None, 1):
        raise WeightsError(f"{path} is for the codec of Wan 2.2 5B; this is the loader of that of Wan 2.1")
    return {name: config[name] for name in SETTINGS & config.keys()}


def _empty(path: Path, settings: Mapping[str, Any]) -> nn.Module:
    """The network without its weights, on the meta device."""
    try:
        from diffusers import AutoencoderKLWan
    except ImportError as error:
        raise MissingDependency(f"diffusers is not installed; run: {installing('wan')}") from error
    network: Any = AutoencoderKLWan  # which has no annotations
    normalised = {"latents_mean": list(LATENT_MEAN), "latents_std": list(LATENT_STD)}
    try:
        with torch.device("meta"):
            empty: nn.Module = network(**(normalised | dict(settings)))
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise WeightsError(
            f"{path} describes no codec that can be built ({error}); it is of another version"
        ) from error
    return empty


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth file that holds nothing else, by name; on the CPU.

    Those of a .pth file are mapped, not read: they are valid while the file stays as it is, so copy what is kept.

    Raises:
        WeightsError: there is no such file, it is torn, or it holds anything but named tensors.
    """
    if not path.exists():
        raise WeightsError(f"there is no weights file {path}; give the path of one, or of its folder")
    check_holds_weights(path)
    with path.open("rb") as file:
        start = file.read(9)
    # The header of a safetensors file, which begins behind its length, may have a length that looks like a pickle.
    if start.startswith((b"PK\x03\x04", b"\x80")) and not start.endswith(b"{"):
        return _unpickled(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is torn, or neither a safetensors nor a PyTorch file ({error}); copy it again from its source"
        ) from error


def _anew(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file by the names of diffusers, mapped anew now and then: what was read of a mapping stays."""
    mapped = read_tensors(path)
    names, taken = list(mapped), 0
    for name in names:
        if taken >= PORTION_BYTES:
            mapped, taken = read_tensors(path), 0
        yield diffusers_name(name), mapped[name]
        taken += mapped[name].nbytes


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch also warns of what it then refuses
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        why = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} holds more than tensors and is not opened, since that could run code ({why}); "
            "use the file that the makers of the weights published, or a .safetensors file"
        ) from error
    except _TORN as error:
        why = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} is torn or in a format of PyTorch before 1.6 ({why}); copy it again from its source"
        ) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds one {type(state).__name__} and no tensors by name; give a state dict")
    others = [f"{name!r} is a {type(value).__name__}" for name, value in state.items() if not _is_named(name, value)]
    if others:
        raise WeightsError(f"{path} holds more than tensors by name: {_some(others)}; save the state dict alone")
    odd = [f"{name} {words}" for name, tensor in state.items() if (words := oddity(tensor))]
    if odd:
        raise WeightsError(
            f"{path} holds {len(odd)} of {len(state)} tensors otherwise than as plain numbers ({_some(odd)}); save its "
            "state dict again with dense tensors that lie on the CPU"
        )
    return dict(state)


def _is_named(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def diffusers_name(name: str) -> str:
    """The name that diffusers gives to a tensor of Wan2.1_VAE.pth; names of neither layout come back as they are."""
    quantiser = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
    coder, _, rest = name.partition(".")
    if coder in quantiser:
        return f"{quantiser[coder]}.{rest}"
    if coder not in ("encoder", "decoder"):
        return name
    for original, given in _PARTS.items():
        if rest.startswith(f"{original}."):
            rest = given + rest.removeprefix(original)
            break
    rest = re.sub(r"^downsamples\.", "down_blocks.", rest)
    rest = re.sub(r"^upsamples\.(\d+)\.", _up_block, rest)
    rest = re.sub(r"\.residual\.([0236])\.", lambda found: f".{_RESIDUAL[found[1]]}.", rest)
    return f"{coder}.{re.sub(r'[.]shortcut[.]', '.conv_shortcut.', rest)}"


def _up_block(found: re.Match[str]) -> str:
    block, place = divmod(int(found[1]), _UP_BLOCK)
    part = "upsamplers.0" if place == _UP_BLOCK - 1 else f"resnets.{place}"
    return f"up_blocks.{block}.{part}."


def fill(
    network: nn.Module, tensors: Iterable[tuple[str, Tensor]], source: Path, *, device: torch.device, dtype: torch.dtype
) -> None:
    """Give a network on the meta device its weights by name, copied one after the other, for evaluation only.

    Raises:
        WeightsError: they hold numbers that are none; source is where they are from.
    """
    own = {
        name: check_finite(tensor.to(device=device, dtype=dtype, copy=True), name, source) for name, tensor in tensors
    }
    network.load_state_dict(own, assign=True)
    network.eval().requires_grad_(requires_grad=False)


def check_tensors(source: Path, network: nn.Module, tensors: Mapping[str, Tensor], *, looks: Iterable[str]) -> None:
    """Raise WeightsError unless tensors are those of the network, by name, shape and kind.

    Args:
        source: where they are from, for the message.
        network: that they should fit, on any device.
        tensors: by the names of the network.
        looks: the names as the file has them, from which the message tells what the file may be instead.
    """
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    wrong = _differences(found, wanted)
    wrong += [f"{name} holds {tensor.dtype}" for name, tensor in tensors.items() if not is_computed_with(tensor.dtype)]
    if wrong:
        raise WeightsError(
            f"{source} does not hold the weights of this codec: {'; '.join(wrong[:4])}. It looks like "
            f"{_look(list(looks))}; give a file of this codec, or copy it again from its source"
        )


def _differences(found: Shapes, wanted: Shapes) -> list[str]:
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    shaped = [
        f"{name} {found[name]} instead of {wanted[name]}"
        for name in sorted(found.keys() & wanted.keys())
        if found[name] != wanted[name]
    ]
    told = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped))
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in told if names]


def _look(names: Collection[str]) -> str:
    for pattern, what in _TELLTALES.items():
        if any(re.search(pattern, name) for name in names):
            return what
    return f"nothing known, with {len(names)} tensors ({_some(sorted(names))})"


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"
