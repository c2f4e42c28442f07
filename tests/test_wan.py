"""Worlds of the Wan family: loaded from folders as they are published, lived in, and told what does not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import worldsim
from tests.codec.test_taehv import published as taehv_shapes
from tests.codec.test_wan_weights import weights as codec_weights
from tests.models.wan.test_text import as_published, encoder
from worldsim.cache.policy import Window
from worldsim.cache.pool import PagePool
from worldsim.codec.taehv import TaehvConfig
from worldsim.decoding.draws import Draws
from worldsim.decoding.noise_plan import NoisePlan
from worldsim.decoding.prompting import KEEP, PromptChange
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import ConfigError, LogError, NotShipped, UnknownName, WeightsError
from worldsim.models.wan.backbone import WanBackbone
from worldsim.models.wan.config import WanConfig, wan_config
from worldsim.models.wan.stored import read_stored, wanted_shapes, write_model
from worldsim.models.wan.weights import load_tensors
from worldsim.noise import block_noise
from worldsim.pictures import fit_picture
from worldsim.presets import world_of
from worldsim.runtime.engine import Engine
from worldsim.runtime.journal import read_log
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.session.log import UNTOLD, SessionLog
from worldsim.wan import RECIPES, WanRecipe, identity_of, load_parts, open_backbone, parse_size, plan_memory
from worldsim.wan_memory import Shortcuts, pages_of
from worldsim.wan_room import room_for

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
CPU = torch.device("cpu")
SIZE = (64, 96)
"""Height and width of the pictures here."""
TINY = replace(wan_config("tiny", height_px=SIZE[0], width_px=SIZE[1]), text_length=40)
WIDE = replace(wan_config("1.3b"), dim=128, ffn_dim=40, layers=2, heads=1, freq_dim=16, text_dim=24)
"""With a head as published, so that its size is told by its tensors."""
PROMPT = "a lake"


def state(config: WanConfig, *, seed: int) -> dict[str, Tensor]:
    """Weights of a backbone that keep numbers as large as they are."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in wanted_shapes(config).items()}
    return {
        name: tensor / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 and "modulation" not in name else tensor / 3
        for name, tensor in drawn.items()
    }


def beside(folder: Path) -> Path:
    """The folder with a codec and a text encoder, both tiny, as they are published."""
    as_published(folder, encoder(1))
    torch.save(codec_weights(seed=2), folder / "Wan2.1_VAE.pth")
    return folder


def converted(folder: Path, *, seed: int = 1) -> Path:
    """A folder as `worldsim convert` writes it, with a backbone of any size."""
    save_file(state(TINY, seed=seed), beside(folder) / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"family": "wan", "recipe": None, **asdict(TINY)}))
    (folder / "card.json").write_text(json.dumps({"files": [{"sha256": f"{seed}"}], "merged": []}))
    return folder


def original(folder: Path, name: str, *parts: str) -> Path:
    """A folder with a .pt as published: parts, in them tensors under the names of the pipeline."""
    made = {
        part: {f"model.{name}": tensor for name, tensor in state(WIDE, seed=at).items()}
        for at, part in enumerate(parts)
    }
    torch.save(made, beside(folder) / name)
    return folder


def tiny_decoder(path: Path, *, seed: int = 3) -> Path:
    """A file of the tiny decoder as it is published."""
    generator = torch.Generator().manual_seed(seed)
    tiny = {name: torch.randn(shape, generator=generator) / 9 for name, shape in taehv_shapes(TaehvConfig()).items()}
    torch.save(tiny, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("tiny"))


def loaded(name: str, weights: Path | str, **settings: Any) -> World:
    return loaded_on("cpu", name, weights, **settings)


def loaded_on(device: str, name: str, weights: Path | str, **settings: Any) -> World:
    return worldsim.load(name, weights=weights, size=f"{SIZE[1]}x{SIZE[0]}", device=device, **settings)


def shown(session: Session, blocks: int) -> np.ndarray:
    return np.concatenate([session.step().frames for _ in range(blocks)])


@pytest.mark.parametrize("name", RECIPES)
def test_a_world_of_every_recipe_is_lived_in_again_bit_for_bit(folder: Path, tmp_path: Path, name: str) -> None:
    world = loaded(name, folder)
    block = RECIPES[name].frames_per_block
    assert (world.fps, world.size, world.frames_per_block, world.is_told) == (16, SIZE, 4 * block, True)
    session = world.open(seed=3, prompt=PROMPT, log=tmp_path / "log")
    first, second = session.step().frames, session.step().frames
    assert [len(first), len(second)] == [4 * block - 3, 4 * block]
    mark, twin = session.mark(), session.fork()
    session.save(tmp_path / "saved", keep="pages")
    following = shown(session, 1)
    assert np.array_equal(shown(twin, 1), following)
    session.rewind(mark)
    assert np.array_equal(shown(session, 1), following)
    with worldsim.restore(tmp_path / "saved", world=world) as restored:
        assert np.array_equal(shown(restored, 1), following)
    session.close()
    twin.close()
    world.replay(read_log(tmp_path / "log"))


@pytest.mark.parametrize("name", ["longlive", "longlive-infinite", "infinity-rope"])
def test_a_world_with_a_sink_that_was_saved_without_pages_holds_the_same_frames(
    folder: Path, tmp_path: Path, name: str
) -> None:
    world = loaded(name, folder, sessions=2)
    with world.open(seed=3, prompt=PROMPT) as session:
        shown(session, 4)
        session.set_prompt("a storm over the hills")
        shown(session, 1)
        session.save(tmp_path / "saved", keep="latents")
        with worldsim.restore(tmp_path / "saved", world=world) as restored:
            for _ in range(2):
                held = [own._moment.decoder.context.frames for own in (session, restored)]
                assert held[0] == held[1]
                assert len(shown(session, 1)) == len(shown(restored, 1))


def test_other_words_and_other_seeds_show_another_world(folder: Path) -> None:
    world = loaded("self-forcing", folder)
    made = []
    for seed, prompt in ((3, PROMPT), (4, PROMPT), (3, "a storm over the hills"), (3, None)):
        with world.open(seed=seed, prompt=prompt) as session:
            made.append(shown(session, 1))
    assert all(not np.array_equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize("pictures", [1, 5])
@pytest.mark.parametrize("name", ["self-forcing", "rolling-forcing", "causal-forcing-framewise"])
def test_a_world_goes_on_from_a_picture_or_a_video(folder: Path, name: str, pictures: int) -> None:
    world = loaded(name, folder)
    given = np.random.default_rng(5).integers(0, 256, (pictures, *SIZE, 3), np.uint8)
    with world.open(seed=3, prompt=PROMPT, frames=given) as session, world.open(seed=3, prompt=PROMPT) as other:
        assert np.array_equal(session.look(), given[-1])
        assert session._moment.decoder.context.next_frame == 1 + pictures // 4
        made, log = shown(session, 1), session.log
        assert len(made) == world.frames_per_block
        assert not np.array_equal(made[-1], shown(other, 1)[-1])
    world.replay(log)


def test_as_many_play_at_once_as_memory_is_planned_for_but_one(folder: Path) -> None:
    world = loaded("causal-forcing-framewise", folder, sessions=3)
    with Engine(world) as engine:
        assert engine.capacity == 2
        sessions = [engine.open(seed=seed, prompt=PROMPT) for seed in range(2)]
        assert {session.step(()).result().block for session in sessions} == {0}
    with pytest.raises(ConfigError, match="planned for 1 session or more, got sessions=0"):
        loaded("causal-forcing-framewise", folder, sessions=0)
    with pytest.raises(ConfigError, match="sessions=2 cannot be chosen for crafter"):
        worldsim.load("crafter", sessions=2)


@pytest.mark.parametrize("change", [None, "keep", "flush:sink=1,recent=2", "cut", "recache:frames=4"])
@pytest.mark.parametrize("over", [1, 3])
def test_a_prompt_is_changed_at_any_block_and_lived_again(
    folder: Path, tmp_path: Path, change: str | None, over: int
) -> None:
    world = loaded("causal-forcing-framewise", folder, on_prompt=change)
    assert (
        world.plan.on_prompt
        == {
            None: KEEP,
            "keep": KEEP,
            "flush:sink=1,recent=2": PromptChange(sink=1, recent=2),
            "cut": PromptChange(sink=1, recent=2, gap=42),
            "recache:frames=4": PromptChange(anew=4),
        }[change]
    )
    with world.open(seed=3, prompt=PROMPT) as session:
        shown(session, 4)
        twin = session.fork()
        session.set_prompt("a storm over the hills", over=over)
        changed, log = shown(session, 2), session.log
        assert not np.array_equal(changed, shown(twin, 2))
        held = session._moment.decoder.context.frames
        assert held == ((0, 2, 3, 4, 5) if change in ("flush:sink=1,recent=2", "cut") and over == 1 else held)
        twin.close()
    world.replay(log)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_it_is_from_and_fits_together(name: str) -> None:
    recipe = RECIPES[name]
    plan = recipe.plan()
    assert recipe.name == name
    assert re.search(r"\(arXiv:\d{4}\.\d{5}\)", recipe.source)
    assert plan.from_nothing
    assert plan.policy.limit is not None
    assert plan.ahead == (12 if name == "rolling-forcing" else 0)
    assert recipe.plan(policy=Window(frames=5)).policy == Window(frames=5)
    assert recipe.plan(policy=recipe.policy) == plan, "named, or left out: a log does not tell which"


@pytest.mark.parametrize(
    ("names", "published"),
    [
        # Published to so many digits: time 1000 is level 1.
        (
            ["self-forcing", "longlive", "longlive-infinite", "infinity-rope", "causal-forcing"],
            [1000, 937.5, 833.333, 625],
        ),
        (["causal-forcing-framewise"], [1000, 937.5, 833.333, 625]),
        (["causvid"], [1000, 960, 888.889, 727.273]),
        (["causvid-3step"], [1000, 757, 522]),
        (["rolling-forcing"], [1000, 952.381, 882.353, 769.231, 555.556]),
    ],
)
def test_levels_are_those_published(names: Sequence[str], published: Sequence[float]) -> None:
    for name in names:
        assert [1000 * sigma for sigma in RECIPES[name].sigmas] == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("steps", "shift"), [((1000, 750, 500, 250), 5), ((1000, 750, 500, 250), 8), ((1000, 800, 600, 400, 200), 5)]
)
def test_levels_are_those_of_the_published_table_of_times(steps: Sequence[int], shift: float) -> None:
    even = torch.linspace(1, 0, 1001, dtype=torch.float64)[:-1]
    table = torch.cat((1000 * shift * even / (1 + (shift - 1) * even), torch.zeros(1, dtype=torch.float64)))
    warped = table[1000 - torch.tensor(steps)].tolist()
    name = {(4, 5): "self-forcing", (4, 8): "causvid", (5, 5): "rolling-forcing"}[len(steps), int(shift)]
    assert [1000 * sigma for sigma in RECIPES[name].sigmas] == pytest.approx(warped, rel=1e-12)


GRID = (2, 2)
"""Tokens of a frame where everything is computed again at every call."""
SMALL = replace(TINY, height=2 * GRID[0], width=2 * GRID[1])


@dataclass(frozen=True, slots=True)
class Look:
    """What a call sees: frames of the past at their positions, and where its own stand."""

    own: range
    first: int
    past: Sequence[tuple[int, int]]


def self_forcing(start: int, count: int, *, clean: bool) -> Look:
    """A buffer of 21 frames, the newest of which are the call's own; keys were turned where they were written."""
    return Look(range(start, start + count), start, [(f, f) for f in range(max(0, start + count - 21), start)])


def longlive(start: int, count: int, *, clean: bool) -> Look:
    """Three sinks, and the newest nine frames, the call's own among them; turned where they were written."""
    seen = [*range(min(3, start)), *range(max(3, start + count - 9), start)]
    return Look(range(start, start + count), start, [(f, f) for f in seen])


def slots(start: int, count: int, sinks: int, size: int) -> Look:
    """A buffer of that size in which keys are turned to their place, read from sinks and the newest behind them."""
    seen = [*range(min(sinks, start)), *range(max(sinks, start + count - (size - sinks)), start)]
    return Look(range(start, start + count), len(seen), [(f, slot) for slot, f in enumerate(seen)])


def longlive_infinite(start: int, count: int, *, clean: bool) -> Look:
    return slots(start, count, 3, 12)


def infinity_rope(start: int, count: int, *, clean: bool) -> Look:
    return slots(start, count, 1, 6)


def framewise(start: int, count: int, *, clean: bool) -> Look:
    return self_forcing(start, count, clean=clean)


def rolling_forcing(start: int, count: int, *, clean: bool) -> Look:
    """21 frames, the call's own among them; a window has the first block as its anchor, just before the others."""
    if clean:
        return self_forcing(start, count, clean=True)
    if start == 0:
        return Look(range(count), 0, [])
    working = [f for f in range(max(0, start - (21 - count - 3)), start) if f >= 3]
    anchor = start - len(working) - 3
    return Look(range(start, start + count), start, [*((f, anchor + f) for f in range(3)), *((f, f) for f in working)])


class Everything:
    """Attention of one call on all frames of a video, each block seeing what it is written down to see.

    What lies under the keys of a block is computed anew from its clean frames, in the dtype of the call.
    """

    def __init__(self, looks: Sequence[Look]) -> None:
        self._looks = looks

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        tokens = GRID[0] * GRID[1]
        q, k, v = (x[0].unflatten(0, (-1, tokens)) for x in (q, k, v))
        answers = []
        for look in self._looks:
            own = [(f, look.first + at) for at, f in enumerate(look.own)]
            keys = torch.cat([turned(k[f], position) for f, position in (*look.past, *own)])
            values = torch.cat([v[f] for f, _ in (*look.past, *own)])
            queries = torch.cat([turned(q[f], position) for f, position in own])
            scores = torch.einsum("qhd,khd->hqk", queries, keys) / q.shape[-1] ** 0.5
            answers.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values))
        return torch.cat(answers)[None]


def turned(x: Tensor, time: int) -> Tensor:
    """Tokens of a frame [n, heads, 16] turned in pairs: 4 by time, 2 by row, 2 by column, as published."""
    pairs, axes = x.shape[-1] // 2, []
    third = pairs // 3
    for size, places in (
        (pairs - 2 * third, [time] * 4),
        (third, [0, 0, 1, 1]),
        (third, [0, 1, 0, 1]),
    ):
        frequency = 10000.0 ** (-torch.arange(size, dtype=torch.float64) / size)
        axes.append(torch.tensor(places, dtype=torch.float64)[:, None] * frequency)
    angle = torch.cat(axes, dim=1)[:, None]
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Slow:
    """A video of a recipe that keeps all that it made and computes everything again at every call.

    video: how many blocks it has; 0 for one without an end.
    """

    def __init__(self, recipe: WanRecipe, look: Any, dtype: torch.dtype, *, seed: int, video: int = 0) -> None:
        self.recipe, self.look, self.dtype, self.video = recipe, look, dtype, video
        self.clean: list[Tensor] = []
        self.window: list[tuple[int, Tensor]] = []
        self.backbone = backbone(dtype)
        noise = NoisePlan(published=video * recipe.frames_per_block)
        self.draws = Draws(
            seed=seed,
            plan=noise,
            frames=recipe.frames_per_block,
            geometry=SMALL.geometry,
            steps=len(recipe.sigmas),
            device=CPU,
            rolls=recipe.rolling is not None,
        )

    def estimate(self, noisy: Tensor, levels: Sequence[float]) -> Tensor:
        """The clean estimate of frames [F, C, H, W] at those levels behind all that was made."""
        n = self.recipe.frames_per_block
        done, count = n * len(self.clean), len(noisy)
        looks = [self.look(start, n, clean=True) for start in range(0, done, n)]
        everything = torch.cat([*self.clean, noisy])[None]
        sigma = torch.tensor([[0.0] * done + [*levels]], dtype=self.dtype)
        attend = Everything([*looks, self.look(done, count, clean=False)])
        return self.backbone.prompted(heard(self.backbone))(everything, everything, sigma, everything, attend)[
            0, -count:
        ]

    def fresh(self, block: int, step: int) -> Tensor:
        return self.draws.noise(block, step)[0].to(self.dtype)

    def block(self) -> Tensor:
        """The next one, [F, C, H, W]."""
        sigmas, number = self.recipe.sigmas, len(self.clean)
        if self.recipe.rolling is None:
            x = self.fresh(number, 0)
            for step, sigma in enumerate(sigmas):
                x = self.estimate(x, [sigma] * len(x))
                if step + 1 < len(sigmas):
                    x = (1 - sigmas[step + 1]) * x + sigmas[step + 1] * self.fresh(number, step + 1)
            self.clean.append(x)
            return x
        while True:
            # A window grows to five blocks, the newest at the first level, and every call takes each a level on; at
            # the end of a video none joins.
            if not self.video or number + len(self.window) < self.video:
                self.window.append((0, self.fresh(number + len(self.window), 0)))
            levels = [sigmas[step] for step, own in self.window for _ in own]
            clean = self.estimate(torch.cat([own for _, own in self.window]), levels).split(3)
            first = self.window[0][0]
            self.window = [
                (step + 1, (1 - sigmas[step + 1]) * own + sigmas[step + 1] * self.fresh(number + at, step + 1))
                for at, ((step, _), own) in enumerate(zip(self.window, clean, strict=True))
                if step + 1 < len(sigmas)
            ]
            if first + 1 == len(sigmas):
                self.clean.append(clean[0])
                return self.clean[-1]


def backbone(dtype: torch.dtype) -> WanBackbone:
    made = WanBackbone(SMALL)
    made.load_state_dict(state(SMALL, seed=6))
    return made.to(dtype).eval().requires_grad_(False)


def heard(own: WanBackbone, *, seed: int = 7) -> Tensor:
    words = torch.randn(5, SMALL.text_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return own.hear(words)[None]


LOOKS = {
    "self-forcing": (self_forcing, 9),
    "causvid": (self_forcing, 8),
    "causvid-3step": (self_forcing, 8),
    "causal-forcing": (self_forcing, 8),
    "longlive": (longlive, 9),
    "longlive-infinite": (longlive_infinite, 9),
    "infinity-rope": (infinity_rope, 9),
    "causal-forcing-framewise": (framewise, 24),
    "rolling-forcing": (rolling_forcing, 9),
}
"""What calls see as published, and how many blocks are compared."""


def decoder_of(recipe: WanRecipe, *, seed: int, video: int = 0) -> VideoDecoder:
    noise = NoisePlan(published=video * recipe.frames_per_block)
    own, plan = backbone(torch.float32), replace(recipe.plan(), noise=noise)
    pool = PagePool(own.pages, pages=pages_of(plan, sessions=1), dtype=torch.float32, device=CPU)
    decoder = VideoDecoder(own, pool, plan, seed)
    decoder.tell(heard(own)[0])
    return decoder


@pytest.mark.parametrize(
    ("name", "blocks", "video"),
    [
        *((name, blocks, 0) for name, (_, blocks) in LOOKS.items()),
        *(("rolling-forcing", end, end) for end in (5, 7, 10)),
    ],
)
@pytest.mark.parametrize("seed", [8])
def test_what_a_recipe_makes_is_what_its_publication_describes(name: str, seed: int, blocks: int, video: int) -> None:
    recipe, look = RECIPES[name], LOOKS[name][0]
    decoder = decoder_of(recipe, seed=seed, video=video)
    steering = torch.zeros(1, recipe.frames_per_block, 0)
    plain, truth = (Slow(recipe, look, dtype, seed=seed, video=video) for dtype in (torch.float32, torch.float64))
    ours, limit = 0.0, 0.0
    for _ in range(blocks):
        block = decoder.propose(steering)
        decoder.commit(block)
        expected = truth.block()
        ours = max(ours, (block.latents[0].double() - expected).abs().max().item())
        limit = max(limit, 2 * (plain.block().double() - expected).abs().max().item())
    assert ours <= limit


@pytest.mark.parametrize(
    ("name", "file", "parts", "part"),
    [
        ("self-forcing", "self_forcing_dmd.pt", ("generator", "generator_ema"), 1),
        ("rolling-forcing", "rolling_forcing_dmd.pt", ("critic", "generator", "generator_ema"), 2),
        ("causal-forcing", "causal_forcing.pt", ("generator", "generator_ema"), 0),
        ("causvid", "model.pt", ("generator",), 0),
    ],
)
def test_the_published_files_are_read_and_tell_how_large_their_model_is(
    tmp_path: Path, name: str, file: str, parts: Sequence[str], part: int
) -> None:
    folder = original(tmp_path, file, *parts)
    for source in (folder, folder / file):
        found = load_parts(RECIPES[name], source, size=SIZE, device=CPU)
        assert (found.backbone.config.dim, found.backbone.config.heads, found.backbone.config.layers) == (128, 1, 2)
        assert torch.equal(found.backbone.state_dict()["head.head.weight"], state(WIDE, seed=part)["head.head.weight"])
        assert not found.backbone.training
        assert {tensor.dtype for tensor in found.backbone.state_dict().values()} == {torch.float32}
    with loaded(name, folder).open(seed=1, prompt=PROMPT) as session:
        assert session.step().frames.shape == (9, *SIZE, 3)


@pytest.mark.parametrize("inside", [".", "models"])
@pytest.mark.parametrize("named", [False, True])
def test_the_changes_of_longlive_are_merged_wherever_its_transformer_lies(
    tmp_path: Path, inside: str, *, named: bool
) -> None:
    name = f"{inside}/longlive_base.pt"
    (tmp_path / inside).mkdir(exist_ok=True)
    folder = original(tmp_path, name, "generator")
    generator = torch.Generator().manual_seed(4)
    down, up = (torch.randn(shape, generator=generator) / 9 for shape in ((4, 128), (128, 4)))
    prefix = "base_model.model.blocks.1.self_attn.q"
    changes = {f"{prefix}.lora_A.default.weight": down, f"{prefix}.lora_B.default.weight": up}
    torch.save({"generator_lora": changes}, folder / inside / "lora.pt")
    # As beside the codec and the text encoder where those are published.
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 1536}))
    given = folder / name if named else folder
    weights, _ = open_backbone(RECIPES["longlive"], given, size=SIZE)
    before = state(WIDE, seed=0)["blocks.1.self_attn.q.weight"]
    assert torch.allclose(weights["blocks.1.self_attn.q.weight"], before + up @ down, atol=1e-6)
    assert weights.origin.merged == (folder / inside / "lora.pt",)
    if not named:
        found = load_parts(RECIPES["longlive"], folder, size=SIZE, device=CPU)
        assert torch.equal(
            found.backbone.state_dict()["blocks.1.self_attn.q.weight"], weights["blocks.1.self_attn.q.weight"]
        )
        (folder / inside / "lora.pt").rename(folder / "lora.pt")
        open_backbone(RECIPES["longlive"], given, size=SIZE)
        (folder / "lora.pt").unlink()
        told = r"merges lora\.pt into its weights, and there is none in .*; put models/lora\.pt of Efficient-Large-Mo"
        with pytest.raises(WeightsError, match=told):
            open_backbone(RECIPES["longlive"], given, size=SIZE)


@pytest.mark.parametrize("recipe", [None, "longlive"])
def test_the_changes_of_longlive_are_merged_once_into_what_was_converted(
    tmp_path: Path, recipe: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    layer = "blocks.0.ffn.2"
    halves = {f"{layer}.lora_{half}.weight": torch.ones(shape) for half, shape in (("A", (1, 40)), ("B", (128, 1)))}
    folder = original(tmp_path, "longlive_base.pt", "generator")
    torch.save({"generator_lora": halves}, tmp_path / "changes.pt")
    bare, whole, twice = (tmp_path / name for name in ("bare", "whole", "twice"))
    write_model(bare, load_tensors(folder / "longlive_base.pt"), recipe=recipe)
    write_model(whole, load_tensors(folder / "longlive_base.pt", lora=tmp_path / "changes.pt"), recipe=recipe)
    write_model(twice, load_tensors(whole), recipe=recipe)
    told = r"there is none in .*bare; .* or convert the weights with --lora"
    if recipe is None:
        open_backbone(RECIPES["longlive"], bare, size=SIZE)
        assert re.search(rf"{told}, if they are", caplog.text)
    else:
        with pytest.raises(WeightsError, match=f"{told}$"):
            open_backbone(RECIPES["longlive"], bare, size=SIZE)
    without = identity_of(load_tensors(bare), read_stored(bare).card)
    (tmp_path / "changes.pt").rename(bare / "lora.pt")
    changed = state(WIDE, seed=0)[f"{layer}.weight"] + 1
    for converted in (bare, whole, twice):
        weights, _ = open_backbone(RECIPES["longlive"], converted, size=SIZE)
        assert torch.allclose(weights[f"{layer}.weight"], changed, atol=1e-6), converted.name
    assert identity_of(open_backbone(RECIPES["longlive"], bare, size=SIZE)[0], read_stored(bare).card) != without


@dataclass(frozen=True)
class Hub:
    """A hub that lays files out as its library does, as links in a snapshot of each repository.

    there: its repositories, as folders.
    asked: what was brought, in order.
    """

    there: Path
    cache: Path
    asked: list[str]

    def hf_hub_download(self, repository: str, name: str) -> str:
        file, link = self.there / repository / name, self.snapshot(repository) / name
        if not file.is_file():
            raise OSError(f"no {name}")
        self.asked.append(f"{repository}:{name}")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        return str(link)

    def list_repo_files(self, repository: str) -> list[str]:
        folder = self.there / repository
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]

    def snapshot(self, repository: str) -> Path:
        return self.cache / f"models--{repository.replace('/', '--')}" / "snapshots" / "1"


BESIDE = [
    f"Wan-AI/Wan2.1-T2V-1.3B:{name}"
    for name in ("Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/tokenizer.json")
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Self-Forcing, LongLive and what both take of Wan 2.1, as published but small."""
    library = pytest.importorskip("huggingface_hub")
    made = Hub(tmp_path / "there", tmp_path / "cache", [])
    for repository, file in (("gdhe17/Self-Forcing", "checkpoints/self_forcing_dmd.pt"), LONG):
        (path := made.there / repository / file).parent.mkdir(parents=True)
        tensors = {f"model.{name}": tensor for name, tensor in state(WIDE, seed=1).items()}
        torch.save({"generator": tensors, "generator_ema": tensors}, path)
    halves = {
        f"blocks.0.ffn.2.lora_{half}.weight": torch.ones(shape) for half, shape in (("A", (1, 40)), ("B", (128, 1)))
    }
    torch.save({"generator_lora": halves}, path.with_name("lora.pt"))
    (around := made.there / "Wan-AI" / "Wan2.1-T2V-1.3B").mkdir(parents=True)
    beside(around)
    for name in ("hf_hub_download", "list_repo_files"):
        monkeypatch.setattr(library, name, getattr(made, name))
    return made


LONG = ("Efficient-Large-Model/LongLive-1.3B", "models/longlive_base.pt")


@pytest.mark.parametrize("name", ["self-forcing", "longlive"])
def test_weights_on_the_hub_are_brought_with_all_that_a_world_is_made_of(hub: Hub, name: str) -> None:
    weights, repository = RECIPES[name].weights, RECIPES[name].weights.partition(":")[0]
    changes = [f"{repository}:models/lora.pt"] if name == "longlive" else []
    for source in (weights, repository):
        with loaded(name, source).open(seed=1, prompt=PROMPT) as session:
            assert session.step().frames.shape == (9, *SIZE, 3)
    assert hub.asked == [weights, *changes, *BESIDE] * 2
    found = open_backbone(RECIPES[name], hub.snapshot(repository), size=SIZE)[0]
    assert [path.name for path in found.origin.merged] == (["lora.pt"] if changes else [])


def test_what_the_hub_does_not_give_is_told_by_its_name(hub: Hub) -> None:
    (hub.there / LONG[0] / "models" / "lora.pt").unlink()
    with pytest.raises(
        WeightsError, match=r"Model/LongLive-1\.3B:models/lora\.pt is neither a path here nor to be had"
    ):
        loaded("longlive", ":".join(LONG))
    shutil.rmtree(hub.there / "Wan-AI")
    with pytest.raises(
        WeightsError, match=r"Wan-AI/Wan2\.1-T2V-1\.3B is neither a path here nor to be had from the hub"
    ):
        loaded("self-forcing", "gdhe17/Self-Forcing")


def test_what_a_folder_on_the_hub_has_beside_its_transformer_is_not_brought_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside(hub.there / "gdhe17" / "Self-Forcing" / "checkpoints")

    def snapshot_download(repository: str, *, allow_patterns: str) -> str:
        for name in hub.list_repo_files(repository):
            hub.hf_hub_download(repository, name)
        return str(hub.snapshot(repository))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded("self-forcing", "gdhe17/Self-Forcing:checkpoints")
    assert not set(BESIDE) & set(hub.asked)


def test_what_lies_beside_a_transformer_is_not_brought_where_there_is_no_room(hub: Hub) -> None:
    def check(*_: object) -> None:
        raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        load_parts(RECIPES["self-forcing"], "gdhe17/Self-Forcing", size=SIZE, device=CPU, check=check)
    assert hub.asked == [RECIPES["self-forcing"].weights]


def test_other_weights_and_other_changes_have_another_identity(folder: Path, tmp_path: Path) -> None:
    converted(tmp_path / "other", seed=2)
    identities = [load_parts(RECIPES["causvid"], each, size=SIZE, device=CPU).identity for each in (folder, folder)]
    other = load_parts(RECIPES["causvid"], tmp_path / "other", size=SIZE, device=CPU).identity
    assert len({*identities}) == 1
    assert other not in identities


def test_tensors_of_several_dtypes_become_one(tmp_path: Path) -> None:
    folder = converted(tmp_path)
    mixed = {
        name: t.to((torch.bfloat16, torch.float16, torch.float32)[len(name) % 3])
        for name, t in state(TINY, seed=1).items()
    }
    save_file(mixed, folder / "model.safetensors")
    with loaded("self-forcing", folder).open(seed=1, prompt=PROMPT) as session:
        assert session.step().frames.any()
    found = load_parts(RECIPES["self-forcing"], folder, size=SIZE, device=CPU)
    assert {tensor.dtype for tensor in found.backbone.state_dict().values()} == {torch.float32}


def without_codec(folder: Path) -> None:
    (folder / "Wan2.1_VAE.pth").unlink()


def without_text(folder: Path) -> None:
    (folder / "models_t5_umt5-xxl-enc-bf16.pth").unlink()


def without_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "google")


def without_all(folder: Path) -> None:
    without_codec(folder)
    without_text(folder)
    without_tokenizer(folder)


def without_transformer(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def codec_for_transformer(folder: Path) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in codec_weights(seed=2).items()}, folder / "model.safetensors"
    )


def another_size(folder: Path) -> None:
    save_file(state(replace(TINY, layers=2, ffn_dim=96), seed=1), folder / "model.safetensors")


def text_for_codec(folder: Path) -> None:
    shutil.copy(folder / "models_t5_umt5-xxl-enc-bf16.pth", folder / "Wan2.1_VAE.pth")


def torn(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def damaged(folder: Path) -> None:
    spoilt = state(TINY, seed=1)
    spoilt["blocks.1.ffn.0.weight"][3, 2] = torch.nan
    save_file(spoilt, folder / "model.safetensors")


def quantised(folder: Path) -> None:
    tensors = state(TINY, seed=1).items()
    coded = {name: (99 * tensor).to(torch.int8) if tensor.ndim > 1 else tensor for name, tensor in tensors}
    save_file(coded, folder / "model.safetensors")


def without_card(folder: Path) -> None:
    (folder / "card.json").unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def for_longlive(folder: Path) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "recipe": "longlive"}))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (without_codec, r"and lacks the codec \(Wan2\.1_VAE\.pth\) of Wan-AI/\S+; get it by `hf download Wan-AI/\S+ W"),
        (
            without_text,
            r"lacks the text encoder \(models_t5_umt5\S+\) of Wan-AI/\S+; get it by `hf download \S+ models",
        ),
        (without_tokenizer, r"lacks the tokenizer \(google/umt5-xxl/\S+\) of \S+; get it by `hf download Wan-AI/\S+ g"),
        (
            without_all,
            r"lacks the text encoder \(\S+\), the tokenizer \(\S+\) and the codec \(\S+\) of \S+; get them by `hf "
            r"download Wan-AI/Wan2\.1-T2V-1\.3B models_t5_umt5-xxl-enc-bf16\.pth google/umt5-xxl/tokenizer\.json "
            r"Wan2\.1_VAE\.pth --local-dir /",
        ),
        (without_transformer, r"holds no weights of a transformer .*; files of weights there: Wan2\.1_VAE\.pth"),
        (
            codec_for_transformer,
            r"does not fit: \d+ of \d+ tensors missing .*it looks like a VAE \(16 latent channels\)",
        ),
        (another_size, r"27 of 96 tensors missing .*9? of another shape .*ffn"),
        (text_for_codec, r"does not hold the weights of this codec: .*a text encoder and no codec"),
        (torn, r"model\.safetensors is torn"),
        (damaged, r"model\.safetensors is damaged: blocks\.1\.ffn\.0\.weight holds numbers that are none"),
        (quantised, r"holds coded numbers \(\S+ in torch\.int8, .*; get the model in float32"),
        (without_card, r"card\.json is missing, which `worldsim convert` writes beside the tensors"),
        (without_config, r"config\.json is missing, which `worldsim convert` writes beside the tensors"),
        (
            for_longlive,
            r"was converted for longlive, and self-forcing takes gdhe17/.*; load it as longlive, longlive-inf",
        ),
    ],
)
def test_a_folder_in_which_something_is_wrong_is_refused_with_what_it_is(tmp_path: Path, spoil: Any, told: str) -> None:
    spoil(converted(tmp_path))
    with pytest.raises(WeightsError, match=told):
        loaded("self-forcing", tmp_path)


def test_a_codec_given_as_the_transformer_is_told_in_the_published_layout_too(tmp_path: Path) -> None:
    folder = beside(tmp_path)
    with pytest.raises(WeightsError, match=r"is no transformer of the Wan family; it looks like a VAE"):
        loaded("self-forcing", folder / "Wan2.1_VAE.pth")


def test_a_preview_that_is_no_tiny_decoder_is_refused_and_one_that_is_shows_pictures(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="does not hold the weights of this codec"):
        loaded("self-forcing", folder, preview=folder / "Wan2.1_VAE.pth")
    with pytest.raises(WeightsError, match="there is no weights file"):
        loaded("self-forcing", folder, preview=tmp_path / "none.pth")
    tiny = tiny_decoder(tmp_path / "taew2_1.pth")
    plain, preview = (loaded("self-forcing", folder, **more) for more in ({}, {"preview": tiny}))
    with plain.open(seed=1, prompt=PROMPT) as one, preview.open(seed=1, prompt=PROMPT) as other:
        assert one.step().frames.shape == other.step().frames.shape == (9, *SIZE, 3)
        assert one.latest.latents == other.latest.latents
        assert one.latest.frames != other.latest.frames


def test_weights_that_are_nowhere_are_asked_for() -> None:
    with pytest.raises(
        NotShipped,
        match=r"gdhe17/Self-Forcing:checkpoints/self_forcing_dmd\.pt into a folder.* DIR; or .* --weights gdhe17",
    ):
        worldsim.load("self-forcing")
    with pytest.raises(WeightsError, match=r"there is no .*nowhere"):
        worldsim.load("self-forcing", weights="./nowhere")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("100x64", "pictures of 100x64 pixels do not divide into tokens of 16x16; the nearest size that does is 96x64"),
        ("832x481", "832x481 .* nearest size that does is 832x480"),
        *((text, "a width and a height in pixels, such as 832x480, got ") for text in ("", "832", "0x480", "832x-480")),
        *(
            (text, "a width and a height in pixels, ")
            for text in ("axb", "832*480", "832x480x3", " 832x480", "1e3x480")
        ),
    ],
)
def test_a_size_that_is_none_or_does_not_divide_is_refused_with_one_that_does(
    folder: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        worldsim.load("self-forcing", weights=folder, size=text, device="cpu")


def test_a_size_is_told_width_first() -> None:
    assert parse_size("832x480") == (480, 832)


def test_a_prompt_that_is_too_long_is_cut_and_that_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    # Not through caplog: other packages configure logging for the whole process, and switch loggers off.
    monkeypatch.setattr("worldsim.wan.log.warning", lambda text, *given: said.append(text % given))
    parts = load_parts(RECIPES["self-forcing"], original(tmp_path, "a.pt", "generator_ema"), size=SIZE, device=CPU)
    long = "storm " * 700
    assert parts.embed(PROMPT).shape[0] < 20
    assert not said
    assert parts.embed(long).shape == (512, 24)
    (text,) = said
    told = re.fullmatch(
        r"the prompt is too long: the last (\d+) of its (\d+) tokens are not heard, as the model was trained for 512",
        text,
    )
    assert told
    assert int(told[1]) == int(told[2]) - 512 > 100
    parts.backbone.hear(parts.embed(long))


def test_a_prompt_is_cut_at_what_the_config_of_a_folder_says_is_heard(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("worldsim.wan.log.warning", lambda text, *given: said.append(text % given))
    world = loaded("self-forcing", folder)
    long = "storm " * 300
    with world.open(seed=3, prompt=long) as session:
        assert len(shown(session, 1))
    (text,) = said
    told = re.fullmatch(r".* the last (\d+) of its (\d+) tokens are not heard, as the model was trained for 40", text)
    assert told
    assert int(told[1]) == int(told[2]) - TINY.text_length == world.left_out(long) > 100


def test_nothing_is_read_before_there_is_found_to_be_room(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    asked = []

    def full(config: WanConfig, dtype: torch.dtype) -> None:
        asked.append((config, dtype))
        raise ConfigError("no room")

    monkeypatch.setattr("worldsim.codec.choice.load_wan_codec", None)
    with pytest.raises(ConfigError, match="no room"):
        load_parts(RECIPES["causal-forcing-framewise"], folder, size=SIZE, device=CPU, check=full)
    assert asked == [(replace(TINY, frames_per_block=1), torch.float32)]


def test_a_plan_of_memory_is_of_the_published_size() -> None:
    plan = plan_memory(RECIPES["self-forcing"], RECIPES["self-forcing"].plan(), size=(480, 832), dtype=torch.bfloat16)
    assert plan.weights == 2 * 1_418_996_800
    assert plan.view == 6_038_323_200


def test_a_size_beyond_all_memory_is_refused_before_any_of_it_is_taken(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"takes about \d+\.\d GB on the device, where \d+\.\d GB are free; choose a sm"
    ):
        worldsim.load("infinity-rope", weights=folder, size="99984x99984", device="cpu")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"policy": "full"}, "choose a policy with a bound, such as window:frames=18"),
        ({"budget": "1B"}, "the budget is 1; choose one of"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], told: str
) -> None:
    monkeypatch.setattr("worldsim.wan.load_text", None)
    with pytest.raises(ConfigError, match=told):
        loaded("self-forcing", folder, **settings)


@pytest.mark.parametrize("recipe", ["self-forcing", "infinity-rope", None, "of another version"])
def test_what_was_converted_is_loaded_as_every_world_of_its_weights(tmp_path: Path, recipe: str | None) -> None:
    folder = converted(tmp_path)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "recipe": recipe}))
    for name in ("self-forcing", "infinity-rope"):
        assert load_parts(RECIPES[name], folder, size=SIZE, device=CPU).backbone.config.layers == TINY.layers


def test_a_first_block_without_a_frame_before_it_begins_as_noise_alone(folder: Path) -> None:
    world = loaded("causal-forcing-framewise", folder, noise="cosine:low=60")
    with pytest.raises(ConfigError, match="begins a block from the frame before it, and a session that begins from no"):
        world.open(prompt=PROMPT)
    world.open(prompt=PROMPT, frames=np.zeros((1, *SIZE, 3), np.uint8)).close()


def test_a_world_that_is_told_in_words_has_no_keys(folder: Path) -> None:
    told = "there is no key 'KeyW' of a world that has none, and is told in words"
    world = loaded("causal-forcing-framewise", folder)
    with world.open(prompt=PROMPT) as session, pytest.raises(UnknownName, match=told):
        session.step({"KeyW"})


@pytest.mark.parametrize(
    "keeping", [{"kv": "int8:recent=3"}, {"budget": "0.7MB"}, {"kv": "int8:recent=3", "budget": "0.7MB"}]
)
def test_keys_and_values_are_kept_as_asked(folder: Path, keeping: dict[str, str]) -> None:
    world = loaded("infinity-rope", folder, **keeping)
    with world.open(seed=1, prompt=PROMPT) as session:
        shown(session, 3)
        assert world.pool.tier_bytes.device <= (7 * 10**5 if "budget" in keeping else 10**9)


def test_a_world_begins_from_a_fitted_picture(folder: Path) -> None:
    world = loaded("self-forcing", folder)
    with world.open(seed=1, prompt=PROMPT, frames=fit_picture(np.full((50, 120), 77, np.uint8), world.size)) as session:
        assert session.step().frames.shape == (12, *SIZE, 3)


class Kept:
    """A video that keeps the keys and values of every frame for ever, and is told other words at a block."""

    def __init__(self, recipe: WanRecipe, look: Any, dtype: torch.dtype, *, seed: int) -> None:
        self.recipe, self.look, self.dtype, self.seed = recipe, look, dtype, seed
        self.backbone = backbone(dtype)
        self.told = heard(self.backbone)
        self.clean: dict[int, Tensor] = {}
        self.kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def call(self, noisy: Tensor, level: float, look: Look, *, write: bool = False) -> Tensor:
        """The clean estimate of frames [F, C, H, W] that see that; their keys and values are kept if that is asked."""
        sigma = torch.full((1, len(noisy)), level, dtype=self.dtype)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
            q, k, v = (x[0].unflatten(0, (len(look.own), -1)) for x in (q, k, v))
            past = [(*self.kept[frame, layer], position) for frame, position in look.past]
            own = [(k[at], v[at], look.first + at) for at in range(len(look.own))]
            keys = torch.cat([turned(key, position) for key, _, position in (*past, *own)])
            values = torch.cat([value for _, value, _ in (*past, *own)])
            queries = torch.cat([turned(q[at], look.first + at) for at in range(len(look.own))])
            if write:
                self.kept |= {(frame, layer): (k[at], v[at]) for at, frame in enumerate(look.own)}
            scores = torch.einsum("qhd,khd->hqk", queries, keys) / q.shape[-1] ** 0.5
            return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)[None]

        return self.backbone.prompted(self.told)(noisy[None], noisy[None], sigma, noisy[None], attend)[0]

    def block(self) -> Tensor:
        """The next one, [F, C, H, W]."""
        sigmas, start = self.recipe.sigmas, len(self.clean)
        look = self.look(start, self.recipe.frames_per_block, clean=False)
        number = start // self.recipe.frames_per_block
        noise = [
            block_noise(self.seed, number, step, (1, len(look.own), *SMALL.geometry.frame_shape))[0].to(self.dtype)
            for step in range(len(sigmas))
        ]
        x = noise[0]
        for step, sigma in enumerate(sigmas):
            x = self.call(x, sigma, look)
            if step + 1 < len(sigmas):
                x = (1 - sigmas[step + 1]) * x + sigmas[step + 1] * noise[step + 1]
        self.call(x, 0.0, look, write=True)
        self.clean |= {frame: x[at] for at, frame in enumerate(look.own)}
        return x

    def again(self, frames: Sequence[int], past: Sequence[tuple[int, int]]) -> None:
        """Compute keys and values of frames that follow each other anew, in one call in which they see each other."""
        look = Look(range(frames[0], frames[-1] + 1), frames[0], past)
        self.call(torch.stack([self.clean[frame] for frame in frames]), 0.0, look, write=True)


def recached(video: Kept, done: int) -> None:
    """As LongLive does it: all of its last twelve frames; once older ones are gone, its sinks stay and nine follow."""
    first, sinks = (0, 0) if done <= 12 else (done - 9, 3)
    video.again(range(first, done), [(frame, frame) for frame in range(sinks)])


def untouched(video: Kept, done: int) -> None:
    """Nothing but what is heard changes; of ∞-RoPE too, whose buffer holds no more than a flush leaves."""


@pytest.mark.parametrize(
    ("name", "look", "change"),
    [
        ("self-forcing", self_forcing, untouched),
        ("infinity-rope", infinity_rope, untouched),
        ("longlive", longlive, recached),
    ],
)
@pytest.mark.parametrize("before", [1, 4, 5])
def test_other_words_change_the_past_as_published(name: str, look: Any, change: Any, before: int) -> None:
    recipe, seed = RECIPES[name], 9
    decoder = decoder_of(recipe, seed=seed)
    plain, truth = (Kept(recipe, look, dtype, seed=seed) for dtype in (torch.float32, torch.float64))
    ours = limit = 0.0
    for at in range(before + 2):
        if at == before:
            decoder.tell(heard(decoder.backbone, seed=10)[0])
            for video in (plain, truth):
                video.told = heard(video.backbone, seed=10)
                change(video, 3 * at)
        block = decoder.propose(torch.zeros(1, 3, 0))
        decoder.commit(block)
        expected = truth.block()
        ours = max(ours, (block.latents[0].double() - expected).abs().max().item())
        limit = max(limit, 2 * (plain.block().double() - expected).abs().max().item())
    assert ours <= limit


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled, in place of compiling it: the device that is checked, then names of methods."""
    names: list[str] = []

    def compile_(method: Any, *, dynamic: bool) -> Any:
        names.append(method.__name__)
        return method

    monkeypatch.setattr("worldsim.published.check_compiler", lambda device: names.append(device.type))
    monkeypatch.setattr(torch, "compile", compile_)
    return names


def test_layers_are_made_as_fast_as_is_asked_and_8_bits_make_another_world(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Shortcuts] = []

    def room(plan: Any, *, shortcuts: Shortcuts, **given: Any) -> Any:
        planned.append(shortcuts)
        return room_for(plan, shortcuts=shortcuts, **given)

    monkeypatch.setattr("worldsim.published.room_for", room)
    plain = loaded("self-forcing", folder)
    assert compiled == []
    fast = loaded("self-forcing", folder, compiled=True, linears="int8")
    assert compiled == ["cpu", *["before", "after"] * TINY.layers]
    assert planned == [Shortcuts(), Shortcuts(linears="int8")]
    assert fast.origin.weights != plain.origin.weights
    assert loaded("self-forcing", folder, compiled=True).origin.weights == plain.origin.weights
    with plain.open(seed=1, prompt=PROMPT) as one, fast.open(seed=1, prompt=PROMPT) as other:
        wanted, found = (session.step().frames.astype(float) for session in (one, other))
    assert 0 < np.abs(wanted - found).mean() < 10


def lived(world: World, saved: Path) -> SessionLog:
    """The log of a block in a world, which is saved as nothing but that log."""
    with world.open(seed=1, prompt=PROMPT) as session:
        session.step()
        session.save(saved, keep="log")
        return session.log


@pytest.mark.parametrize(
    "chosen",
    [("linears",), ("compiled",), ("preview",), ("offload",), ("linears", "compiled", "preview", "offload")],
    ids="+".join,
)
def test_what_was_lived_is_lived_again_from_its_log_in_a_world_that_is_loaded_so(
    folder: Path, tmp_path: Path, compiled: list[str], chosen: Sequence[str]
) -> None:
    preview = tiny_decoder(tmp_path / "taew2_1.pth") if "preview" in chosen else None
    fast: dict[str, Any] = {name: name in chosen for name in ("compiled", "offload")}
    fast["linears"] = "int8" if "linears" in chosen else None
    log = lived(loaded("self-forcing", folder, preview=preview, **fast), tmp_path / "saved")
    assert bool(parts := [*compiled]) is fast["compiled"]
    if preview is not None:
        preview = preview.rename(tmp_path / "elsewhere.pth")
    where: dict[str, Any] = {"device": "cpu", "weights": folder, "preview": preview}
    world_of(SessionLog.decode(log.encode()), **where).replay(log)
    with worldsim.restore(tmp_path / "saved", **where) as session:
        assert session.block == 1
    assert compiled == 3 * parts
    for again in (
        lambda: world_of(log, budget=1000, **where),
        lambda: worldsim.restore(tmp_path / "saved", budget=1000, **where),
    ):
        with pytest.raises(ConfigError, match="the budget is 1000; choose one of"):
            again()


def test_a_codec_that_was_offloaded_by_plan_is_offloaded_again_wherever_that_is_lived_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool | None] = []

    def room(*_: Any, offload: bool | None, **__: Any) -> Any:
        """Of little memory."""
        asked.append(offload)
        return lambda config, dtype: offload is not False

    monkeypatch.setattr("worldsim.published.room_for", room)
    log = lived(loaded("self-forcing", folder), tmp_path / "saved")
    plain = loaded("self-forcing", folder, offload=False)
    other = lived(plain, tmp_path / "plain")
    for told in (log, other):
        world_of(told, device="cpu", weights=folder).replay(told)
    assert [each.opening.plan["offload"] for each in (log, other)] == [True, False]
    assert asked == [None, False, True, False]
    with pytest.raises(LogError, match="offload"):
        plain.replay(log)


def test_a_world_that_was_loaded_otherwise_than_a_log_tells_is_refused_by_what_differs(
    folder: Path, tmp_path: Path, compiled: list[str]
) -> None:
    preview = tiny_decoder(tmp_path / "taew2_1.pth")
    plain, coded, fast, small = (
        loaded("self-forcing", folder, **more)
        for more in ({}, {"linears": "int8"}, {"linears": "int8", "compiled": True}, {"preview": preview})
    )
    name = "preview sha256:[0-9a-f]{64}"
    for world, other, told in (
        (plain, coded, "linears int8, here it is None; load the world as it was then, with the same options$"),
        (coded, plain, "linears None, here it is int8; load"),
        (coded, fast, "compiled True, here it is False; load"),
        (plain, small, f"{name}, here it is None; load .*: preview=FILE or --preview FILE, the file with that SHA"),
        (small, plain, f"preview None, here it is {name[8:]}; load .* with the same options: without a preview$"),
    ):
        log = lived(other, tmp_path / "saved")
        with pytest.raises(LogError, match=f"^that session was lived with {told}"):
            world.replay(log)
        with pytest.raises(LogError, match=f"^that session was lived with {told}"):
            worldsim.restore(tmp_path / "saved", world=world)


def test_a_preview_that_is_not_that_of_a_log_is_told_before_weights_are_read(folder: Path, tmp_path: Path) -> None:
    log = lived(loaded("self-forcing", folder, preview=tiny_decoder(tmp_path / "a.pth")), tmp_path / "saved")
    other = tiny_decoder(tmp_path / "b.pth", seed=4)
    for preview, error, told in (
        (None, LogError, r"preview sha256:\w+, here it is None; .*: preview=FILE or --preview FILE, the file with"),
        (other, LogError, r"preview sha256:\w+, here it is sha256:\w+; .*: preview=FILE or --preview FILE"),
        (tmp_path / "c.pth", WeightsError, r"there is no weights file .*c\.pth"),
    ):
        with pytest.raises(error, match=told):
            world_of(log, device="cpu", weights="nowhere", preview=preview)
        with pytest.raises(error, match=told):
            worldsim.restore(tmp_path / "saved", device="cpu", weights="nowhere", preview=preview)


def test_a_log_from_before_these_were_told_is_lived_again_in_a_world_that_is_loaded_so(
    folder: Path, tmp_path: Path
) -> None:
    preview = tiny_decoder(tmp_path / "taew2_1.pth")
    small, both = (loaded("self-forcing", folder, preview=preview, linears=linears) for linears in (None, "int8"))
    for world in (small, both):
        log = lived(world, tmp_path / "saved")
        plan = {name: told for name, told in log.opening.plan.items() if name not in UNTOLD}
        old = replace(log, opening=replace(log.opening, plan=plan))
        world.replay(old)
        if world is small:
            world_of(old, device="cpu", weights=folder, preview=preview).replay(old)
