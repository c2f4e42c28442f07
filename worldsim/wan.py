"""Worlds of the Wan family: recipes for public weights, and how a world is made of them.

A folder of weights holds a transformer (an original .pt, safetensors, or what `worldsim convert` wrote), the codec
(Wan2.1_VAE.pth, or vae/ of diffusers) and the text encoder (models_t5_umt5-xxl-enc-bf16.pth with google/umt5-xxl/, or
text_encoder/ and tokenizer/).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from worldsim.cache.policy import Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool
from worldsim.codec.choice import CodecChoice
from worldsim.codec.tail import ForgetfulCodec, TailCodec
from worldsim.codec.wan_weights import ORIGINAL as CODEC
from worldsim.codec.wan_weights import lacks_codec
from worldsim.controls import Controls
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import KEEP, PromptChange
from worldsim.decoding.rolling import Rolling
from worldsim.errors import ConfigError, NotShipped, WeightsError, fetching, shown
from worldsim.files import check_finite
from worldsim.keeping import Keeping, check_keeping
from worldsim.models.matrixgame.backbone import MatrixGameBackbone
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import STRIDE_PX, WanConfig, wan_config
from worldsim.models.wan.hub import hub_name, local_path
from worldsim.models.wan.kinds import wan_config_of
from worldsim.models.wan.stored import read_stored, wanted_shapes
from worldsim.models.wan.text import PUBLISHED as TEXT
from worldsim.models.wan.text import REPOSITORY, WanText, lacking_text, load_text
from worldsim.models.wan.weights import Weights, load_tensors
from worldsim.runtime.devices import is_gpu
from worldsim.runtime.starts import Starts
from worldsim.runtime.voice import Voice
from worldsim.runtime.world import Origin, World
from worldsim.samplers import few_step
from worldsim.schedules import few_step_sigmas
from worldsim.wan_memory import Config, MemoryPlan, Shortcuts, memory_plan, pages_of
from worldsim.wan_room import Check

FPS = 16
SIZE_PX = (480, 832)
CONTROLS = Controls(actions=(), exclusive=False)
"""None: these worlds are told in words."""
PARTS = {TEXT[0]: "text encoder", TEXT[1]: "tokenizer", CODEC: "codec"}
"""What a world is made of beside its transformer, by the name that the file has in REPOSITORY."""
Network = TypeVar("Network", bound=nn.Module)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanRecipe:
    """All that tells the published models of the family apart, beside their weights.

    Args:
        name: of the world.
        source: the paper it follows.
        published: what was published of its speed, if anything was.
        size: one of worldsim.models.wan.config.SIZES.
        weights: where they are found, as `worldsim convert` takes them.
        ema: whether the averaged weights of a file are its own; None where it has one set.
        lora: the file beside the transformer, or in the folder of weights, that is merged into it, if there is one.
        frames_per_block: latent frames decided together.
        sigmas: levels of a block, the commit at 0 left out.
        policy: what a block sees of the past.
        rolling: what the calls of a joint window see, if blocks are made in one.
        on_prompt: what becomes of the past when the prompt changes.
    """

    name: str
    source: str
    weights: str
    sigmas: tuple[float, ...]
    policy: Policy
    rolling: Rolling | None = None
    published: str = ""
    size: str = "1.3b"
    ema: bool | None = None
    lora: str | None = None
    frames_per_block: int = 3
    on_prompt: PromptChange = KEEP

    def config(self, size: tuple[int, int]) -> WanConfig:
        """The size of its backbone, for pictures of (height, width) pixels; ConfigError if those do not divide."""
        height, width = size
        return wan_config(self.size, height_px=height, width_px=width, frames_per_block=self.frames_per_block)

    def plan(self, **changed: Any) -> VideoPlan:
        """How its blocks are made, but for what was chosen otherwise; another policy is that of every call."""
        another = changed.get("policy", self.policy) != self.policy
        plan = VideoPlan(
            frames_per_block=self.frames_per_block,
            sigmas=self.sigmas,
            sampler=few_step,
            policy=self.policy,
            from_nothing=True,
            on_prompt=self.on_prompt,
            rolling=Rolling() if self.rolling and another else self.rolling,
        )
        return replace(plan, **changed)


SELF_FORCING = WanRecipe(
    name="self-forcing",
    source="Self-Forcing, Huang et al. 2025 (arXiv:2506.08009), distilled by distribution matching",
    published="17.0 frames a second on one H100",
    weights="gdhe17/Self-Forcing:checkpoints/self_forcing_dmd.pt",
    ema=True,
    sigmas=few_step_sigmas(4, 5.0),
    # 21 frames, those of the block among them: all that the weights were trained to see.
    policy=Window(frames=18),
)
CAUSVID = WanRecipe(
    name="causvid",
    source="CausVid, Yin et al. 2024 (arXiv:2412.07772), four levels",
    published="9.4 frames a second of 640x352 on one GPU, said of the paper's model of four levels",
    weights="tianweiy/CausVid:autoregressive_checkpoint_warp_4step_cfg2/model.pt",
    sigmas=few_step_sigmas(4, 8.0),
    policy=Window(frames=18),
)
LONGLIVE = WanRecipe(
    name="longlive",
    source="LongLive, Yang et al. 2025 (arXiv:2509.22622): a window of 12 frames, 3 of them sinks, re-cached",
    published="20.7 frames a second on one H100",
    weights="Efficient-Large-Model/LongLive-1.3B:models/longlive_base.pt",
    ema=False,
    lora="lora.pt",
    sigmas=few_step_sigmas(4, 5.0),
    policy=SinkWindow(sink=3, window=6, near=False),
    on_prompt=PromptChange(anew=12),
)
CAUSAL_FORCING = WanRecipe(
    name="causal-forcing",
    source="Causal Forcing, 2026 (arXiv:2602.02214), in blocks of three frames",
    weights="zhuhz22/Causal-Forcing:chunkwise/causal_forcing.pt",
    ema=False,
    sigmas=few_step_sigmas(4, 5.0),
    policy=Window(frames=18),
)
ROLLING_FORCING = WanRecipe(
    name="rolling-forcing",
    source="RollingForcing, Liu et al. 2025 (arXiv:2509.25161): a joint window of five blocks behind an anchor",
    published="16 frames a second of 832x480 on one GPU",
    weights="TencentARC/RollingForcing:checkpoints/rolling_forcing_dmd.pt",
    ema=True,
    sigmas=few_step_sigmas(5, 5.0),
    policy=SinkWindow(sink=3, window=18),
    rolling=Rolling(joint=SinkWindow(sink=3, window=3), clean=Window(frames=18)),
)
RECIPES: Mapping[str, WanRecipe] = {
    recipe.name: recipe
    for recipe in (
        SELF_FORCING,
        CAUSVID,
        replace(
            CAUSVID,
            name="causvid-3step",
            source="CausVid, Yin et al. 2024 (arXiv:2412.07772), three levels",
            published="",
            weights="tianweiy/CausVid:autoregressive_checkpoint/model.pt",
            # The published loop computes with the nearest of its thousand levels, such as 0.75676, and tells the
            # model these: on random weights 2.7e-3 apart.
            sigmas=(1.0, 0.757, 0.522),
        ),
        LONGLIVE,
        replace(
            LONGLIVE,
            name="longlive-infinite",
            source="LongLive, Yang et al. 2025 (arXiv:2509.22622), positions counted within the window: without an end",
            policy=SinkWindow(sink=3, window=6),
        ),
        replace(
            SELF_FORCING,
            name="infinity-rope",
            source="infinity-RoPE, Yesiltepe et al. 2025 (arXiv:2511.20649), on the weights of Self-Forcing",
            published="",
            policy=SinkWindow(sink=1, window=2),
            on_prompt=PromptChange(sink=1, recent=2),
        ),
        CAUSAL_FORCING,
        replace(
            CAUSAL_FORCING,
            name="causal-forcing-framewise",
            source="Causal Forcing, 2026 (arXiv:2602.02214), frame by frame",
            weights="zhuhz22/Causal-Forcing:framewise/causal_forcing.pt",
            ema=True,
            frames_per_block=1,
            policy=Window(frames=20),
        ),
        ROLLING_FORCING,
    )
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WanParts:
    """What a world of the family is made of.

    backbone: in evaluation mode.
    codec: pixels to latents and back.
    embed: the embeddings of the words of a prompt, [L, text_dim].
    identity: SHA-256 that tells its weights from others.
    left_out: how many tokens at the end of a prompt are not embedded.
    chosen: as of an Origin.
    """

    backbone: WanBackbone
    codec: ForgetfulCodec
    embed: Callable[[str], Tensor]
    identity: str
    left_out: Callable[[str], int] = lambda _: 0
    chosen: Mapping[str, Any] = field(default_factory=dict)


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) in pixels of a text such as "832x480", width first as videos are told.

    Raises:
        ConfigError: it is no such text, or the pictures do not divide into tokens of the family.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text) if isinstance(text, str) else None
    if not found:
        raise ConfigError(f"a size is a width and a height in pixels, such as 832x480, got {shown(text)}")
    width, height = int(found[1]), int(found[2])
    wan_config("tiny", height_px=height, width_px=width)
    return height, width


class Sized(Protocol):
    """A recipe, as far as the size of its backbone."""

    def config(self, size: tuple[int, int]) -> Config:
        """For pictures of (height, width) pixels."""
        ...


def plan_memory(
    recipe: Sized,
    plan: VideoPlan,
    *,
    size: tuple[int, int],
    dtype: torch.dtype,
    shortcuts: Shortcuts | None = None,
    keeping: Keeping | None = None,
) -> MemoryPlan:
    """What a world of the published weights takes, see memory_plan; its `lines()` are what a user reads of it.

    Raises:
        ConfigError: pictures of that size do not divide into tokens, or the policy has no bound.
        MissingDependency: diffusers is not installed.
    """
    return memory_plan(recipe.config(size), plan, dtype=dtype, shortcuts=shortcuts, keeping=keeping)


def dtype_on(device: torch.device) -> torch.dtype:
    """What worlds of the family compute in there: bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if is_gpu(device) else torch.float32


def load_parts(
    recipe: WanRecipe,
    folder: str | Path | None,
    *,
    size: tuple[int, int],
    device: torch.device,
    preview: Path | None = None,
    check: Check = lambda config, dtype: False,
) -> WanParts:
    """The parts of a world from public weights, each read lazily; see dtype_on for what they compute in.

    Args:
        recipe: of the world.
        folder: where the weights are, see the module; or their name on the hub, from which all of it is brought.
        size: (height, width) of the pictures in pixels.
        device: where backbone and codec go; the text encoder stays on the CPU.
        preview: a file of the tiny decoder, which makes pictures of latents in place of the codec's own.
        check: asked before anything is allocated, see worldsim.wan_room.

    Raises:
        NotShipped: no folder is named.
        WeightsError: something is missing, torn or of another model.
        MissingDependency: diffusers or transformers is not installed.
    """
    if folder is None:
        raise NotShipped(
            f"the weights of {recipe.name} are public and not in the package: put {recipe.weights} into a folder, with "
            f"the codec and the text encoder of {REPOSITORY} beside it, and name it: weights=DIR or --weights DIR; "
            f"or have all of it brought from the hub: --weights {recipe.weights}"
        )
    path = local_path(folder, beside=() if recipe.lora is None else (recipe.lora,))
    dtype = dtype_on(device)
    home = path if path.is_dir() else path.parent
    weights, config = open_backbone(recipe, path, size=size)
    choice = CodecChoice(preview=preview, offload=check(config, dtype))
    around = _around(folder, home)
    text = load_text(around, dtype=torch.bfloat16, device=torch.device("cpu"), length=config.text_length)
    _, shown = choice.load(around, device=device, dtype=dtype)
    return WanParts(
        backbone=fill_backbone(_empty(config), weights, device=device, dtype=dtype),
        codec=shown,
        embed=partial(_embedded, text),
        left_out=text.left_out,
        identity=identity_of(weights, None if (stored := read_stored(home)) is None else stored.card),
        chosen={"offload": choice.offload},
    )


def _around(source: str | Path, home: Path) -> Path:
    """The folder of what a world has beside its transformer: that of the latter, or one that is brought from the hub.

    It is brought where the transformer was, and its own folder lacks any of it; otherwise that is a WeightsError.
    """
    if not (files := lacking(home)):
        return home
    if hub_name(source) is None:
        raise WeightsError(f"{home} holds a transformer and lacks {parts_text(files, home)}")
    return local_path(f"{REPOSITORY}:{CODEC}", beside=TEXT).parent


def lacking(home: Path) -> list[str]:
    """What a folder lacks beside its transformer, as files of REPOSITORY; nothing if a world can be made of it."""
    return [*lacking_text(home), *([CODEC] if lacks_codec(home) else [])]


def parts_text(files: Sequence[str], home: Path) -> str:
    """What files that a folder lacks are, by which names, and how to get them, for a message."""
    names = [f"the {part} ({file})" for file, part in PARTS.items() if file in files]
    told = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    return f"{told} of {REPOSITORY}; get {'them' if names[1:] else 'it'} by {fetching(REPOSITORY, *files, into=home)}"


def _embedded(text: WanText, prompt: str) -> Tensor:
    """The embeddings of a prompt; what of it is not heard is said."""
    if lost := text.left_out(prompt):
        log.warning(
            "the prompt is too long: the last %d of its %d tokens are not heard, as the model was trained for %d",
            *(lost, lost + text.length, text.length),
        )
    return text.encode(prompt)


def open_backbone(recipe: WanRecipe, path: Path, *, size: tuple[int, int]) -> tuple[Weights, WanConfig]:
    """The tensors of a recipe's backbone, none of them read yet, and its size; arguments and errors as load_parts."""
    home = path if path.is_dir() else path.parent
    stored = read_stored(home)
    if stored is not None:
        _check_recipe(recipe, stored.recipe, home)
    weights = load_tensors(path, ema=recipe.ema)
    if recipe.lora is not None and not (stored and stored.card["merged"]):
        where, needed = dict.fromkeys((weights.origin.files[0].parent, home)), not (stored and stored.recipe is None)
        changes = _lora_of(recipe, recipe.lora, where, needed=needed)
        weights = load_tensors(path, ema=recipe.ema, lora=changes)
    config = _sized(wan_config_of(weights.shapes, path) if stored is None else stored.config, size, recipe)
    weights.check(wanted_shapes(config), path)
    return weights, config


def _check_recipe(recipe: WanRecipe, converted: str | None, home: Path) -> None:
    """Raise WeightsError if weights were converted for a recipe that has others."""
    theirs = RECIPES.get(converted or "", recipe).weights
    if theirs != recipe.weights:
        fits = ", ".join(name for name, other in RECIPES.items() if other.weights == theirs)
        raise WeightsError(
            f"{home} was converted for {converted}, and {recipe.name} takes {recipe.weights}; load it as {fits}, or "
            'set "recipe" to null in its config.json, and it is loaded as any'
        )


def _lora_of(recipe: WanRecipe, name: str, folders: Collection[Path], *, needed: bool) -> Path | None:
    """The changes that are merged into weights, in one of some folders; WeightsError of none if needed, else said."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    repository, _, weights = recipe.weights.partition(":")
    told = (
        f"{recipe.name} merges {name} into its weights, and there is none in {' or '.join(map(str, folders))}; put "
        f"{Path(weights).with_name(name)} of {repository} there, or convert the weights with --lora"
    )
    if needed:
        raise WeightsError(told)
    log.warning("%s, if they are those of %s", told, repository)
    return None


def _empty(config: WanConfig) -> WanBackbone:
    with torch.device("meta"):
        return WanBackbone(config)


def fill_backbone(backbone: Network, weights: Weights, *, device: torch.device, dtype: torch.dtype) -> Network:
    """A backbone that was made on the meta device, with those weights, for evaluation, one tensor after the other.

    Raises:
        WeightsError: they hold numbers that are none.
    """
    source = ", ".join(map(str, weights.origin.files))
    state = {name: check_finite(weights[name].to(device, dtype), name, source) for name in weights}
    backbone.load_state_dict(state, assign=True)
    return backbone.eval().requires_grad_(False)


def _sized(config: WanConfig, size: tuple[int, int], recipe: WanRecipe) -> WanConfig:
    height, width = (side // STRIDE_PX for side in size)
    return replace(config, height=height, width=width, frames_per_block=recipe.frames_per_block)


def identity_of(weights: Weights, card: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over those of all files that the weights come from, which the card of converted ones tells."""
    told = {} if card is None else card
    found = [str(file["sha256"]) for kind in ("files", "merged") for file in told.get(kind, ())]
    for path in (*(weights.origin.files if card is None else ()), *weights.origin.merged):
        with path.open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256(" ".join(found).encode()).hexdigest()


def assemble_wan(
    recipe: WanRecipe, plan: VideoPlan, parts: WanParts, *, sessions: int = 1, keeping: Keeping | None = None
) -> World:
    """A world from its parts.

    Args:
        recipe: of the world.
        plan: how its blocks are made.
        parts: see WanParts.
        sessions: how many are lived in at once.
        keeping: how its pool keeps keys and values; exactly, and all in memory, if None.

    Raises:
        ConfigError: a policy that holds all frames for ever, or a budget below what one block sees.
    """
    backbone = parts.backbone
    pool = pool_for(backbone, plan, sessions=sessions, keeping=keeping or Keeping())
    origin = Origin(
        name=recipe.name,
        weights=parts.identity,
        chosen=parts.chosen,
        controls=CONTROLS,
        fps=FPS,
        size=(backbone.config.height * STRIDE_PX, backbone.config.width * STRIDE_PX),
        starts=Starts.none(),
    )
    codec = TailCodec(parts.codec, lively=sessions)
    hears = Voice(parts.embed, backbone, pool.device, left_out=parts.left_out)
    return World(origin, backbone=backbone, codec=codec, plan=plan, pool=pool, hears=hears)


def pool_for(
    backbone: WanBackbone | MatrixGameBackbone, plan: VideoPlan, *, sessions: int, keeping: Keeping
) -> PagePool:
    """The pages of a world of that backbone, where it lies; arguments and errors as assemble_wan."""
    weight, pages = backbone.head.head.weight, pages_of(plan, sessions=sessions)
    check_keeping(backbone.pages, plan, keeping, pages=pages, dtype=weight.dtype)
    return PagePool(
        backbone.pages,
        pages=pages,
        dtype=weight.dtype,
        device=weight.device,
        storage=keeping.storage,
        tiers=keeping.tiers,
    )
