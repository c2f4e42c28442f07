"""The tiny decoder for previews of the Wan 2.1 family: the same latents to the same number of pictures, far cheaper.

Source: TAEHV, Ollin Boer Bohan 2025, "Tiny AutoEncoder for Hunyuan Video", whose file taew2_1.pth is for these latents.
A block sees what the block before it gave for this picture and for the one before; that one is the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from worldsim.codec.wan import to_pictures
from worldsim.codec.wan_weights import check_tensors, fill, read_tensors
from worldsim.errors import ConfigError, ShapeError

TaehvState = Mapping[str, Tensor]
"""What each memory block saw last, as tensors "memory.LAYER" [1, C, H, W], never written to; empty before the start."""

_STRIDE = 8
_PICTURES = 4
_HORIZON = 8
_BLOCKS = 3
_FIRST, _LAST = "1", "22"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaehvConfig:
    """Sizes of the decoder; the defaults are those of taew2_1.pth.

    channels: of a latent.
    widths: of the three stages and of what comes after them, each stage at twice the size of the one before.
    """

    channels: int = 16
    widths: tuple[int, int, int, int] = (256, 128, 64, 64)

    def __post_init__(self) -> None:
        if self.channels < 1 or min(self.widths) < 1:
            raise ConfigError(f"a decoder has at least one channel everywhere, got {self.channels} and {self.widths}")


class MemoryBlock(nn.Module):
    """Three convolutions over a picture beside the one before it, added to the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Features [T, C, H, W], from those of the picture before each."""
        made: Tensor = self.conv(torch.cat([x, before], dim=1))
        return relu(made + x)


class Grow(nn.Module):
    """Each picture's features to those of `times` pictures."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features [T, C, H, W] to [T * times, C, H, W], in the order of time."""
        grown: Tensor = self.conv(x)
        return grown.reshape(-1, *x.shape[1:])


class TaehvDecoder(nn.Module):
    """The network, with the public names of its weights: decoder.N, without the places that have none."""

    def __init__(self, config: TaehvConfig) -> None:
        super().__init__()
        self.config = config
        first, *_, last = config.widths
        layers: dict[str, nn.Module] = {_FIRST: _conv(config.channels, first)}
        place = 3
        for stage, (width, following) in enumerate(zip(config.widths[:-1], config.widths[1:], strict=True)):
            layers |= {str(place + number): MemoryBlock(width) for number in range(_BLOCKS)}
            # One place is for the upsampling, which has no weights.
            layers[str(place + _BLOCKS + 1)] = Grow(width, 1 if stage == 0 else 2)
            layers[str(place + _BLOCKS + 2)] = _conv(width, following, bias=False)
            place += _BLOCKS + 3
        layers[_LAST] = _conv(last, 3)
        self.decoder = nn.ModuleDict(layers)

    def forward(self, latent: Tensor, state: TaehvState) -> tuple[Tensor, dict[str, Tensor]]:
        """One frame [1, C, h, w] to its four pictures in [0, 1], [4, 3, 8h, 8w], and the state after it."""
        after: dict[str, Tensor] = {}
        x = relu(self.decoder[_FIRST](torch.tanh(latent / 3) * 3))
        for place, layer in list(self.decoder.items())[1:-1]:
            match layer:
                case MemoryBlock():
                    name = f"memory.{place}"
                    oldest = state[name] if name in state else torch.zeros_like(x[:1])
                    after[name] = x[-1:].clone(memory_format=_layout(x))
                    x = layer(x, torch.cat([oldest, x[:-1]]))
                case Grow():
                    # Each pixel grows by itself, so that it may do so before there are four of it: a quarter of the
                    # work, in place of upsampling first as the source does.
                    x = interpolate(layer(x).contiguous(memory_format=_layout(x)), scale_factor=2.0, mode="nearest")
                case _:
                    x = layer(x)
        pictures: Tensor = self.decoder[_LAST](relu(x))
        return pictures.clamp(0, 1), after


class TaehvCodec:
    """Normalised latents to pictures, in pieces, as many as WanCodec makes: one for the first frame, then four each.

    It cannot encode. Cutting changes no bit. The state of one codec is none of the other: to change over inside a
    video, decode the last `horizon` frames with the other codec from its `open()`, and show what follows.
    """

    def __init__(self, network: TaehvDecoder) -> None:
        self.network = network

    @property
    def group(self) -> int:
        """How many pictures a frame is, but for the first."""
        return _PICTURES

    @property
    def horizon(self) -> int:
        """How many frames decide the next pictures and the state; see WanCodec.horizon."""
        return _HORIZON

    def open(self) -> TaehvState:
        """The state before the first frame."""
        return {}

    def encode(self, frames: Tensor, state: TaehvState) -> tuple[Tensor, TaehvState]:
        """Nothing: raise ConfigError, since the tiny encoder groups pictures otherwise than the codec it stands for."""
        raise ConfigError("a tiny decoder shows previews and encodes nothing; encode with the codec of the model")

    @torch.no_grad()
    def decode(self, latents: Tensor, state: TaehvState) -> tuple[Tensor, TaehvState]:
        """Normalised latents [F, C, h, w] to pictures uint8 [4F, 8h, 8w, 3], 3 fewer at the start, and the state after.

        Args:
            latents: of any floating dtype; they are brought to the network's device.
            state: after the frames before these; it stays as it is.

        Raises:
            ShapeError: these are no such latents, or the state is of another size or another codec.
        """
        channels = self.network.config.channels
        if latents.ndim != 4 or latents.shape[1] != channels or not len(latents):
            raise ShapeError(f"expected latents [F, {channels}, h, w] of one frame or more, got {list(latents.shape)}")
        self._check_state(state, latents)
        weight = next(self.network.parameters())
        pictures: list[Tensor] = []
        for latent in latents:
            begins = not state
            given = latent[None].to(weight)
            pixels, state = self.network(given.contiguous(memory_format=_layout(given)), state)
            # The pictures before the last of the first frame lie before the video.
            shown = pixels[_PICTURES - 1 :] if begins else pixels
            pictures.append(to_pictures(shown.movedim(1, -1).float().mul(255)))
        return torch.cat(pictures), state

    def state_bytes(self, height: int, width: int) -> int:
        """How many bytes a state takes for pictures of height x width pixels."""
        area = (height // _STRIDE) * (width // _STRIDE)
        numbers: int = sum(
            _BLOCKS * wide * area * 4**stage for stage, wide in enumerate(self.network.config.widths[:-1])
        )
        return numbers * next(self.network.parameters()).element_size()

    def _check_state(self, state: TaehvState, latents: Tensor) -> None:
        if not state:
            return
        names = {f"memory.{place}" for place, layer in self.network.decoder.items() if isinstance(layer, MemoryBlock)}
        if state.keys() != names:
            raise ShapeError(f"a state with {min(state.keys() ^ names)!r} is none of this codec; go on with its own")
        found = state["memory.3"].shape[-2:]
        if found != latents.shape[-2:]:
            raise ShapeError(
                f"the state is of frames of {found[0]}x{found[1]} latent pixels, and these are "
                f"{latents.shape[-2]}x{latents.shape[-1]}; a video keeps its size from its first frame on"
            )


def _layout(x: Tensor) -> torch.memory_format:
    """With channels innermost on a GPU, whose convolutions would else bring them there and back, each by itself."""
    return torch.channels_last if x.is_cuda else torch.contiguous_format


def _conv(given: int, made: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1, bias=bias)


def load_taehv_codec(
    path: Path, *, device: torch.device, dtype: torch.dtype, config: TaehvConfig | None = None
) -> TaehvCodec:
    """The decoder of a public taew2_1.pth (or .safetensors), on that device and in that dtype.

    Args:
        path: of the file. The encoder that it also holds is left out.
        device: where to put it.
        dtype: to compute in.
        config: its sizes, if they are others than those of taew2_1.

    Raises:
        WeightsError: there is no such file, or it is torn, holds more than tensors, or is for another network.
    """
    original = read_tensors(path)
    with torch.device("meta"):
        network = TaehvDecoder(config or TaehvConfig())
    tensors = {name: tensor for name, tensor in original.items() if not name.startswith("encoder.")}
    wanted = network.state_dict()
    for name in tensors.keys() & wanted.keys():
        # A file may hold a first stage that could make more pictures of one: the last one is what is asked for.
        if name.endswith(".conv.weight") and tensors[name].ndim == 4:
            tensors[name] = tensors[name][-wanted[name].shape[0] :]
    check_tensors(path, network, tensors, looks=original)
    fill(network, tensors.items(), path, device=device, dtype=dtype)
    return TaehvCodec(network)
