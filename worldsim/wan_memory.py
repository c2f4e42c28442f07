"""How much memory a world of published weights takes, told before any of it is taken.

What lies in memory for good is counted from shapes. What comes and goes inside a call is found by making that call on
the meta device, where tensors have sizes and no memory, and adding up those that are alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worldsim.cache.pool import Storage
from worldsim.codec.taehv import TaehvCodec, TaehvConfig, TaehvDecoder
from worldsim.codec.wan import WanCodec
from worldsim.codec.wan_tiles import Tiling
from worldsim.decoding.batch import TOGETHER
from worldsim.decoding.plan import VideoPlan
from worldsim.errors import ConfigError, MissingDependency, installing
from worldsim.keeping import Keeping
from worldsim.models.matrixgame.backbone import MatrixGameBackbone
from worldsim.models.matrixgame.condition import MOST
from worldsim.models.matrixgame.config import MatrixGameConfig
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import STRIDE_PX, WanConfig
from worldsim.models.wan.layers import speed_up
from worldsim.runtime.voice import KEPT

SPARE_BLOCKS = 4
"""Blocks that a pool holds beyond what one session sees: for the one in the making, and for others and moments."""
TEXT_PARAMETERS = 5_680_910_336
"""Of the encoder of umT5-xxl: 24 layers of 4,096 numbers a token, and a vocabulary of 256,384."""
SIGHT_PARAMETERS = 630_766_080
"""Of the image encoder of CLIP ViT-H/14: 32 layers of 1,280 numbers a token."""
Config = WanConfig | MatrixGameConfig
DRIVER_BYTES = 600_000_000
"""About what a GPU's driver and the libraries on it take for themselves."""
SLACK = 0.05
"""The share of what is planned that may be lost between pieces of memory of different sizes."""
_META = torch.device("meta")
_ROWS: Mapping[str, str] = {
    "weights": "weights of the backbone",
    "pages": "keys and values in pages",
    "view": "what a block sees of them, laid out for attention",
    "heard": "prompts or pictures as they are heard",
    "codec": "weights of the codec",
    "codec_state": "what the codec carries from frame to frame",
    "work": "at work on a block, at the most",
    "told": "text or image encoder, mapped from its file",
    "below": "pages beyond the budget, at the most",
    "carried": "what the codec carries, offloaded",
}
_ON_HOST = ("told", "below", "carried")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcuts:
    """What a world computes otherwise than it was published, to be faster.

    preview: it shows pictures by the tiny decoder. The codec is there too, since it encodes what a world begins from.
    linears: in which 8 bits its layers multiply, for which their weights are rounded once all of them are there.
    offload: its codec takes little where it computes, see worldsim.codec.choice.
    """

    preview: bool = False
    linears: str | None = None
    offload: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes that a world takes.

    weights: of the backbone.
    pages: of keys and values that are kept, exact and coded.
    view: of those that the blocks made at once see, copied side by side, with room for their own.
    heard: of the keys and values of prompts, or of pictures and what stands beside the noise.
    codec: of the weights of the codec, and of the tiny decoder where there is one.
    codec_state: of what the codec carries from frame to frame, for every session.
    work: of what is alive beside all that while a block is made or shown, pictures to begin from are encoded, or
        weights are rounded to 8 bits, at the most.
    told: of the encoder of prompts or pictures, in host memory, mapped from its file.
    below: of pages that do not fit into a budget, in host memory, at the most.
    carried: of what an offloaded codec carries from frame to frame, for every session, in host memory.
    """

    weights: int
    pages: int
    view: int
    heard: int
    codec: int
    codec_state: int
    work: int
    told: int
    below: int
    carried: int = 0

    @property
    def device(self) -> int:
        """Where the backbone computes."""
        return sum(getattr(self, name) for name in _ROWS if name not in _ON_HOST)

    @property
    def card(self) -> int:
        """Of a GPU: with what may be lost between pieces of its memory, and what its driver takes."""
        return self.device + int(SLACK * self.device) + DRIVER_BYTES

    @property
    def host(self) -> int:
        """In host memory, which on a CPU is the same."""
        return sum(getattr(self, name) for name in _ON_HOST)

    def lines(self) -> list[str]:
        """What a user reads of it, a line for each part that there is, and the sums."""
        width = max(map(len, _ROWS.values()))
        rows = [(_ROWS[part.name], getattr(self, part.name)) for part in fields(self)]
        parts = [f"{name:<{width}}  {size / 1e9:7.2f} GB" for name, size in rows if size]
        sums = (
            ("together, on the device", self.device),
            ("of a GPU, with its driver and slack", self.card),
            ("together, in host memory", self.host),
        )
        return [*parts, *(f"{name:<{width}}  {size / 1e9:7.2f} GB" for name, size in sums)]


def memory_plan(
    config: Config,
    plan: VideoPlan,
    *,
    dtype: torch.dtype,
    shortcuts: Shortcuts | None = None,
    keeping: Keeping | None = None,
    sessions: int = 1,
) -> MemoryPlan:
    """What a world of published weights takes; allocates none of it.

    Args:
        config: of the backbone, with the size of the pictures.
        plan: how blocks are made.
        dtype: in which backbone and codec compute.
        shortcuts: what it computes otherwise than it was published; nothing, if None.
        keeping: how keys and values are kept; exactly, and all in memory, if None.
        sessions: how many are lived in at once; all but one that takes the place of another make blocks together, if
            there are more than one, and as many at the most as share calls.

    Raises:
        ConfigError: a policy without a bound, or layers of a size that is not multiplied in those 8 bits.
        MissingDependency: diffusers is not installed.
    """
    shortcuts = shortcuts or Shortcuts()
    linears = shortcuts.linears
    pages, below = _pages_bytes(config, plan, dtype, keeping or Keeping(), sessions)
    is_told = isinstance(config, WanConfig)
    codecs = _meta_codecs(dtype, preview=shortcuts.preview)
    coded = codec_bytes(codecs, _wan_of(config), plan.frames_per_block, offload=shortcuts.offload)
    heard = math.prod(_heard_shape(config)) * dtype.itemsize
    # The latest, and beside them what a call of all sessions is given of theirs.
    hearing, state = (KEPT + sessions) * heard, sessions * coded.state
    view = _view_bytes(config, plan, dtype, sessions)
    weights = _bytes_of(_meta_backbone(config, dtype, linears=linears))
    return MemoryPlan(
        weights=weights,
        pages=pages,
        view=view,
        heard=hearing,
        codec=coded.weights,
        codec_state=state,
        work=max(
            _together(sessions) * _backbone_work(config, plan, dtype, linears=linears),
            coded.decode,
            # Pictures to begin from are encoded before there is a view.
            coded.encode - view,
            # Weights are rounded before there is anything but the codec.
            0
            if linears is None
            else _rounding_bytes(config, dtype, linears) - weights - pages - view - hearing - state,
        ),
        told=(TEXT_PARAMETERS if is_told else SIGHT_PARAMETERS) * torch.bfloat16.itemsize,
        below=below,
        carried=sessions * coded.carried,
    )


def least_bytes(
    config: Config,
    plan: VideoPlan,
    *,
    dtype: torch.dtype,
    linears: str | None = None,
    keeping: Keeping | None = None,
    sessions: int = 1,
) -> int:
    """Of what a world takes where it computes, what lies there for good; told at once. Arguments as memory_plan."""
    pages, _ = _pages_bytes(config, plan, dtype, keeping or Keeping(), sessions)
    return (
        _bytes_of(_meta_backbone(config, dtype, linears=linears)) + pages + _view_bytes(config, plan, dtype, sessions)
    )


def check_memory(needed: MemoryPlan | int, free: int, *, what: str = "this world", host: int | None = None) -> None:
    """Raise ConfigError if there is too little memory, with what would take less.

    Args:
        needed: the plan, or the bytes of a part of one.
        free: bytes that can be had on the device.
        what: takes them, for the message.
        host: bytes that can be had in host memory beside a GPU, for what is kept there; what is mapped takes none.
            Nobody asks of None.
    """
    wanted, kept = (needed, 0) if isinstance(needed, int) else (needed.device, needed.below + needed.carried)
    wanted += int(SLACK * wanted)
    if wanted > free:
        raise ConfigError(
            f"{what} takes about {wanted / 1e9:.1f} GB on the device, where {free / 1e9:.1f} GB are free; choose a "
            "smaller window (policy), a budget for keys and values with the rest in host memory or on disk, kv=int8 "
            "beside a budget, the tiny decoder (preview), an offloaded codec (offload), fewer sessions or a smaller "
            "size; `worldsim info` says what each part takes"
        )
    if host is not None and kept > host:
        raise ConfigError(
            f"{what} keeps about {kept / 1e9:.1f} GB in host memory, where {host / 1e9:.1f} GB are free: keys and "
            "values beyond the budget, and what an offloaded codec carries; choose a larger budget, or one with a "
            "bound for host memory, as in 8GB,32GB, and the rest on disk, a smaller window (policy), fewer sessions or "
            "a smaller size, or leave offload out"
        )


def pages_of(plan: VideoPlan, *, sessions: int) -> int:
    """The frames that a pool holds for so many sessions; ConfigError if there is no end to what one holds."""
    if plan.limit is None:
        raise ConfigError(
            "a policy that forgets nothing takes more memory without end, and a frame of these models takes up to "
            "hundreds of megabytes of keys and values; choose a policy with a bound, such as window:frames=18"
        )
    spare = max(SPARE_BLOCKS * plan.frames_per_block, sessions * plan.beside)
    return sessions * plan.limit + spare + plan.on_prompt.anew


def _pages_bytes(
    config: Config, plan: VideoPlan, dtype: torch.dtype, keeping: Keeping, sessions: int
) -> tuple[int, int]:
    """Bytes of pages on the device, and at the most in host memory below it."""
    each = config.pages.bytes(dtype) + _coded_bytes(config, keeping.storage)
    everything = pages_of(plan, sessions=sessions) * each
    if keeping.tiers is None:
        return everything, 0
    budget = keeping.tiers.budget
    near = min(everything, budget.device)
    return near, min(everything - near, budget.host)


def _coded_bytes(config: Config, storage: Storage | None) -> int:
    return 0 if storage is None else storage.code.bytes(config.pages)


def _together(sessions: int) -> int:
    """How many of them make a block at once."""
    return min(max(1, sessions - 1), TOGETHER)


def _view_bytes(config: Config, plan: VideoPlan, dtype: torch.dtype, sessions: int) -> int:
    return _together(sessions) * _view_frames(plan) * config.pages.bytes(dtype)


def _view_frames(plan: VideoPlan) -> int:
    """Frames of the largest view, with the block's own: of its calls, a joint window, or a past computed anew."""
    block, limit, held = plan.frames_per_block, plan.policy.limit, plan.limit
    assert limit is not None
    assert held is not None
    frames = [limit + block, held]
    if plan.rolling is not None:
        seen = limit if plan.rolling.joint is None else plan.rolling.joint.limit
        frames.append((limit if seen is None else min(seen, limit)) + block + plan.ahead)
    return max(frames)


def _backbone_work(config: Config, plan: VideoPlan, dtype: torch.dtype, *, linears: str | None = None) -> int:
    """What is alive beside weights, pages and views while a block is made and written, at the most."""
    limit = plan.limit
    assert limit is not None
    # A past that is computed anew is written like a block, all of it in one pass.
    written = max(plan.frames_per_block, min(plan.on_prompt.anew, limit))
    own = written * config.pages.bytes(dtype)
    # The clean pass keeps all keys and values until its end, and then puts first those and then these together.
    together = 2 * own if config.pages.streams else own * 3 // 2
    work = {
        frames: _call_work(config, frames, dtype, linears=linears)
        for frames in (written, plan.frames_per_block + plan.ahead)
    }
    return max(together, own + work[written], *work.values())


def _call_work(config: Config, frames: int, dtype: torch.dtype, *, linears: str | None) -> int:
    """What is alive inside one call on that many frames, beside what it is given."""
    config = _thin(config)
    backbone = _meta_backbone(config, dtype, linears=linears)
    noisy = torch.empty(1, frames, *config.geometry.frame_shape, device=_META)
    sigma = torch.empty(1, frames, device=_META)
    controls = torch.empty(1, frames, backbone.controls, device=_META)
    heard = torch.empty(1, *_heard_shape(config), dtype=dtype, device=_META)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        for turned in (k, q):
            # As a view turns them: in complex numbers of float32.
            pairs = torch.view_as_complex(turned.float().unflatten(-1, (-1, 2)))
            turned = torch.view_as_real(pairs * torch.empty_like(pairs[:, :, :1])).flatten(-2).to(dtype)
        return torch.empty_like(turned)

    return _peak(lambda: backbone.prompted(heard, [0])(noisy, noisy, sigma, controls, attend))


def _rounding_bytes(config: Config, dtype: torch.dtype, linears: str) -> int:
    """The most that a backbone takes while its layers are made to multiply in 8 bits, one after the other.

    That is at the first one, when the weights of all others are still exact.
    """
    thin = _meta_backbone(_thin(config), dtype)
    return _bytes_of(_meta_backbone(config, dtype)) + _peak(
        lambda: speed_up(thin.blocks[:1], compiled=False, linears=linears)
    )


def _wan_of(config: Config) -> WanConfig:
    """The transformer itself, without what acts beside it."""
    return config if isinstance(config, WanConfig) else config.wan


def _thin(config: Config) -> Config:
    """With so few layers that none is left out: every layer does the same, in memory that the one before let go."""
    wan = _wan_of(config)
    thin = replace(wan, layers=min(2, wan.layers))
    return thin if isinstance(config, WanConfig) else replace(config, wan=thin, acting=min(2, config.acting))


def _heard_shape(config: Config) -> tuple[int, ...]:
    """What a backbone hears of one session, see its `hear`."""
    if isinstance(config, WanConfig):
        return config.heard
    beside = (MOST + 1) * config.seen * config.wan.height * config.wan.width
    return (math.prod(config.wan.heard) + beside,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecBytes:
    """Of a codec: its weights, the state of one session, and what is alive beside both in a call, at the most.

    decode: of a block. The state that it begins from, which whoever calls holds, is not counted; those that follow are.
    encode: of the first nine pictures of a video, with the states; more take no more.
    carried: of the state after a block, in host memory, where it waits there.
    """

    weights: int
    state: int
    decode: int
    encode: int
    carried: int = 0


def codec_bytes(
    codecs: Sequence[WanCodec | TaehvCodec], config: WanConfig, frames: int, *, offload: bool = False
) -> CodecBytes:
    """What a codec takes for blocks of that many frames.

    Args:
        codecs: on the meta device: one that encodes, and decodes unless there is another one that does.
        config: of the backbone, with the size of the pictures.
        frames: of a block.
        offload: the codec takes one tile after the other, each with its part of what is carried.
    """
    networks = [codec.model if isinstance(codec, WanCodec) else codec.network for codec in codecs]
    tiles = Tiling().cut(config.height, config.width)
    tile = replace(config, height=tiles[0].height, width=tiles[0].width)
    # Of whole pictures there are the tiles, their sum, its shares and the levels.
    whole = offload * 4 * codecs[0].group * 3 * config.height * config.width * STRIDE_PX**2 * torch.float32.itemsize
    encode = _encoding_bytes(codecs[0], tile if offload else config)
    in_tiles = offload and isinstance(codecs[-1], WanCodec)
    state, decode = _decoding_bytes(codecs[-1], tile if in_tiles else config, frames)
    return CodecBytes(
        weights=sum(map(_bytes_of, networks)),
        state=0 if in_tiles else state,
        decode=decode + in_tiles * (state + whole),
        encode=encode + whole,
        carried=in_tiles * len(tiles) * state,
    )


def _decoding_bytes(decoder: WanCodec | TaehvCodec, config: WanConfig, frames: int) -> tuple[int, int]:
    """Of pictures of that size: what is carried, and what is alive beside that while so many frames are decoded."""
    latents = torch.empty(frames, config.channels, config.height, config.width, device=_META)
    _, begun = decoder.decode(latents[:1].repeat(2, 1, 1, 1), decoder.open())
    return sum(carried.nbytes for carried in begun.values()), _peak(lambda: decoder.decode(latents, begun))


def _encoding_bytes(encoder: WanCodec | TaehvCodec, config: WanConfig) -> int:
    """What is alive while the first pictures of that size are encoded."""
    size = (config.height * STRIDE_PX, config.width * STRIDE_PX)
    pictures = torch.empty(1 + 2 * encoder.group, *size, 3, dtype=torch.uint8, device=_META)

    def encode() -> None:
        # As a picture is encoded to stand beside the noise: the state before is kept, to see whether it rests.
        _, begun = encoder.encode(pictures[: 1 + encoder.group], encoder.open())
        encoder.encode(pictures[1 + encoder.group :], begun)

    return _peak(encode)


def _meta_codecs(dtype: torch.dtype, *, preview: bool) -> list[WanCodec | TaehvCodec]:
    try:
        from diffusers import AutoencoderKLWan
    except ImportError as error:
        raise MissingDependency(f"diffusers is not installed; run: {installing('wan')}") from error
    network: Any = AutoencoderKLWan  # which has no annotations
    with torch.device(_META):
        # As a plain module: diffusers would warn of every cast.
        codecs: list[WanCodec | TaehvCodec] = [WanCodec(nn.Module.to(network(), dtype))]
        if preview:
            codecs.append(TaehvCodec(TaehvDecoder(TaehvConfig()).to(dtype)))
    return codecs


def _meta_backbone(
    config: Config, dtype: torch.dtype, *, linears: str | None = None
) -> WanBackbone | MatrixGameBackbone:
    with torch.device(_META):
        backbone = (WanBackbone(config) if isinstance(config, WanConfig) else MatrixGameBackbone(config)).to(dtype)
    speed_up(backbone.blocks, compiled=False, linears=linears)
    return backbone


def _bytes_of(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())


@torch.no_grad()
def _peak(call: Callable[[], object]) -> int:
    """The most bytes of tensors made in a call that are alive at one moment of it."""
    alive = _Alive()
    with _Unfused(), alive:
        call()
    return alive.most


class _Unfused(TorchFunctionMode):
    """Attention takes what it answers with: the meta device would take it apart, as no GPU does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The answer of a function of torch."""
        if func is nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class _Alive(TorchDispatchMode):
    """Adds up what the tensors that are made in it take while they are alive.

    most: the largest sum.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The answer of an operation, counted."""
        given = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (key := tensor.untyped_storage()._cdata) not in given:
                storage = tensor.untyped_storage()
                self._storages[key] = StorageWeakRef(storage), storage.nbytes()
        self._storages = {key: pair for key, pair in self._storages.items() if not pair[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._storages.values()))
        return made
