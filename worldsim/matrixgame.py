"""Worlds of Matrix-Game 2: recipes for its public weights, and how a world is made of them.

A folder of weights holds a transformer, the codec (Wan2.1_VAE.pth) and the image encoder
(models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth); as published transformers lie in folders beside those two.

Such a world begins from a picture and is steered by keys. A latent frame stands for four moments and is steered by what
was held at twelve: the first three of its own and the nine before. Its last moment steers from the next frame on, and
that of a block from the next block on, as the weights were trained: of the twelve moments of a block eleven show in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.cache.policy import Policy, Window
from worldsim.codec.choice import CodecChoice
from worldsim.codec.tail import ForgetfulCodec, TailCodec
from worldsim.controls import Action, Controls, Rows
from worldsim.decoding.noise_plan import PLAIN, NoisePlan, noise_text
from worldsim.decoding.plan import VideoPlan
from worldsim.errors import ConfigError, NotShipped, WeightsError
from worldsim.keeping import Keeping
from worldsim.models.matrixgame.backbone import MatrixGameBackbone
from worldsim.models.matrixgame.condition import MOST, PictureCodec, cut_picture, picture_condition
from worldsim.models.matrixgame.config import ROWS, MatrixGameConfig, matrixgame_config
from worldsim.models.matrixgame.kinds import matrixgame_config_of, wanted_shapes
from worldsim.models.matrixgame.sight import PUBLISHED as CLIP
from worldsim.models.matrixgame.sight import REPOSITORY, Sight, load_sight
from worldsim.models.wan.config import STRIDE_PX
from worldsim.models.wan.hub import hub_name, local_path
from worldsim.models.wan.weights import Weights, load_tensors
from worldsim.pictures import open_picture
from worldsim.runtime.starts import Starts
from worldsim.runtime.voice import Eye
from worldsim.runtime.world import Origin, World
from worldsim.samplers import few_step
from worldsim.schedules import shift_sigma
from worldsim.wan import dtype_on, fill_backbone, identity_of, pool_for
from worldsim.wan_room import Check

if TYPE_CHECKING:
    from PIL import Image

FPS = 12
"""Frames in one second of world time: at which the published program writes its videos."""
SIZE_PX = (352, 640)
FRAMES_PER_BLOCK = 3
GROUP = 4
"""Moments that a latent frame stands for."""
TURN = 0.1
"""How far the mouse moves in one moment while a key turns the view, as the published program takes it."""
BESIDE = ("Wan2.1_VAE.pth", CLIP)
"""What the transformers have in common."""


def _steered(idle: tuple[float, ...], *actions: Action, exclusive: bool = False) -> Controls:
    rows = Rows(idle=idle, count=ROWS, step=GROUP)
    return Controls(actions=actions, exclusive=exclusive, rows=rows)


UNIVERSAL = _steered(
    (0.0,) * 6,
    Action(name="forward", keys=("KeyW",), adds=(1, 0, 0, 0, 0, 0)),
    Action(name="back", keys=("KeyS",), adds=(0, 1, 0, 0, 0, 0)),
    Action(name="left", keys=("KeyA",), adds=(0, 0, 1, 0, 0, 0)),
    Action(name="right", keys=("KeyD",), adds=(0, 0, 0, 1, 0, 0)),
    Action(name="look_up", keys=("KeyI", "ArrowUp"), adds=(0, 0, 0, 0, TURN, 0)),
    Action(name="look_down", keys=("KeyK", "ArrowDown"), adds=(0, 0, 0, 0, -TURN, 0)),
    Action(name="look_left", keys=("KeyJ", "ArrowLeft"), adds=(0, 0, 0, 0, 0, -TURN)),
    Action(name="look_right", keys=("KeyL", "ArrowRight"), adds=(0, 0, 0, 0, 0, TURN)),
)
GTA = _steered(
    (0.0,) * 4,
    Action(name="forward", keys=("KeyW", "ArrowUp"), adds=(1, 0, 0, 0)),
    Action(name="back", keys=("KeyS", "ArrowDown"), adds=(0, 1, 0, 0)),
    Action(name="steer_left", keys=("KeyA", "ArrowLeft"), adds=(0, 0, 0, -TURN)),
    Action(name="steer_right", keys=("KeyD", "ArrowRight"), adds=(0, 0, 0, TURN)),
)
TEMPLERUN = _steered(
    (1.0, 0, 0, 0, 0, 0, 0),  # not to move is an action of its own
    Action(name="jump", keys=("KeyW", "ArrowUp"), adds=(0, 1, 0, 0, 0, 0, 0)),
    Action(name="slide", keys=("KeyS", "ArrowDown"), adds=(0, 0, 1, 0, 0, 0, 0)),
    Action(name="turn_left", keys=("KeyZ",), adds=(0, 0, 0, 1, 0, 0, 0)),
    Action(name="turn_right", keys=("KeyC",), adds=(0, 0, 0, 0, 1, 0, 0)),
    Action(name="step_left", keys=("KeyA", "ArrowLeft"), adds=(0, 0, 0, 0, 0, 1, 0)),
    Action(name="step_right", keys=("KeyD", "ArrowRight"), adds=(0, 0, 0, 0, 0, 0, 1)),
    exclusive=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixGameRecipe:
    """All that tells the published models apart, beside their weights.

    Args:
        name: of the world.
        kind: one of worldsim.models.matrixgame.config.KINDS.
        folder: where its transformer lies in the repository.
        controls: what can be done in it.
        times: at which a block is denoised, before they are shifted; the commit at 0 left out.
        policy: what a block sees of the past.
        published: what was published of its speed, if anything was.
    """

    name: str
    kind: str
    folder: str
    controls: Controls
    times: tuple[int, ...]
    policy: Policy
    published: str = "25 frames a second of 640x352 on one H100, said of Matrix-Game 2 as a whole"
    source: str = "Matrix-Game 2.0, He et al. 2025 (arXiv:2508.13009)"

    @property
    def weights(self) -> str:
        """Where they are found, as `load` takes them."""
        return f"{REPOSITORY}:{self.folder}"

    @property
    def frames_per_block(self) -> int:
        """Latent frames decided together."""
        return FRAMES_PER_BLOCK

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Levels of a block, as published: times out of 1,000, shifted by 5."""
        return tuple(shift_sigma(time / 1000, 5.0) for time in self.times)

    def config(self, size: tuple[int, int]) -> MatrixGameConfig:
        """The size of its backbone, for pictures of (height, width) pixels; ConfigError if those do not divide."""
        return matrixgame_config(self.kind, height_px=size[0], width_px=size[1], frames_per_block=FRAMES_PER_BLOCK)

    def plan(self, *, noise: NoisePlan = PLAIN, **changed: Any) -> VideoPlan:
        """How its blocks are made, but for what was chosen otherwise; noise in the published order is its own.

        Raises:
            ConfigError: on_prompt was chosen, or noise of other levels.
        """
        if not noise.is_level:
            raise ConfigError(
                f"{self.name} begins with no frame before its first, so that it has to begin as noise alone, got noise "
                f"{noise_text(noise)}; choose plain, shuffled or published"
            )
        if "on_prompt" in changed:
            raise ConfigError(
                f"{self.name} is steered by keys alone, so that no prompt changes it; leave on_prompt out"
            )
        plan = VideoPlan(
            frames_per_block=FRAMES_PER_BLOCK,
            sigmas=self.sigmas,
            sampler=few_step,
            policy=self.policy,
            from_nothing=True,
            noise=replace(noise, channels_first=noise.published > 0),
        )
        return replace(plan, **changed)


RECIPES: Mapping[str, MatrixGameRecipe] = {
    recipe.name: recipe
    for recipe in (
        MatrixGameRecipe(
            name="matrix-game-2-universal",
            kind="universal",
            folder="base_distilled_model",
            controls=UNIVERSAL,
            times=(1000, 666, 333),
            # Six frames, those of the block among them; of the next one four.
            policy=Window(frames=3),
        ),
        MatrixGameRecipe(
            name="matrix-game-2-gta",
            kind="gta_drive",
            folder="gta_distilled_model",
            controls=GTA,
            times=(1000, 666, 333),
            policy=Window(frames=1),
        ),
        MatrixGameRecipe(
            name="matrix-game-2-templerun",
            kind="templerun",
            folder="templerun_distilled_model",
            controls=TEMPLERUN,
            times=(1000, 750, 500, 250),
            policy=Window(frames=3),
        ),
    )
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MatrixGameParts:
    """What such a world is made of.

    backbone: in evaluation mode.
    codec: pixels to latents and back.
    see: what the backbone hears of a picture uint8 [H, W, 3].
    identity: SHA-256 that tells its weights from others.
    chosen: as of an Origin.
    """

    backbone: MatrixGameBackbone
    codec: ForgetfulCodec
    see: Callable[[Tensor], Tensor]
    identity: str
    chosen: Mapping[str, Any] = field(default_factory=dict)


def load_parts(
    recipe: MatrixGameRecipe,
    source: str | Path | None,
    *,
    size: tuple[int, int],
    device: torch.device,
    preview: Path | None = None,
    check: Check = lambda config, dtype: False,
) -> MatrixGameParts:
    """The parts of a world from public weights, each read lazily; see worldsim.wan.dtype_on for what they compute in.

    Args:
        recipe: of the world.
        source: where the weights are, see the module: the folder as published, that of the transformer, its file, or a
            name on the hub, such as recipe.weights.
        size: (height, width) of the pictures in pixels.
        device: where backbone and codec go; the image encoder stays on the CPU.
        preview: a file of the tiny decoder, which makes pictures of latents in place of the codec's own.
        check: asked before anything is allocated, see worldsim.wan_room.

    Raises:
        NotShipped: no source is named.
        WeightsError: something is missing, torn or of another model.
        MissingDependency: diffusers or transformers is not installed.
    """
    if source is None:
        raise NotShipped(
            f"the weights of {recipe.name} are public and not in the package: put {recipe.weights} into a folder, with "
            f"{' and '.join(BESIDE)} of {REPOSITORY} beside it, and name it: weights=DIR or --weights DIR; or "
            f"have all of it brought from the hub: --weights {recipe.weights}"
        )
    path = _brought(recipe, source)
    dtype, home = dtype_on(device), _home(path)
    weights, config = open_backbone(recipe, path, size=size)
    choice = CodecChoice(preview=preview, offload=check(config, dtype))
    sight = load_sight(home, dtype=torch.bfloat16, device=torch.device("cpu"))
    encoder, shown = choice.load(home, device=device, dtype=dtype)
    with torch.device("meta"):
        empty = MatrixGameBackbone(_seeing(config, sight, path))
    backbone = fill_backbone(empty, weights, device=device, dtype=dtype)
    return MatrixGameParts(
        backbone=backbone,
        codec=shown,
        see=partial(_heard, backbone, sight, encoder),
        identity=identity_of(weights),
        chosen={"offload": choice.offload},
    )


def open_backbone(recipe: MatrixGameRecipe, path: Path, *, size: tuple[int, int]) -> tuple[Weights, MatrixGameConfig]:
    """The tensors of a recipe's backbone, none of them read yet, and its size; errors as load_parts."""
    path = path / recipe.folder if (path / recipe.folder).is_dir() else path
    # A file of two sets is of another family, and is told as that.
    weights = load_tensors(path, ema=False)
    config = matrixgame_config_of(weights.shapes, recipe.kind, path)
    weights.check(wanted_shapes(config), path)
    height, width = (side // STRIDE_PX for side in size)
    return weights, replace(config, wan=replace(config.wan, height=height, width=width))


def assemble_matrixgame(
    recipe: MatrixGameRecipe,
    plan: VideoPlan,
    parts: MatrixGameParts,
    *,
    sessions: int = 1,
    keeping: Keeping | None = None,
) -> World:
    """A world from its parts; arguments and errors as worldsim.wan.assemble_wan."""
    wan = parts.backbone.config.wan
    origin = Origin(
        name=recipe.name,
        weights=parts.identity,
        chosen=parts.chosen,
        controls=recipe.controls,
        fps=FPS,
        size=(wan.height * STRIDE_PX, wan.width * STRIDE_PX),
        starts=Starts.none(),
    )
    return World(
        origin,
        backbone=parts.backbone,
        codec=TailCodec(parts.codec, lively=sessions),
        plan=plan,
        pool=pool_for(parts.backbone, plan, sessions=sessions, keeping=keeping or Keeping()),
        hears=Eye(parts.see),
    )


def fit_picture(picture: str | Path | Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as such a world begins from it, uint8 [1, H, W, 3], cut and resized as published.

    Args:
        picture: a file, or an opened picture of Pillow; see cut_picture.
        size: (height, width) in pixels.

    Raises:
        ConfigError: it is no picture, or none that can be read.
        MissingDependency: Pillow is not installed.
    """
    if isinstance(picture, str | Path):
        picture = open_picture(Path(picture))
    return cut_picture(picture, size).numpy()[None]


def _heard(backbone: MatrixGameBackbone, sight: Sight, codec: PictureCodec, picture: Tensor) -> Tensor:
    """What a backbone hears of a picture uint8 [H, W, 3], as many numbers of every picture."""
    beside = picture_condition(picture, codec).channels(0, MOST + 1)
    return backbone.hear(sight.see(picture), beside)


def _seeing(config: MatrixGameConfig, sight: Sight, path: Path) -> MatrixGameConfig:
    """The size of a backbone that is shown what that image encoder sees; WeightsError if it cannot be."""
    tokens, width = sight.shape
    if width != config.wan.text_dim:
        raise WeightsError(
            f"{path} is shown pictures as tokens of {config.wan.text_dim} numbers, and the image encoder beside it "
            f"sees {width}; get {BESIDE[1]} of {REPOSITORY}"
        )
    return replace(config, wan=replace(config.wan, text_length=tokens))


def _brought(recipe: MatrixGameRecipe, source: str | Path) -> Path:
    """The path of a source, which is brought from the hub with what lies beside it if it is a name there."""
    if (named := hub_name(source)) is None:
        return local_path(source)
    repository = named["repository"]
    path = local_path(source if named["file"] else f"{repository}:{recipe.folder}")
    for file in BESIDE:
        local_path(f"{repository}:{file}")
    return path


def _home(path: Path) -> Path:
    """The folder of codec and image encoder: that of the transformer, or the one above."""
    near = path if path.is_dir() else path.parent
    return next((place for place in (near, near.parent) if any((place / file).exists() for file in BESIDE)), near)
