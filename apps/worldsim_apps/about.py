"""What is known of a world, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldsim.controls import Controls
    from worldsim.decoding.plan import VideoPlan
    from worldsim.presets import WorldRecipe
    from worldsim.published import Recipe
    from worldsim.session.log import SessionLog
    from worldsim.wan import WanRecipe
    from worldsim_apps.actions import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is known of a world before its weights are read, which may take minutes.

    size: (height, width) of a frame in pixels.
    is_told: whether it is told in words what to show.
    needs_picture: whether a walk through it begins from a picture.
    has_starts: whether it may come with starting places.
    """

    name: str
    controls: Controls
    size: tuple[int, int]
    is_told: bool
    needs_picture: bool
    has_starts: bool


def ahead_of(name: str, size: str | None, device: str = "auto") -> Ahead:
    """What is known of a world of that size, its own if None, on a device of that name.

    Raises:
        UnknownName: there is no such world, or no such device.
        ConfigError: it is no size, or one that the world cannot have, or that there is no memory for.
    """
    from worldsim.published import PUBLISHED, check_room, controls_of, size_of
    from worldsim.runtime.devices import pick_device
    from worldsim.wan import WanRecipe

    if (recipe := PUBLISHED.get(name)) is None:
        engine = _bundled(name).simulator()
        controls, pixels, is_told, needs_picture = engine.controls, engine.size, False, False
    else:
        controls, pixels, is_told = controls_of(recipe), size_of(recipe, size), isinstance(recipe, WanRecipe)
        check_room(recipe, pixels, pick_device(device))
        needs_picture = not is_told
    return Ahead(
        name=name,
        controls=controls,
        size=pixels,
        is_told=is_told,
        needs_picture=needs_picture,
        has_starts=recipe is None,
    )


def ahead_of_log(log: SessionLog, device: str = "auto") -> Ahead:
    """What is known of the world that a log is of; errors as for ahead_of, and LogError if its size is not told."""
    from worldsim.published import PUBLISHED, settings_of

    opening = log.opening
    recipe = PUBLISHED.get(opening.world)
    size = None if recipe is None else settings_of(recipe, opening.plan)["size"]
    return ahead_of(opening.world, size, device)


def past_of(name: str, policy: str | None) -> tuple[int, int]:
    """The most latent frames of a past that a world of that policy holds, its own if None, and the frames of each.

    Raises:
        UnknownName, ConfigError: there is no such world or policy, or none of that world: see wan_memory.pages_of.
    """
    from worldsim.cache.policies import parse_policy
    from worldsim.matrixgame import GROUP
    from worldsim.presets import WorldRecipe
    from worldsim.published import PUBLISHED
    from worldsim.wan_memory import pages_of

    recipe = PUBLISHED.get(name) or _bundled(name)
    chosen = recipe.policy if policy is None else parse_policy(policy)
    if isinstance(recipe, WorldRecipe):
        return recipe.pages if chosen.limit is None else chosen.limit, recipe.codec.group
    pages = pages_of(recipe.plan(policy=chosen), sessions=1)
    return min(chosen.limit or pages, pages), GROUP


def pace_of(name: str, frames_per_block: int | None, *, goes_on: bool) -> Pace:
    """How the blocks of a walk through a world follow each other.

    Args:
        name: of the world.
        frames_per_block: of a world that is learned here, as `load` takes them.
        goes_on: whether it begins from a picture or from a video.

    Raises:
        UnknownName, ConfigError: there is no such world, or it makes no blocks of so many frames.
    """
    from worldsim.matrixgame import GROUP
    from worldsim.published import PUBLISHED, fps_of
    from worldsim.wan import WanRecipe
    from worldsim_apps.actions import Pace

    if (recipe := PUBLISHED.get(name)) is None:
        engine = _bundled(name)
        return Pace(
            fps=engine.simulator().fps, frames=engine.check_block(1 if frames_per_block is None else frames_per_block)
        )
    # The first latent frame of all is one picture, which Wan worlds are given and Matrix-Game makes after its own.
    lacking = 0 if goes_on and isinstance(recipe, WanRecipe) else GROUP - 1
    return Pace(fps=fps_of(recipe), frames=recipe.frames_per_block * GROUP, lacking=lacking)


def _bundled(name: str) -> WorldRecipe:
    from worldsim.errors import UnknownName
    from worldsim.presets import WORLDS
    from worldsim.published import PUBLISHED

    if name not in WORLDS:
        raise UnknownName("world", name, (*WORLDS, *PUBLISHED))
    return WORLDS[name]


def recipe_of(name: str) -> WorldRecipe:
    """The recipe of a world that is learned here; UnknownName if there is none."""
    from worldsim.errors import UnknownName
    from worldsim.presets import WORLDS

    if name not in WORLDS:
        raise UnknownName("world", name, WORLDS)
    return WORLDS[name]


def describe(name: str, size: str | None = None, **chosen: str | Path | None) -> dict[str, Any]:
    """What is known of a world, with its card if its weights are in the package.

    Args:
        name: of the world.
        size: width and height in pixels of a published model, such as "832x480"; its own if None.
        chosen: policy, kv, budget, preview, linears and offload of a published model, as `load` takes them: what it
            then takes.

    Raises:
        UnknownName: there is no such world, policy, code for keys and values or kind of linears.
        ConfigError: it is no size, or one that the world cannot have; a budget that is too small for what is chosen.
    """
    from worldsim.errors import ConfigError, NotShipped
    from worldsim.presets import card
    from worldsim.published import PUBLISHED

    settings = {setting: value for setting, value in chosen.items() if value is not None}
    if name in PUBLISHED:
        return _describe_published(PUBLISHED[name], size, settings)
    recipe = _bundled(name)
    if size is not None:
        raise ConfigError(f"{name} has one size, got size={size}; leave it out")
    if settings:
        given = " and ".join(f"{setting}={value}" for setting, value in settings.items())
        raise ConfigError(f"what {name} takes is small and not planned, got {given}; leave it out")
    engine = recipe.simulator()
    try:
        known = card(name)
    except NotShipped as error:
        known = {"weights": str(error)}
    keys = {action.name: " ".join(action.keys) for action in engine.controls.actions}
    return {"name": name, "fps": engine.fps, "size": _size_text(engine.size), "keys": keys, "card": known}


def wan_recipe(name: str) -> WanRecipe:
    """The recipe of a published model of the Wan family; UnknownName if there is none."""
    from worldsim.errors import UnknownName
    from worldsim.wan import RECIPES

    if name not in RECIPES:
        raise UnknownName("world", name, RECIPES, of="the Wan family")
    return RECIPES[name]


def _describe_published(recipe: Recipe, size: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    from worldsim.cache.policies import parse_policy, policy_text
    from worldsim.decoding.prompting import prompt_change_text
    from worldsim.published import fps_of, size_of
    from worldsim.wan import WanRecipe

    pixels = size_of(recipe, size)
    policy: dict[str, Any] = {"policy": parse_policy(settings["policy"])} if "policy" in settings else {}
    plan = recipe.plan(**policy)
    if isinstance(recipe, WanRecipe):
        steered: dict[str, Any] = {"on_prompt": prompt_change_text(recipe.on_prompt)}
    else:
        keys = {action.name: " ".join(action.keys) for action in recipe.controls.actions}
        steered = {"begins from": "a picture, --image", "keys": keys}
    return {
        "name": recipe.name,
        "source": recipe.source,
        "published": recipe.published or "nothing of its speed",
        "weights": recipe.weights,
        "fps": fps_of(recipe),
        "size": _size_text(pixels),
        "frames_per_block": recipe.frames_per_block,
        "sigmas": [round(sigma, 4) for sigma in recipe.sigmas],
        "policy": policy_text(plan.policy),
        **{name: settings[name] for name in ("kv", "budget") if name in settings},
        **steered,
        "memory": _memory(recipe, plan, pixels, settings),
    }


def _size_text(size: tuple[int, int]) -> str:
    """A size of (height, width) as --size takes it."""
    height, width = size
    return f"{width}x{height}"


def _memory(recipe: Recipe, plan: VideoPlan, pixels: tuple[int, int], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What it takes on a GPU, in bfloat16: a text for each part, with the codec and with the tiny decoder.

    With the tiny decoder alone if that is chosen.
    """
    import torch

    from worldsim.cache.quant import parse_storage
    from worldsim.errors import MissingDependency, UnknownName
    from worldsim.keeping import Keeping, check_keeping, tiers_of
    from worldsim.wan import plan_memory
    from worldsim.wan_memory import Shortcuts, pages_of

    if (linears := settings.get("linears")) not in (None, "fp8"):
        raise UnknownName("way of linear layers to multiply on a GPU", linears, ["fp8"])

    # Wherever this runs, a budget is read as of a GPU: what is beyond it lies in host memory.
    tiers = tiers_of(settings.get("budget"), None, torch.device("meta"))
    keeping = Keeping(storage=parse_storage(settings["kv"]) if "kv" in settings else None, tiers=tiers)
    dtype, pages = torch.bfloat16, pages_of(plan, sessions=1)
    check_keeping(recipe.config(pixels).pages, plan, keeping, pages=pages, dtype=dtype)
    found: dict[str, Any] = {}
    for label, preview in (("with its codec", False), ("with a preview", True)):
        if "preview" in settings and not preview:
            continue
        try:
            fast = Shortcuts(preview=preview, linears=linears, offload=bool(settings.get("offload")))
            parts = plan_memory(recipe, plan, size=pixels, dtype=dtype, shortcuts=fast, keeping=keeping)
        except MissingDependency as error:
            return {"not planned": str(error)}
        rows = (line.split("  ", 1) for line in parts.lines())
        found[label] = {part: size.strip() for part, size in rows}
    return found


def lines_of(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    """The fields as lines of text, those of fields within them indented."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from lines_of(value, indent + "  ")
        else:
            yield f"{indent}{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
