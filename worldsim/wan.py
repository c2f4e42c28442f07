"""Worlds of the Wan family: recipes for public weights, and how a world is made of them.

A folder of weights holds a transformer (an original .pt, safetensors, or what `worldsim convert` wrote), the codec
(Wan2.1_VAE.pth, or vae/ of diffusers) and the text encoder (models_t5_umt5-xxl-enc-bf16.pth with google/umt5-xxl/, or
text_encoder/ and tokenizer/).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldsim.cache.policy import Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool
from worldsim.codec.preview import PreviewCodec
from worldsim.codec.taehv import load_taehv_codec
from worldsim.codec.tail import ForgetfulCodec, TailCodec
from worldsim.codec.wan_weights import load_wan_codec
from worldsim.controls import Controls
from worldsim.decoding.prompting import KEEP, PromptChange
from worldsim.decoding.rolling import Rolling
from worldsim.decoding.video import VideoPlan
from worldsim.errors import ConfigError, NotShipped
from worldsim.keeping import Keeping, check_budget, check_pages
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import STRIDE_PX, WanConfig, wan_config
from worldsim.models.wan.hub import local_path
from worldsim.models.wan.kinds import wan_config_of
from worldsim.models.wan.stored import CARD, CONFIG, read_card, read_config, wanted_shapes
from worldsim.models.wan.text import load_text
from worldsim.models.wan.weights import Weights, check_state, load_tensors
from worldsim.runtime.devices import is_gpu
from worldsim.runtime.starts import Starts
from worldsim.runtime.world import Origin, World
from worldsim.samplers import few_step
from worldsim.schedules import few_step_sigmas

FPS = 16
SIZE_PX = (480, 832)
SPARE_BLOCKS = 4
"""Blocks that a pool holds beyond what one session sees: for the one in the making, and for others and moments."""


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
        lora: the file beside the weights that is merged into them, if there is one.
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

    def plan(self, **changed: Any) -> VideoPlan:
        """How its blocks are made, but for what was chosen otherwise; another policy is that of every call."""
        plan = VideoPlan(
            frames_per_block=self.frames_per_block,
            sigmas=self.sigmas,
            sampler=few_step,
            policy=self.policy,
            from_nothing=True,
            on_prompt=self.on_prompt,
            rolling=Rolling() if self.rolling and "policy" in changed else self.rolling,
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
            weights="tianweiy/CausVid:autoregressive_checkpoint/model.pt",
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
    """

    backbone: WanBackbone
    codec: ForgetfulCodec
    embed: Callable[[str], Tensor]
    identity: str


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) in pixels of a text such as "832x480", width first as videos are told.

    Raises:
        ConfigError: it is no such text, or the pictures do not divide into tokens of the family.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not found:
        raise ConfigError(f"a size is a width and a height in pixels, such as 832x480, got {text!r:.80}")
    width, height = int(found[1]), int(found[2])
    wan_config("tiny", height_px=height, width_px=width)
    return height, width


def load_parts(
    recipe: WanRecipe,
    folder: str | Path | None,
    *,
    size: tuple[int, int],
    device: torch.device,
    preview: str | Path | None = None,
) -> WanParts:
    """The parts of a world from public weights, each read lazily; bfloat16 on a GPU, float32 elsewhere.

    Args:
        recipe: of the world.
        folder: where the weights are, see the module; or their name on the hub.
        size: (height, width) of the pictures in pixels.
        device: where backbone and codec go; the text encoder stays on the CPU.
        preview: a file of the tiny decoder (taew2_1.pth), in place of the codec's own decoder.

    Raises:
        NotShipped: no folder is named.
        WeightsError: something is missing, torn or of another model.
        MissingDependency: diffusers or transformers is not installed.
    """
    if folder is None:
        raise NotShipped(
            f"the weights of {recipe.name} are public and not in the package: put {recipe.weights} into a folder, with "
            "the codec and the text encoder of Wan-AI/Wan2.1-T2V-1.3B beside it, and name that as weights"
        )
    path = local_path(folder)
    dtype = torch.bfloat16 if is_gpu(device) else torch.float32
    home = path if path.is_dir() else path.parent
    text = load_text(home, dtype=torch.bfloat16, device=torch.device("cpu"))
    codec: ForgetfulCodec = load_wan_codec(home, device=device, dtype=dtype)
    if preview is not None:
        codec = PreviewCodec(codec, load_taehv_codec(Path(preview), device=device, dtype=dtype))
    backbone, identity = load_backbone(recipe, path, size=size, device=device, dtype=dtype)
    return WanParts(backbone=backbone, codec=codec, embed=text.encode, identity=identity)


def load_backbone(
    recipe: WanRecipe, path: Path, *, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> tuple[WanBackbone, str]:
    """The backbone of a recipe from a file or folder, and what tells its weights from others; see load_parts."""
    home = path if path.is_dir() else path.parent
    lora = None if recipe.lora is None or (home / CONFIG).is_file() else home / recipe.lora
    weights = load_tensors(path, ema=recipe.ema, lora=lora)
    told = (home / CONFIG).is_file() and (home / CARD).is_file()
    config = _sized(read_config(home)[0] if told else wan_config_of(weights.shapes, path), size, recipe)
    check_state(weights.shapes, wanted_shapes(config), path)
    with torch.device("meta"):
        backbone = WanBackbone(config)
    backbone.load_state_dict({name: weights[name].to(device, dtype) for name in weights}, assign=True)
    return backbone.eval().requires_grad_(False), _identity(weights, read_card(home) if told else None)


def _sized(config: WanConfig, size: tuple[int, int], recipe: WanRecipe) -> WanConfig:
    height, width = (side // STRIDE_PX for side in size)
    return replace(config, height=height, width=width, frames_per_block=recipe.frames_per_block)


def _identity(weights: Weights, card: Mapping[str, Any] | None) -> str:
    """SHA-256 over those of all files that the weights come from."""
    if card is not None:
        found = [str(file["sha256"]) for kind in ("files", "merged") for file in card[kind]]
    else:
        found = []
        for path in (*weights.origin.files, *weights.origin.merged):
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256(" ".join(found).encode()).hexdigest()


def pages_of(plan: VideoPlan, *, sessions: int) -> int:
    """The frames that a pool holds for so many sessions; ConfigError if there is no end to what one holds."""
    if plan.policy.limit is None:
        raise ConfigError("keys and values of this family take too much to hold all; choose a policy with a bound")
    return sessions * plan.policy.limit + SPARE_BLOCKS * plan.frames_per_block + plan.on_prompt.anew


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
    keeping, backbone = keeping or Keeping(), parts.backbone
    weight = backbone.head.head.weight
    pool = PagePool(
        backbone.pages,
        pages=pages_of(plan, sessions=sessions),
        dtype=weight.dtype,
        device=weight.device,
        storage=keeping.storage,
        tiers=keeping.tiers,
    )
    check_pages(pool, plan)
    if keeping.tiers is not None:
        check_budget(pool, plan, keeping.tiers.budget.device)
    height, width = (side * STRIDE_PX for side in (backbone.config.height, backbone.config.width))
    origin = Origin(
        name=recipe.name,
        weights=parts.identity,
        controls=Controls(actions=(), exclusive=False),
        fps=FPS,
        size=(height, width),
        starts=Starts.none(),
    )
    codec = TailCodec(parts.codec, lively=sessions)
    return World(origin, backbone=backbone, codec=codec, plan=plan, pool=pool, embed=parts.embed)
