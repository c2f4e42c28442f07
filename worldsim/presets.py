"""The worlds that worldsim knows, each a complete recipe: what was recorded, how it is trained, how it is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch

from worldsim import plans
from worldsim.cache.policies import parse_policy, policy_text
from worldsim.cache.policy import Policy, Window
from worldsim.cache.pool import PagePool, Storage
from worldsim.cache.quant import parse_storage
from worldsim.cache.tiers import Tiers
from worldsim.codec.patches import PatchCodec
from worldsim.decoding.noise_plan import NoisePlan, parse_noise
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange, parse_prompt_change
from worldsim.errors import ConfigError, LogError, NotShipped, UnknownName, WeightsError, shown, whole
from worldsim.files import path_of
from worldsim.keeping import Keeping, check_keeping, tiers_of
from worldsim.models.protocol import Codec
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallConfig
from worldsim.models.small.weights import load_weights
from worldsim.published import PUBLISHED, Place, Recipe, check_preview, load_published, settings_of, size_of
from worldsim.runtime.devices import is_gpu, pick_device
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import read_snapshot
from worldsim.runtime.starts import Starts
from worldsim.runtime.world import Origin, World
from worldsim.samplers import Sampler, few_step
from worldsim.schedules import few_step_sigmas
from worldsim.session.log import SessionLog, plan_told
from worldsim.simulators.crafter import Crafter
from worldsim.simulators.crafter_explorer import CrafterExplorer
from worldsim.simulators.maze import Maze
from worldsim.simulators.maze_explorer import MazeExplorer
from worldsim.simulators.protocol import Explorer, Simulator
from worldsim.training.data import Recording
from worldsim.training.run import Kind
from worldsim.training.trainer import TrainingPlan

ASSETS = Path(str(files("worldsim"))) / "assets"
WEIGHTS, CARD = "weights.safetensors", "card.json"
"""Of a world in the package, in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldRecipe:
    """All that makes one world.

    Args:
        simulator: makes the real engine as a user meets it.
        recording: what is played for training.
        codec: its codec.
        backbone: size of its network.
        training: how it is trained.
        onward: how weights that know the world learn more of it on a CPU; as they were trained if None. A stage that
            shows a block one frame would undo what they learned of the past.
        recalling: how weights that know the world, but remember no places, learn to recall them; None if none can.
        training_on_gpu, onward_on_gpu: how it is trained on a GPU, if otherwise: a CPU learns as fast from small
            batches as from large ones, a GPU idles on them.
        policy: what a block sees of the past, unless another is chosen.
        steps: backbone calls that denoise a block, unless another number is chosen; the clean pass comes on top.
        shift: of the noise levels of those steps, see few_step_sigmas.
        sampler: takes a block from one level to the next.
        blocks: the block lengths it was trained for, in frames.
        pages: frames of keys and values that all sessions of one loaded world may hold together.
    """

    name: str
    simulator: Callable[[], Simulator]
    recording: Recording
    codec: Codec[Any]
    backbone: SmallConfig
    training: TrainingPlan
    policy: Policy
    onward: TrainingPlan | None = None
    recalling: TrainingPlan | None = None
    training_on_gpu: TrainingPlan | None = None
    onward_on_gpu: TrainingPlan | None = None
    steps: int = 3
    shift: float = 0.5
    sampler: Sampler = few_step
    blocks: tuple[int, ...] = (1, 2, 4)
    pages: int = 2_048

    def plan_for(self, device: torch.device, kind: Kind = "anew") -> TrainingPlan:
        """How it is trained on that device, or learns to recall on any; ConfigError if it cannot."""
        if kind == "recalling":
            if self.recalling is None:
                raise ConfigError(f"{self.name} remembers no places; train it without --recalling")
            return self.recalling
        anew, onward = self.training, self.onward
        if is_gpu(device):
            anew, onward = self.training_on_gpu or anew, self.onward_on_gpu or onward
        return onward if kind == "onward" and onward else anew

    def plan(self, frames_per_block: int | None, steps: int | None, *, recall: bool) -> VideoPlan:
        """How its blocks are made, of so many frames by so many calls; its own where None."""
        return VideoPlan(
            frames_per_block=self.check_block(1 if frames_per_block is None else frames_per_block),
            sigmas=few_step_sigmas(self.steps if steps is None else whole(steps, "steps is an integer"), self.shift),
            sampler=self.sampler,
            policy=self.policy,
            draw=bool(self.backbone.palette),
            recall=recall,
        )

    def check_block(self, frames: int) -> int:
        """That many frames; ConfigError if it was not trained for blocks of them."""
        known = f"{self.name} makes blocks of {', '.join(map(str, self.blocks))} frames"
        if (number := whole(frames, known)) not in self.blocks:
            raise ConfigError(f"{known}, got frames_per_block={shown(frames)}")
        return number

    @property
    def folder(self) -> Path:
        """Where its weights, card and starting places lie in the package."""
        return ASSETS / self.name


AFTER_DEATH = 400
"""How many frames without health an episode holds: a day and a night."""


def crafter_for_recording() -> Crafter:
    """Crafter with hours, places and inventories drawn anew for each episode, calm nights, and deaths lived through."""
    return Crafter(varied=True, calm=True, grace=AFTER_DEATH)


def explore_crafter(simulator: Simulator, seed: int) -> Explorer:
    """The player of a recorded episode of Crafter."""
    assert isinstance(simulator, Crafter)
    return CrafterExplorer(simulator, seed)


CRAFTER_UNLIKELY = (0.02,) * 7 + (0.5,) * 2
"""What enters the view is drawn in all its variety; what follows from a key is what most likely follows."""

CRAFTER_MOVES = tuple(
    (Crafter.controls.number(name), rows, columns)
    for name, rows, columns in (("move_left", 0, -1), ("move_right", 0, 1), ("move_up", -1, 0), ("move_down", 1, 0))
)

CRAFTER = WorldRecipe(
    name="crafter",
    simulator=Crafter,
    recording=Recording(world="crafter", simulator=crafter_for_recording, explorer=explore_crafter),
    codec=PatchCodec(side=8),
    backbone=SmallConfig(
        channels=192,
        height=9,
        width=9,
        controls=len(Crafter.controls),
        layers=6,
        head_dim=32,
        palette=576,
        unlikely=CRAFTER_UNLIKELY,
        glance=16,
        scroll=Scroll(rows=7, body=(3, 4), moves=CRAFTER_MOVES),
    ),
    training=plans.CRAFTER_TRAINING,
    onward=plans.CRAFTER_ONWARD,
    recalling=plans.CRAFTER_RECALLING,
    training_on_gpu=plans.CRAFTER_ON_GPU,
    onward_on_gpu=plans.CRAFTER_ONWARD_ON_GPU,
    policy=Window(frames=32),
    steps=2,
    shift=1.0,
)


def explore_maze(simulator: Simulator, seed: int) -> Explorer:
    """The player of a recorded walk through the maze."""
    assert isinstance(simulator, Maze)
    return MazeExplorer(simulator, seed)


MAZE = WorldRecipe(
    name="maze",
    simulator=Maze,
    recording=Recording(world="maze", simulator=Maze, explorer=explore_maze),
    codec=PatchCodec(side=8),
    backbone=SmallConfig(channels=192, height=12, width=16, controls=len(Maze.controls), dim=384, layers=8, heads=6),
    training=plans.MAZE_TRAINING,
    policy=Window(frames=12),
)

WORLDS: dict[str, WorldRecipe] = {recipe.name: recipe for recipe in (CRAFTER, MAZE)}


def load(
    name: str,
    *,
    device: str = "auto",
    policy: str | Policy | None = None,
    steps: int | None = None,
    frames_per_block: int | None = None,
    weights: Path | str | None = None,
    kv: str | Storage | None = None,
    recall: bool = True,
    noise: str | NoisePlan = "plain",
    clean_pass: bool = True,
    budget: str | int | None = None,
    spill: Path | str | None = None,
    size: str | None = None,
    on_prompt: str | PromptChange | None = None,
    preview: Path | str | None = None,
    sessions: int | None = None,
    compiled: bool = False,
    linears: str | None = None,
    offload: bool | None = None,
) -> World:
    """A world, ready to be opened.

    Args:
        name: one of WORLDS, or of worldsim.published.PUBLISHED, whose public weights must be there.
        device: "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N".
        policy: what a block sees of the past: a policy, or its name as in "window:frames=24"; the world's own if None.
            One of your own has a repr that tells it apart, see worldsim.cache.policy.Policy.
        steps: backbone calls that denoise a block, at least 1; the world's own if None.
        frames_per_block: frames made together: a block length the world was trained for; 1, or its own one, if None.
        weights: a weights file of `worldsim train`; the one in the package if None. Of a published model a folder, a
            file or a name on the hub, see worldsim.wan and worldsim.matrixgame.
        kv: how keys and values of frames that are no longer recent are kept: a storage, or its name as in "int8" or
            "kivi2:recent=16"; exactly if None. What is recent, and so exact, is 8 frames unless it says otherwise.
        recall: let weights that remember places recall them. Off, a block knows of the past what the policy shows.
        noise: how much noise each block begins with, and which: a plan, or its name as in
            "cosine:low=60,high=100,period=32,window=4" or "shuffled:window=4"; as noise alone, its own, if plain.
        clean_pass: let later blocks see what a call on the clean frames of a block tells; off, what its last one did.
        budget: how many bytes of keys and values may lie in memory, as a number or a text such as "256MB"; others lie
            on disk. On a GPU they lie in host memory, up to its own budget if it has one, as in "8GB,32GB". Not for
            processes that are forked off later: in those, reading what sessions hold raises SpillError.
        spill: the folder whose disk takes them, in a file that ends with the process; the system's if None.
        size: width and height in pixels, such as "832x480", of a published model.
        on_prompt: what becomes of the past when the prompt changes: "keep", "flush:sink=1,recent=2",
            "cut:gap=42" or "recache:frames=12"; as the model was published if None.
        sessions: for how many, one more than play in an engine, a published model's memory is planned; 1 if None.
        preview: a file of the tiny decoder TAEHV, which shows frames of a published model faster and less well.
        compiled: compile the layers of a published model: blocks take less time, and the first one more.
        linears: has the layers of a published model multiply in 8 bits: "fp8" on GPUs that do, "int8" on CPUs; exactly
            if None.
        offload: the codec of a published model cuts frames into tiles, and what it carries from frame to frame waits
            in host memory: gigabytes less on the device, and longer. If None, where a GPU has no room otherwise.

    Raises:
        UnknownName: no such world, policy, code for keys and values, noise, change of the prompt, or device.
        ConfigError: a setting that cannot work, or is of another family of worlds.
        NotShipped: the world's weights are not in the package.
        WeightsError: the weights file is torn, foreign, of another shape or of another world.
    """
    where = _place(name, device)
    chosen = _chosen(policy, noise, on_prompt) | {"clean_pass": _switch("clean_pass", clean_pass)}
    fast = _fast(linears, compiled=compiled, offload=offload)
    keeping = _keeping(kv, tiers_of(budget, spill, where))
    if (recipe := PUBLISHED.get(name)) is not None:
        _refuse(name, steps=steps, frames_per_block=frames_per_block)
        place = _published_place(recipe, where, keeping, size=size, preview=preview, sessions=sessions)
        return load_published(recipe, recipe.plan(**chosen), weights, replace(place, **fast))
    _refuse(name, size=size, on_prompt=on_prompt, preview=preview, sessions=sessions, **fast)
    plan = replace(WORLDS[name].plan(frames_per_block, steps, recall=_switch("recall", recall)), **chosen)
    return assemble(WORLDS[name], plan, _weights(WORLDS[name], weights), device=where, keeping=keeping)


def _place(name: str, device: str) -> torch.device:
    """The device of that name; UnknownName unless there is such a world to load there, ConfigError if it is no name."""
    if not isinstance(name, str):
        raise ConfigError(
            f"a world is chosen by its name, one of {', '.join((*WORLDS, *PUBLISHED))}, got {shown(name)}"
        )
    if name not in WORLDS and name not in PUBLISHED:
        raise UnknownName("world", name, (*WORLDS, *PUBLISHED))
    return pick_device(device)


def _published_place(
    recipe: Recipe, device: torch.device, keeping: Keeping, *, size: str | None, sessions: int | None, preview: Any
) -> Place:
    """Where a published model is loaded to; ConfigError if its memory is planned for no session."""
    count = 1 if sessions is None else whole(sessions, "a number of sessions is 1 or more")
    if count < 1:
        raise ConfigError(f"memory is planned for 1 session or more, got sessions={shown(count)}")
    tiny = None if preview is None else path_of(preview, "preview")
    return Place(size=size_of(recipe, size), device=device, preview=tiny, keeping=keeping, sessions=count)


def _fast(linears: str | None, *, compiled: object, offload: object) -> dict[str, Any]:
    """What was chosen of how layers and codec compute, of what is not as ever."""
    away = None if offload is None else _switch("offload", offload)
    chosen = {"linears": linears, "compiled": _switch("compiled", compiled) or None, "offload": away}
    return {name: value for name, value in chosen.items() if value is not None}


def _keeping(kv: str | Storage | None, tiers: Tiers | None) -> Keeping:
    return Keeping(storage=None if kv is None else _named("kv", kv, parse_storage, "code"), tiers=tiers)


def _chosen(
    policy: str | Policy | None, noise: str | NoisePlan, on_prompt: str | PromptChange | None
) -> dict[str, Any]:
    """The parts of a plan that were chosen, read where they are texts."""
    chosen: dict[str, Any] = {"noise": _named("noise", noise, parse_noise, "level")}
    if policy is not None:
        chosen["policy"] = _named("policy", policy, parse_policy, "see")
    if on_prompt is not None:
        chosen["on_prompt"] = _named("on_prompt", on_prompt, parse_prompt_change, "keep")
    return chosen


def _refuse(name: str, **given: object) -> None:
    """Raise ConfigError if anything is given that says nothing to worlds of that family."""
    wrong = [f"{option}={shown(value)}" for option, value in given.items() if value is not None]
    if wrong:
        family = "a published model, with a number of its own" if name in PUBLISHED else "of another family"
        raise ConfigError(f"{' and '.join(wrong)} cannot be chosen for {name}, which is {family}; leave it out")


Choice = TypeVar("Choice")


def _named(name: str, given: str | Choice, parse: Callable[[str], Choice], part: str) -> Choice:
    """What was given, read if it is a text; ConfigError if it is neither that nor something with such a part."""
    made = parse(given) if isinstance(given, str) else given
    if isinstance(made, type) or not hasattr(made, part):
        raise ConfigError(f"{name} is a text, as in the help of load, or what that names, got {shown(made)}")
    return made


def _switch(name: str, given: object) -> bool:
    """The choice that was given; ConfigError if it is none."""
    if not isinstance(given, bool):
        raise ConfigError(f"{name} is True or False, got {shown(given)}")
    return given


def assemble(
    recipe: WorldRecipe,
    plan: VideoPlan,
    weights: Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    keeping: Keeping | None = None,
) -> World:
    """A world from its parts.

    Args:
        recipe: of the world.
        plan: how its blocks are made.
        weights: a weights file of it.
        device: where it lives.
        dtype: in which the backbone computes and keys and values are kept. Whether bfloat16 wins over float32 depends
            on the processor; `python -m benchmarks.decode` measures both.
        keeping: how its pool keeps keys and values; exactly, and all in memory, if None.

    Raises:
        ConfigError: a budget below what one block sees.
        WeightsError: the weights file is torn, foreign, of another shape or of another world.
    """
    backbone = load_weights(weights, dtype=dtype, device=device)
    plan = replace(plan, recall=plan.recall and backbone.config.scroll is not None)
    if (backbone.geometry, backbone.controls) != (recipe.backbone.geometry(), recipe.backbone.controls):
        raise WeightsError(
            f"{weights} is not of {recipe.name}, which has {recipe.backbone.geometry()} and {recipe.backbone.controls} "
            f"controls; it has {backbone.geometry} and {backbone.controls} controls; give the world that it is of"
        )
    places = recipe.folder / "starts.safetensors"
    origin = Origin.learned_from(
        recipe.simulator,
        name=recipe.name,
        weights=_digest(weights),
        starts=Starts.load(places) if places.exists() else Starts.none(),
    )
    keeping = keeping or Keeping()
    check_keeping(backbone.pages, plan, keeping, pages=recipe.pages, dtype=dtype)
    pool = PagePool(
        backbone.pages, pages=recipe.pages, dtype=dtype, device=device, storage=keeping.storage, tiers=keeping.tiers
    )
    return World(origin, backbone=backbone, codec=recipe.codec, plan=plan, pool=pool)


def restore(
    path: Path | str,
    *,
    world: World | None = None,
    device: str = "auto",
    weights: Path | str | None = None,
    preview: Path | str | None = None,
    budget: str | int | None = None,
) -> Session:
    """The session that Session.save wrote to a file.

    Args:
        path: of the file.
        world: where it goes on; loaded as it was then if None, which takes a policy that has a name.
        device, weights, preview, budget: as for `load`, if it is loaded.

    Raises:
        ConfigError: what is given is no path, or no world, or says how to load one that is there.
        SnapshotError: there is no such file, or it is torn or foreign.
        LogError: it is of another world, other weights, another plan or another preview, or of a policy without a name
            and no world.
        NotReproduced: only the log was kept, and a block came out otherwise than it was recorded.
        PoolFull: no memory for another session.
    """
    if world is not None and not isinstance(world, World):
        raise ConfigError(
            f"world is a World, as worldsim.load gives it, got {shown(world)}; leave it out to have it loaded"
        )
    if world is not None and (weights, preview, budget) != (None, None, None):
        raise ConfigError("weights, preview and budget are of a world that is loaded, and one is given; leave them out")
    snapshot = read_snapshot(path)
    if world is None:
        world = world_of(snapshot.log, device=device, weights=weights, preview=preview, budget=budget)
    return world.restore(snapshot)


def world_of(
    log: SessionLog,
    *,
    device: str = "auto",
    weights: Path | str | None = None,
    preview: Path | str | None = None,
    budget: str | int | None = None,
) -> World:
    """The world that a log is of, loaded as it was then; arguments and errors as for `load`.

    Raises:
        LogError: it tells of a plan that is none, of a policy that has no name, or of another preview.
    """
    plan = plan_told(log.opening)
    try:
        parse_policy(plan["policy"])
    except UnknownName as error:
        raise LogError(
            f"that session was lived with the policy {shown(plan['policy'])}, and worldsim knows none by that "
            f"name; if it is one of your own, load {log.opening.world} with it, and go on in that world: "
            "worldsim.restore(path, world=...), world.go_on(log) or world.replay(log)"
        ) from error
    settings = {name: plan[name] for name in ("policy", "kv", "noise", "clean_pass")}
    settings |= {"device": device, "weights": weights, "preview": preview, "budget": budget}
    recipe = PUBLISHED.get(log.opening.world)
    if recipe is None:
        settings |= {"frames_per_block": plan["frames_per_block"], "recall": plan["recall"]}
        return load(log.opening.world, steps=len(plan["sigmas"]), **settings)
    check_preview(log.opening.plan, preview)
    settings |= settings_of(recipe, plan)
    if plan["policy"] == policy_text(recipe.policy):
        del settings["policy"]
    return load(log.opening.world, **settings)


def card(name: str) -> dict[str, Any]:
    """What is known of a world's shipped weights: data, command, commit, time, hardware, evaluation.

    Raises:
        UnknownName: no such world.
        NotShipped: it has no weights in the package.
        WeightsError: those that it has are damaged.
    """
    if name not in WORLDS:
        raise UnknownName("world", name, WORLDS)
    _weights(WORLDS[name], None)
    found: dict[str, Any] = json.loads((WORLDS[name].folder / CARD).read_text())
    return found


def _weights(recipe: WorldRecipe, given: Path | str | None) -> Path:
    """The weights file to load: the given one, or the one in the package if it is there."""
    if given is not None:
        return path_of(given, "weights")
    path = recipe.folder / WEIGHTS
    if not path.is_file():
        raise NotShipped(
            f"the weights of {recipe.name} are not in the package; train them with "
            f"`worldsim record {recipe.name} -o data/{recipe.name}`, the same with --held-out, and "
            f"`worldsim train {recipe.name} --data data/{recipe.name}`, then name them: weights=FILE or --weights FILE"
        )
    card = recipe.folder / CARD
    wanted = json.loads(card.read_text()).get("sha256") if card.is_file() else None
    if wanted is not None and _digest(path) != wanted:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is not the one that its card tells; install the package again, or name "
            "other weights: weights=FILE or --weights FILE"
        )
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
