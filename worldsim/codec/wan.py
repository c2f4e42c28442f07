"""The codec of the Wan 2.1 family, streaming: what its causal convolutions carry from frame to frame is the state.

Source: Wan 2.1 (arXiv:2503.20314), section 4.1: a causal 3D VAE with a feature cache. The network is that of diffusers,
`AutoencoderKLWan`; its own cache lies in the network, so that it codes one video at a time and from the start. Here the
cache is handed in and out, and a network serves any number of sessions and threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from worldsim.codec.wan_tiles import Tile, Tiling, blend
from worldsim.errors import ConfigError, ShapeError

CodecState = Mapping[str, Tensor]
"""What convolutions carry, as named tensors "decode.TILE.SLOT" and "encode.TILE.SLOT", contiguous and never written to.

A side that has coded nothing yet has none. Whoever will not encode any more may leave the names of that side out, and
may keep a state on another device: tile by tile it is brought to the network's.
"""
Side = Literal["encode", "decode"]

LATENT_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
"""Of the 16 channels as the network gives them; what backbones see is normalised by both."""

_REPEAT = "Rep"
"""What diffusers has in its cache for a layer that doubles frames, when the one frame that is not doubled is past."""
SETTINGS = {
    "base_dim",
    "decoder_base_dim",
    "z_dim",
    "dim_mult",
    "num_res_blocks",
    "attn_scales",
    "temperal_downsample",
    "latents_mean",
    "latents_std",
}
"""What the configuration of diffusers says of such a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """What a session's codec state takes in memory once it has coded two groups of frames or more."""

    encode: int
    decode: int


class WanCodec:
    """Pixels to normalised latents and back, in pieces: the first frame is one picture, each later one is four.

    21 frames are 81 pictures, cut into calls however one likes: every frame, with its pictures, is one pass through the
    network, so that cutting changes no bit. What it is asked on another device is brought to the network's, where the
    answer stays.

    The two sides carry separate things: to go on decoding behind frames that were encoded, decode those first.

    Args:
        model: an `AutoencoderKLWan` of the 2.1 layout, in evaluation mode; where it lies and its dtype are the codec's.
        tiling: how to cut frames to save memory; None codes them whole. A tiled frame differs from a whole one by what
            attention and convolutions do not see beyond a tile.
        home: where what it carries waits, of which each frame fetches a tile at a time; where the model lies if None.
    """

    def __init__(self, model: nn.Module, *, tiling: Tiling | None = None, home: torch.device | None = None) -> None:
        config: Any = model.config
        if config.is_residual or config.patch_size not in (None, 1):
            raise ConfigError("this is the codec of Wan 2.2 5B; WanCodec knows that of Wan 2.1, with 16 channels")
        if not len(config.latents_mean) == len(config.latents_std) == config.z_dim:
            raise ConfigError(
                f"{config.z_dim} channels need as many means and deviations, got {len(config.latents_mean)} and "
                f"{len(config.latents_std)}"
            )
        self.model = model
        self.tiling = tiling
        self._home = home
        self.channels: int = config.z_dim
        self.stride: int = 2 ** (len(config.dim_mult) - 1)
        self.group: int = 2 ** sum(config.temperal_downsample)
        self._mean = torch.tensor(config.latents_mean, device=self.device).reshape(-1, 1, 1)
        self._std = torch.tensor(config.latents_std, device=self.device).reshape(-1, 1, 1)
        # Every causal convolution has a slot; those that carry nothing leave theirs, the last ones, empty.
        self._slots = {"encode": _causal(model.encoder), "decode": _causal(model.decoder)}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return next(self.model.parameters()).dtype

    @property
    def horizon(self) -> int:
        """How many frames decide the next pictures and the state: whatever was before the last so many is forgotten.

        `decode(latents[-horizon:], open())` therefore has the state of the whole video, bit for bit, and a past can be
        kept as so many latents in place of a state that is hundreds of times larger.
        """
        config: Any = self.model.config
        convolutions = 2 * (config.num_res_blocks + 1)
        rate, seen = 1, 2.0 * (1 + 4)  # the first convolution, and two blocks of two in the middle
        for doubles in (*reversed(config.temperal_downsample), False):
            seen += 2 * (convolutions + doubles) / rate
            rate *= 1 + doubles
        # The last convolution; and one more, since the first frame of all is coded unlike others.
        return math.ceil(seen + 2 / rate) + 1

    def open(self) -> CodecState:
        """The state before the first frame."""
        return {}

    def encode(self, frames: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Pictures uint8 [1 + 4n, H, W, 3] to normalised latents float32 [1 + n, C, H / 8, W / 8], and the state after.

        Args:
            frames: the first picture and four for each later frame; with a state that has encoded, [4n, H, W, 3].
            state: after the pictures before these; it stays as it is.

        Raises:
            ShapeError: these are no such pictures, their number leaves a frame unfinished, or the state is of another
                size, another tiling or another codec. Cut or pad to whole frames: none is kept waiting in the state.
        """
        if frames.dtype != torch.uint8:
            raise ShapeError(f"expected pictures uint8 [F, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        return self._encode(frames, state)

    def encode_levels(self, levels: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """As encode, of floats from -1, black, to 1, white: grey, 0, lies between two levels of a picture.

        Raises:
            ShapeError: as encode; or these are no floats.
        """
        if not levels.is_floating_point():
            raise ShapeError(f"expected levels as floats [F, H, W, 3], got {levels.dtype} {list(levels.shape)}")
        return self._encode(levels, state)

    @torch.no_grad()
    def _encode(self, frames: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        began = "encode.0.0" in state
        _check_pictures(frames, first=0 if began else 1, group=self.group, stride=self.stride)
        mean, std = self._mean.to(self.device), self._std.to(self.device)
        latents, kept = list[Tensor](), dict(state)
        for group in frames.split(_groups(len(frames), self.group, began=began)):
            pixels = _levels(group.to(self.device)).movedim(-1, 0)[None]
            moments, kept = self._step("encode", pixels.to(self.dtype), kept)
            latents.append((moments[0, : self.channels, 0].float() - mean) / std)
        return torch.stack(latents), kept

    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Normalised latents [F, C, h, w] to pictures uint8 [4F, 8h, 8w, 3], 3 fewer at the start, and the state after.

        Args:
            latents: of any floating dtype.
            state: after the frames before these; it stays as it is.

        Raises:
            ShapeError: these are no such latents, or the state is of another size, another tiling or another codec.
        """
        if latents.ndim != 4 or latents.shape[1] != self.channels or not len(latents):
            raise ShapeError(
                f"expected latents [F, {self.channels}, h, w] of one frame or more, got {list(latents.shape)}"
            )
        mean, std = self._mean.to(self.device), self._std.to(self.device)
        pictures, kept = list[Tensor](), dict(state)
        # Not as a decorator, which would keep the state that it was called with until the end.
        with torch.no_grad():
            for latent in latents:
                raw = latent.to(self.device).float() * std + mean
                pixels, kept = self._step("decode", raw.to(self.dtype)[None, :, None], kept)
                pictures.append(to_pictures(pixels[0].movedim(0, -1).float().add(1).mul(127.5)))
        return torch.cat(pictures), kept

    def state_bytes(self, height: int, width: int) -> StateBytes:
        """How large states are for pictures of height x width pixels; computed from shapes, allocating nothing.

        Raises:
            ShapeError: height or width is no multiple of the stride.
        """
        _check_size(height, width, self.stride)
        with torch.device("meta"):
            network: Any = type(self.model)
            # As a plain module: diffusers would warn of every cast.
            shadow = WanCodec(nn.Module.to(network(**self._settings()), self.dtype), tiling=self.tiling)
            state = dict(shadow.open())
            for pictures in (1, self.group, self.group):
                _, state = shadow._step("encode", torch.empty(1, 3, pictures, height, width, dtype=self.dtype), state)
            for _ in range(3):
                rows, columns = height // self.stride, width // self.stride
                raw = torch.empty(1, self.channels, 1, rows, columns, dtype=self.dtype)
                _, state = shadow._step("decode", raw, state)
        sizes = {side: sum(t.nbytes for name, t in state.items() if name.startswith(side)) for side in self._slots}
        return StateBytes(**sizes)

    def _settings(self) -> dict[str, Any]:
        config: Any = self.model.config
        return {name: config[name] for name in SETTINGS}

    def _step(self, side: Side, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One pass: a frame [1, C, 1, h, w] to its pictures, or pictures [1, 3, 1 or 4, H, W] to their frame.

        It empties the state of what this side carried, so that nobody else holds what the network is done with: with
        two states at once, a block of Self-Forcing is planned to take 1.6 GB more to decode.
        """
        given, made = (self.stride, 1) if side == "encode" else (1, self.stride)
        tiles = self._cut(x.shape[-2] // given, x.shape[-1] // given)
        parts: list[Tensor] = []
        after = {name: carried for name, carried in state.items() if not name.startswith(f"{side}.")}
        _check_state(state, side, [tile.scaled(given) for tile in tiles])
        for number, tile in enumerate(tiles):
            part, carried = self._run(side, tile.scaled(given).of(x), state, f"{side}.{number}")
            parts.append(part)
            after |= carried
        if self.tiling is None or len(tiles) == 1:
            return parts[0], after
        return blend([tile.scaled(made) for tile in tiles], parts, overlap=made * self.tiling.overlap), after

    def _cut(self, height: int, width: int) -> list[Tile]:
        return [Tile(0, 0, height, width)] if self.tiling is None else self.tiling.cut(height, width)

    def _run(self, side: Side, x: Tensor, state: dict[str, Tensor], prefix: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The network on one tile, and what its convolutions carry after it."""
        began = f"{prefix}.0" in state
        slots: list[Any] = [_REPEAT if began else None] * self._slots[side]
        for n in range(len(slots)):
            if f"{prefix}.{n}" in state:
                slots[n] = state.pop(f"{prefix}.{n}").to(x.device)
        net: Any = self.model
        if side == "encode":
            answer = net.quant_conv(net.encoder(x, feat_cache=slots, feat_idx=[0]))
        else:
            answer = net.decoder(net.post_quant_conv(x), feat_cache=slots, feat_idx=[0])
        # Contiguous, as they come back from a file: another layout in memory might be summed in another order.
        carried = [(n, slot.contiguous()) for n, slot in enumerate(slots) if isinstance(slot, Tensor)]
        return answer, {f"{prefix}.{n}": slot.to(self._home or slot.device) for n, slot in carried}


def to_pictures(levels: Tensor) -> Tensor:
    """Levels in [0, 255], of any floating dtype, rounded to uint8; what lies outside is clipped."""
    return levels.round().clamp(0, 255).to(torch.uint8)


def _levels(frames: Tensor) -> Tensor:
    """Pictures as floats in [-1, 1]; what are floats already stays as it is."""
    return frames.float() if frames.is_floating_point() else frames.float().div(127.5).sub(1)


def _causal(network: Any) -> int:
    return sum(type(module).__name__ == "WanCausalConv3d" for module in network.modules())


def _groups(pictures: int, group: int, *, began: bool) -> list[int]:
    first = [] if began else [1]
    return first + [group] * ((pictures - len(first)) // group)


def _check_pictures(frames: Tensor, *, first: int, group: int, stride: int) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ShapeError(f"expected pictures [F, H, W, 3], got {list(frames.shape)}")
    _check_size(frames.shape[1], frames.shape[2], stride)
    whole = first + (len(frames) - first) // group * group
    if len(frames) != whole or not whole:
        fits = f"{first} and {group} for each later frame" if first else f"{group} for each frame"
        near = f"{whole} or {whole + group}" if whole > 0 else f"{first or group}"
        raise ShapeError(
            f"got {len(frames)} pictures, where a video {'begins with' if first else 'goes on with'} {fits}; "
            f"give {near}, by cutting or repeating the last"
        )


def _check_size(height: int, width: int, stride: int) -> None:
    if height < stride or width < stride or height % stride or width % stride:
        raise ShapeError(
            f"pictures of {height}x{width} do not divide into latent pixels of {stride}; crop or resize them to "
            f"multiples of {stride}"
        )


def _check_state(state: CodecState, side: Side, tiles: list[Tile]) -> None:
    """Raise ShapeError unless a state is of this codec, and of these tiles or of none yet."""
    strange = [name for name in state if not name.startswith(("encode.", "decode."))]
    if strange:
        raise ShapeError(f"{strange[0]!r} is in no state of this codec; go on with what it gave itself, or with open()")
    carried = {name.rpartition(".")[0]: tensor for name, tensor in state.items() if name.startswith(side)}
    if not carried:
        return
    begun = {f"{side}.{number}": tile for number, tile in enumerate(tiles)}
    first = state.get(f"{side}.0.0")
    fits = carried.keys() == begun.keys() and first is not None and first.shape[-2:] == tiles[0][2:]
    if not fits:
        found = "nothing" if first is None else f"{first.shape[-2]}x{first.shape[-1]}"
        raise ShapeError(
            f"the state carries {len(carried)} tiles of {found} pixels, and this video is {len(tiles)} of "
            f"{tiles[0].height}x{tiles[0].width}; a video keeps its size and tiling from its first frame on"
        )
