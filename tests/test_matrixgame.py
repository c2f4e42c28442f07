"""Worlds of Matrix-Game 2: loaded from folders as they are published, begun from a picture and steered by keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import worldsim
from tests.codec.test_taehv import published as taehv_shapes
from tests.codec.test_wan_weights import weights as codec_weights
from tests.models.matrixgame.test_backbone import TINY as BACKBONES
from tests.models.matrixgame.test_backbone import Slow as backbone_by_definition
from tests.models.matrixgame.test_backbone import drawn
from tests.models.matrixgame.test_condition import network as tiny_network
from tests.models.matrixgame.test_sight import WIDTH, as_published, original
from worldsim.cache.policy import Window
from worldsim.codec.taehv import TaehvConfig
from worldsim.codec.wan import WanCodec
from worldsim.codec.wan_weights import load_wan_codec
from worldsim.errors import ConfigError, LogError, NotShipped, WeightsError
from worldsim.matrixgame import BESIDE, RECIPES, MatrixGameParts, assemble_matrixgame, fit_picture, load_parts
from worldsim.models.matrixgame.condition import picture_condition
from worldsim.models.matrixgame.config import MatrixGameConfig, matrixgame_config
from worldsim.models.matrixgame.kinds import wanted_shapes
from worldsim.models.matrixgame.sight import load_sight
from worldsim.noise import block_noise
from worldsim.presets import world_of
from worldsim.runtime.batching import step_together
from worldsim.runtime.journal import read_log
from worldsim.runtime.session import Session
from worldsim.runtime.world import World

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
CPU = torch.device("cpu")
SIZE = (32, 48)
"""Height and width of the pictures here."""
WALK = (("KeyW",), ("KeyW", "KeyD"), (), ("KeyS",))


def small(name: str) -> MatrixGameConfig:
    """A model of that recipe's kind, with a head as published, so that its size is told by its tensors."""
    plain = matrixgame_config(RECIPES[name].kind, height_px=SIZE[0], width_px=SIZE[1])
    wan = replace(plain.wan, dim=128, ffn_dim=40, layers=3, heads=1, freq_dim=16, text_dim=WIDTH, text_length=10)
    # Two layers of a stream fill a page layer and a quarter of another.
    return replace(plain, wan=wan, acting=2, heads=5, head_dim=16, embedding=6)


def state(config: MatrixGameConfig, *, seed: int) -> dict[str, Tensor]:
    """Weights of a backbone that keep numbers as large as they are."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in wanted_shapes(config).items()}
    return {
        name: tensor / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 and "modulation" not in name else tensor / 3
        for name, tensor in drawn.items()
    }


def published(folder: Path, names: Sequence[str] = tuple(RECIPES), *, seed: int = 1) -> Path:
    """A folder as it is published, with the transformers of those recipes, and the codec and image encoder of all."""
    as_published(folder, original(7))
    torch.save(codec_weights(seed=2), folder / "Wan2.1_VAE.pth")
    for name in names:
        place = folder / RECIPES[name].folder
        place.mkdir()
        tensors = {f"model.{key}": tensor for key, tensor in state(small(name), seed=seed).items()}
        save_file(tensors, place / "distilled.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("matrixgame"))


@pytest.fixture(scope="module")
def universal(folder: Path) -> World:
    return loaded("matrix-game-2-universal", folder)


def loaded(name: str, weights: Path, **settings: Any) -> World:
    return loaded_on("cpu", name, weights, **settings)


def loaded_on(device: str, name: str, weights: Path | str, **settings: Any) -> World:
    return worldsim.load(name, weights=weights, size=f"{SIZE[1]}x{SIZE[0]}", device=device, **settings)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)


def shown(session: Session, keys: Iterable[Iterable[str]]) -> np.ndarray:
    return np.concatenate([session.step(held).frames for held in keys])


@pytest.mark.parametrize("name", RECIPES)
def test_a_world_of_every_recipe_is_lived_in_again_bit_for_bit(folder: Path, tmp_path: Path, name: str) -> None:
    world = loaded(name, folder)
    assert (world.fps, world.size, world.frames_per_block, world.is_told) == (12, SIZE, 12, False)
    session = world.open(seed=3, frames=picture(4), log=tmp_path / "log")
    assert np.array_equal(session.look(), picture(4)[0])
    assert [len(session.step(held).frames) for held in WALK[:2]] == [9, 12]
    mark, twin = session.mark(), session.fork()
    session.save(tmp_path / "saved", keep="pages")
    following = shown(session, WALK[2:])
    assert np.array_equal(shown(twin, WALK[2:]), following)
    session.rewind(mark)
    assert np.array_equal(shown(session, WALK[2:]), following)
    with worldsim.restore(tmp_path / "saved", world=world) as restored:
        assert np.array_equal(shown(restored, WALK[2:]), following)
    session.close()
    twin.close()
    world.replay(read_log(tmp_path / "log"))


def rows_of(name: str, walk: Sequence[Iterable[str]]) -> Tensor:
    """What is done at each moment, written out from what was published: 9 moments in the first block, 12 in others."""
    rows = []
    for block, keys in enumerate(walk):
        held = {key.removeprefix("Key") for key in keys}
        pitch, yaw = 0.1 * (("I" in held) - ("K" in held)), 0.1 * (("L" in held) - ("J" in held))
        match RECIPES[name].kind:
            case "universal":
                row = [*(float(key in held) for key in "WSAD"), pitch, yaw]
            case "gta_drive":
                row = [*(float(key in held) for key in "WS"), 0.0, 0.1 * (("D" in held) - ("A" in held))]
            case _:
                row = [float(not held), *(float(key in held) for key in "WSZCAD")]
        rows += [row] * (12 if block else 9)
    return torch.tensor(rows)


class Slow:
    """A whole video by its published description: all frames computed again at every call, in one dtype."""

    def __init__(self, name: str, weights: dict[str, Tensor], told: tuple[Tensor, Tensor], walk: Any) -> None:
        self.recipe, self.weights, self.told = RECIPES[name], weights, told
        rows = rows_of(name, walk)
        frames = 3 * len(walk)
        windows = [rows[torch.arange(4 * f - 12, 4 * f).clamp(min=0)].flatten() for f in range(frames)]
        self.controls, self.past = torch.stack(windows), torch.zeros(0, 16, 6, 10).to(weights["head.modulation"])

    def block(self, seed: int) -> Tensor:
        """The next one, [3, 16, 6, 10]."""
        kind, start, dtype = self.recipe.kind, len(self.past), self.past.dtype
        blocks = [range(at, at + 3) for at in range(0, start + 3, 3)]
        seen = 1 if kind == "gta_drive" else 3
        model = backbone_by_definition(self.weights, BACKBONES[kind], blocks, seen)
        times = (1000, 750, 500, 250) if kind == "templerun" else (1000, 666, 333)
        sigmas = [5 * time / (1000 + 4 * time) for time in times]
        noise = [block_noise(seed, start // 3, step, (1, 3, 16, 6, 10))[0].to(dtype) for step in range(len(times))]
        x = noise[0]
        for step, sigma in enumerate(sigmas):
            levels = torch.tensor([0.0] * start + [sigma] * 3, dtype=torch.float64)
            flow = model.flow(torch.cat((self.past, x)), levels, self.controls[: start + 3], self.told)[-3:]
            x = x - sigma * flow
            if step + 1 < len(sigmas):
                x = (1 - sigmas[step + 1]) * x + sigmas[step + 1] * noise[step + 1]
        self.past = torch.cat((self.past, x))
        return x


@cache
def told_of(seed: int) -> tuple[WanCodec, tuple[Tensor, Tensor]]:
    """A codec, and what backbones of a written definition are shown of picture(4) through it."""
    codec = WanCodec(tiny_network(5))
    tokens = torch.randn(5, 20, generator=torch.Generator().manual_seed(seed))
    condition = picture_condition(torch.from_numpy(picture(4, (48, 80))[0]), codec)
    return codec, (tokens, condition.channels(0, 33))


def tiny_parts(name: str, seed: int) -> MatrixGameParts:
    """The parts of a world with the backbone of a written definition, which sees picture(4) whatever it is shown."""
    backbone, (codec, told) = drawn(seed, RECIPES[name].kind), told_of(8)
    return MatrixGameParts(backbone=backbone, codec=codec, see=lambda _: backbone.hear(*told), identity="drawn")


LONG_WALKS = {
    "matrix-game-2-universal": (("KeyW", "KeyI"), ("KeyD", "KeyL"), (), ("KeyA", "KeyJ")),
    "matrix-game-2-gta": (("KeyW", "KeyA"), ("KeyD",), (), ("KeyS",)),
    "matrix-game-2-templerun": (("KeyC",), (), ("KeyW",), ("KeyA",)),
}


@pytest.mark.parametrize(("name", "seed"), [(name, at) for at, name in enumerate(RECIPES)])
def test_what_is_made_of_a_picture_and_keys_is_what_is_published(name: str, seed: int) -> None:
    parts, (_, told), walk = tiny_parts(name, seed), told_of(8), LONG_WALKS[name]
    world, weights = assemble_matrixgame(RECIPES[name], RECIPES[name].plan(), parts), parts.backbone.state_dict()
    plain = Slow(name, weights, told, walk)
    truth = Slow(name, {key: tensor.double() for key, tensor in weights.items()}, told, walk)
    lagging = Slow(name, weights, told, (walk[0], *walk[:-1]))
    ours = limit = moved = 0.0
    with torch.no_grad(), world.open(seed=seed, frames=picture(4, (48, 80))) as session:
        for keys in walk:
            session.step(keys)
            expected = truth.block(seed)[-1]
            ours = max(ours, (session._moment.decoder.newest[0][0, 0].double() - expected).abs().max().item())
            limit = max(limit, 4 * (plain.block(seed)[-1].double() - expected).abs().max().item())
            moved = max(moved, (lagging.block(seed)[-1].double() - expected).abs().max().item())
    assert ours <= limit < moved / 100


def test_other_keys_other_pictures_and_other_seeds_show_another_world(universal: World) -> None:
    made = []
    for seed, given, keys in (
        (3, 4, "KeyW"),
        (3, 4, "KeyW"),
        (3, 4, "KeyS"),
        (3, 4, "KeyI"),
        (3, 5, "KeyW"),
        (4, 4, "KeyW"),
    ):
        with universal.open(seed=seed, frames=picture(given)) as session:
            made.append(shown(session, [[keys], [keys]]))
    assert np.array_equal(made[0], made[1])
    assert all(not np.array_equal(made[0], other) for other in made[2:])


@pytest.mark.parametrize(
    "kept", [{"kv": "int8:recent=3"}, {"budget": "0.3MB"}, {"kv": "int8:recent=1", "budget": "0.3MB"}]
)
def test_kept_in_fewer_bits_or_within_a_budget_it_goes_on_bit_for_bit(
    folder: Path, tmp_path: Path, kept: dict[str, str]
) -> None:
    world = loaded("matrix-game-2-universal", folder, policy="window:frames=6", **kept)
    with world.open(seed=3, frames=picture(4)) as session:
        shown(session, WALK)
        twin, mark = session.fork(), session.mark()
        session.save(tmp_path / "saved", keep="pages")
        following = shown(session, WALK[:2])
        lies, held = world.pool.tier_bytes, world.pool.bytes
        left = held.exact + held.coded - lies.device
        assert lies.device <= 300_000 and lies.disk >= left > 0 if "budget" in kept else lies.disk == left == 0
        assert np.array_equal(shown(twin, WALK[:2]), following)
        session.rewind(mark)
        assert np.array_equal(shown(session, WALK[:2]), following)
        twin.close()
    settings = {"device": "cpu", "weights": folder, "budget": kept.get("budget")}
    with worldsim.restore(tmp_path / "saved", **settings) as restored:
        assert np.array_equal(shown(restored, WALK[:2]), following)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_held_becomes_the_published_rows(name: str) -> None:
    controls, walk = RECIPES[name].controls, LONG_WALKS[name]
    rows, steered = rows_of(name, walk), []
    for keys in walk:
        for _ in range(3):
            steered.append(controls.next(keys, steered[-1] if steered else None))
    windows = [rows[torch.arange(4 * f - 12, 4 * f).clamp(min=0)].flatten() for f in range(len(steered))]
    assert torch.equal(torch.tensor(steered), torch.stack(windows))
    assert len(controls) == small(name).controls
    arrows = {"ArrowUp": "W", "ArrowDown": "S", "ArrowLeft": "A", "ArrowRight": "D"}
    if name == "matrix-game-2-universal":
        arrows = {"ArrowUp": "I", "ArrowDown": "K", "ArrowLeft": "J", "ArrowRight": "L"}
    for arrow, letter in arrows.items():
        assert controls.vector([arrow]) == controls.vector([f"Key{letter}"]) != controls.vector([])


def test_levels_are_those_published() -> None:
    published = {name: [1000, 908.843, 713.979] for name in RECIPES}
    published["matrix-game-2-templerun"] = [1000, 937.5, 833.333, 625]
    for name, levels in published.items():
        assert [1000 * sigma for sigma in RECIPES[name].sigmas] == pytest.approx(levels, abs=1e-3)
        assert re.search(r"\(arXiv:\d{4}\.\d{5}\)", RECIPES[name].source)


def test_the_past_that_is_seen_is_chosen_and_what_is_told_in_words_cannot_be(folder: Path) -> None:
    recipe = RECIPES["matrix-game-2-gta"]
    assert recipe.plan(policy=Window(frames=5)).policy == Window(frames=5)
    with pytest.raises(ConfigError, match="steered by keys alone, so that no prompt changes it; leave on_prompt out"):
        loaded("matrix-game-2-gta", folder, on_prompt="keep")
    with pytest.raises(ConfigError, match=r"steps=4 cannot be chosen for matrix-game-2-gta"):
        loaded("matrix-game-2-gta", folder, steps=4)
    with pytest.raises(ConfigError, match="choose a policy with a bound"):
        loaded("matrix-game-2-gta", folder, policy="full")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "begins from one picture, before anything is held: .* or as --image on the command line; got nothing"),
        ({"start": 0}, "got nothing"),
        ({"frames": np.zeros((5, *SIZE, 3), np.uint8)}, "got 5 frames and what was held at them"),
        ({"frames": picture(4), "keys": [["KeyW"]]}, "got 1 frames and what was held at them"),
        ({"frames": picture(4), "hour": 3}, "has no days"),
        ({"frames": picture(4), "prompt": "a lake"}, "steered by keys alone"),
    ],
)
def test_it_begins_from_one_picture_and_nothing_else(universal: World, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        universal.open(**given)
    assert universal.pool.used == 0


def test_a_log_that_has_lost_its_picture_is_refused(universal: World) -> None:
    with universal.open(seed=3, frames=picture(4)) as session:
        shown(session, WALK[:1])
        log = session.log
    lost = replace(log, opening=replace(log.opening, given=None, start=0))
    with pytest.raises(LogError, match="tells of no picture that it began from"):
        universal.replay(lost)


def test_several_begun_from_pictures_of_their_own_share_calls(universal: World) -> None:
    grey = np.full((1, *SIZE, 3), 128, np.uint8)  # whose latents rest sooner than those of other pictures
    alone, shared = (
        [universal.open(seed=at, frames=given) for at, given in enumerate((picture(4), grey))] for _ in "ab"
    )
    for session in alone:
        shown(session, WALK[:2])
    for keys in WALK[:2]:
        for outcome in step_together(shared, [keys, keys]):
            outcome.result()
    for one, other in zip(alone, shared, strict=True):
        apart = one._moment.decoder.newest[0] - other._moment.decoder.newest[0]
        assert apart.abs().max() < 1e-4
        one.close()
        other.close()


@pytest.mark.parametrize("source", ["", "gta_distilled_model", "gta_distilled_model/distilled.safetensors"])
def test_the_published_files_are_found_wherever_one_points_to(folder: Path, source: str) -> None:
    recipe = RECIPES["matrix-game-2-gta"]
    found = load_parts(recipe, folder / source, size=SIZE, device=CPU)
    assert found.backbone.config == small(recipe.name)
    assert not found.backbone.training
    wanted = state(small(recipe.name), seed=1)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.backbone.state_dict().items())
    sight, codec = (
        load_sight(folder, dtype=torch.bfloat16, device=CPU),
        load_wan_codec(folder, device=CPU, dtype=torch.float32),
    )
    given = torch.from_numpy(picture(4)[0])
    with torch.no_grad():
        beside = picture_condition(given, codec).channels(0, 33)
        assert torch.equal(found.see(given), found.backbone.hear(sight.see(given), beside))


def test_other_weights_have_another_identity(folder: Path, tmp_path: Path) -> None:
    recipe = RECIPES["matrix-game-2-gta"]
    other = published(tmp_path, [recipe.name], seed=2)
    found = [load_parts(recipe, each, size=SIZE, device=CPU).identity for each in (folder, folder, other)]
    assert found[0] == found[1] != found[2]


def test_weights_on_the_hub_are_brought_with_what_lies_beside_them(folder: Path, monkeypatch: Any) -> None:
    asked = []

    def brought(source: object) -> Path:
        asked.append(str(source))
        return folder / str(source).partition(":")[2]

    monkeypatch.setattr("worldsim.matrixgame.local_path", brought)
    recipe = RECIPES["matrix-game-2-gta"]
    for source in (recipe.weights, "Skywork/Matrix-Game-2.0"):
        found = load_parts(recipe, source, size=SIZE, device=CPU)
        assert found.backbone.config == small(recipe.name)
    beside = [f"Skywork/Matrix-Game-2.0:{file}" for file in BESIDE]
    assert asked == [recipe.weights, *beside] * 2


def another_kind(folder: Path) -> None:
    (folder / "base_distilled_model").rename(folder / "kept")
    (folder / "gta_distilled_model").rename(folder / "base_distilled_model")


def before_distillation(folder: Path) -> None:
    config = replace(small("matrix-game-2-universal"), acting=3)
    save_file(state(config, seed=1), folder / "base_distilled_model" / "distilled.safetensors")


def another_image_encoder(folder: Path) -> None:
    config = small("matrix-game-2-universal")
    shown_less = replace(config, wan=replace(config.wan, text_dim=WIDTH // 2))
    save_file(state(shown_less, seed=1), folder / "base_distilled_model" / "distilled.safetensors")


def codec_for_transformer(folder: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in codec_weights(seed=2).items()}
    save_file(tensors, folder / "base_distilled_model" / "distilled.safetensors")


def torn(folder: Path) -> None:
    file = folder / "base_distilled_model" / "distilled.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def a_tensor_less(folder: Path) -> None:
    config = small("matrix-game-2-universal")
    tensors = state(config, seed=1)
    del tensors["blocks.1.action_model.t_qkv.weight"]
    save_file(tensors, folder / "base_distilled_model" / "distilled.safetensors")


def without_codec(folder: Path) -> None:
    (folder / BESIDE[0]).unlink()


def without_image_encoder(folder: Path) -> None:
    (folder / BESIDE[1]).unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            another_kind,
            r"2 of another shape .*keyboard_embed.* it looks like a Matrix-Game 2 transformer, gta \(2 keys",
        ),
        (before_distillation, r"in 3 layers that hear keys .* the distilled models hear them in half of their layers"),
        (another_image_encoder, r"as tokens of 80 numbers, and the image encoder beside it sees 160; get models_clip"),
        (codec_for_transformer, r"is no Matrix-Game 2 transformer; it looks like a VAE \(16 latent channels\)"),
        (torn, r"distilled\.safetensors is torn"),
        (a_tensor_less, r"1 of \d+ tensors missing \(blocks\.1\.action_model\.t_qkv\.weight\)"),
        (without_codec, r"nor Wan2\.1_VAE\.pth; there is: .* get it by `hf download Wan-AI/"),
        (without_image_encoder, r"holds no CLIP image encoder: looked for models_clip\*\.pth"),
    ],
)
def test_a_folder_in_which_something_is_wrong_is_refused_with_what_it_is(tmp_path: Path, spoil: Any, told: str) -> None:
    spoil(published(tmp_path, ["matrix-game-2-universal", "matrix-game-2-gta"]))
    with pytest.raises(WeightsError, match=told):
        loaded("matrix-game-2-universal", tmp_path)


def test_weights_of_another_family_are_told_with_the_world_that_takes_them(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"name one: .*/distilled\.safetensors \(.* of the world matrix-game-2-univ"):
        loaded("self-forcing", folder)
    torch.save({"generator": {"a": torch.ones(2)}, "generator_ema": {"a": torch.ones(2)}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"is no Matrix-Game 2 transformer; it looks like no model known here"):
        loaded("matrix-game-2-gta", tmp_path / "other.pt")


def test_noise_of_other_levels_is_refused_before_weights_are_read() -> None:
    with pytest.raises(
        ConfigError, match=r"has to begin as noise alone, got noise cosine:low=60.*; choose plain, shuf"
    ):
        worldsim.load("matrix-game-2-gta", noise="cosine")


def test_weights_that_are_nowhere_are_asked_for() -> None:
    with pytest.raises(
        NotShipped, match=r"put Skywork/Matrix-Game-2\.0:base_distilled_model into a folder, with Wan2.* --weights DIR"
    ):
        worldsim.load("matrix-game-2-universal")
    with pytest.raises(WeightsError, match=r"there is no \./nowhere"):
        worldsim.load("matrix-game-2-universal", weights="./nowhere")


def test_nothing_is_read_before_there_is_found_to_be_room(folder: Path, monkeypatch: Any) -> None:
    asked = []

    def full(config: MatrixGameConfig, dtype: torch.dtype) -> None:
        asked.append((config.wan.layers, dtype))
        raise ConfigError("no room")

    monkeypatch.setattr("worldsim.matrixgame.load_sight", None)
    with pytest.raises(ConfigError, match="no room"):
        load_parts(RECIPES["matrix-game-2-universal"], folder, size=SIZE, device=CPU, check=full)
    assert asked == [(3, torch.float32)]


def test_a_preview_shows_the_same_latents(folder: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    tiny = {name: torch.randn(shape, generator=generator) / 9 for name, shape in taehv_shapes(TaehvConfig()).items()}
    torch.save(tiny, tmp_path / "taew2_1.pth")
    plain, preview = (
        loaded("matrix-game-2-universal", folder, **more) for more in ({}, {"preview": tmp_path / "taew2_1.pth"})
    )
    with plain.open(seed=1, frames=picture(4)) as one, preview.open(seed=1, frames=picture(4)) as other:
        assert one.step().frames.shape == other.step().frames.shape == (9, *SIZE, 3)
        assert one.latest.latents == other.latest.latents
        assert one.latest.frames != other.latest.frames


def test_noise_comes_in_the_published_order_channel_by_channel(folder: Path) -> None:
    world = loaded("matrix-game-2-universal", folder, noise="published:frames=6")
    with world.open(seed=5, frames=picture(4)) as session:
        shown(session, WALK[:1])
        begun = session._moment.decoder.canvas().values
        generator = torch.Generator().manual_seed(5)
        video = torch.randn((1, 16, 6, SIZE[0] // 8, SIZE[1] // 8), generator=generator, dtype=torch.bfloat16)
        assert torch.equal(begun[0], video[0, :, 3:].transpose(0, 1).float())
        log = session.log
    world.replay(log)
    assert world_of(log, device="cpu", weights=folder).plan == world.plan


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (33, 47)])
def test_a_picture_of_any_size_and_aspect_fits(tmp_path: Path, height: int, width: int) -> None:
    image = Image.fromarray(np.full((height, width, 3), 77, np.uint8))
    image.save(tmp_path / "a.png")
    for given in (image, tmp_path / "a.png", str(tmp_path / "a.png")):
        fitted = fit_picture(given, SIZE)
        assert (fitted.shape, fitted.dtype) == ((1, *SIZE, 3), np.uint8)
        assert (fitted == 77).all()


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), None])
def test_a_file_that_is_no_picture_is_refused_by_its_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    told = r"there is no picture .*a\.png" if content is None else r"a\.png is no picture that can be read"
    with pytest.raises(ConfigError, match=told):
        fit_picture(tmp_path / "a.png", SIZE)
