"""The reader of Crafter frames against the engine's own truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crafter import engine
from numpy.typing import NDArray

from benchmarks.tiles import (
    CENTRE,
    CLASSES,
    CLEAN_DISTANCE,
    COLUMNS,
    INVENTORY_DISTANCE,
    ITEMS,
    MATERIALS,
    ROWS,
    SPRITES,
    TILE_PX,
    Reading,
    class_of,
    day,
    daylights,
    read_frames,
    shade,
    textures,
)
from worldsim.errors import ShapeError
from worldsim.simulators.crafter import Crafter
from worldsim.simulators.crafter_explorer import CrafterExplorer


def truth(env: Any) -> NDArray[np.intp]:
    """The class of every tile in view, by the engine's own map and objects."""
    x, y = env._player.pos
    drawn = np.empty((ROWS, COLUMNS), np.intp)
    for row, column in np.ndindex(ROWS, COLUMNS):
        material, found = env._world[x + column - COLUMNS // 2, y + row - ROWS // 2]
        drawn[row, column] = class_of(material or "void", found.texture if found else "")
    return drawn


class Played:
    """Some frames of explored play with the engine's truth beside each."""

    def __init__(self, seeds: tuple[int, ...], *, frames: int) -> None:
        shown, tiles, rest = [], [], []
        for seed in seeds:
            simulator = Crafter(varied=True)
            simulator.reset(seed)
            explorer = CrafterExplorer(simulator, seed)
            for _ in range(frames):
                shown.append(simulator.step(explorer.choose()))
                tiles.append(truth(simulator.env))
                player, world = simulator.env._player, simulator.env._world
                rest.append((world.daylight, player.sleeping, [player.inventory[item] for item in ITEMS]))
                if simulator.over:
                    break
        self.frames = np.stack(shown)
        self.tiles = np.stack(tiles)
        daylight, sleeping, inventory = zip(*rest, strict=True)
        self.daylight, self.sleeping, self.inventory = np.array(daylight), np.array(sleeping), np.array(inventory)


@pytest.fixture(scope="module")
def played() -> Played:
    return Played((32, 42), frames=120)


@pytest.fixture(scope="module")
def first() -> NDArray[np.uint8]:
    return Crafter().reset(4)


@pytest.fixture(scope="module")
def reading(played: Played) -> Reading:
    return read_frames(played.frames)


def night_sky(daylight: float, *, sleeping: bool, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """A frame of all that can be drawn, at that daylight, rendered by the engine's own light; and what is on it."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(CLASSES), size=(ROWS, COLUMNS))
    drawn[ROWS // 2, COLUMNS // 2] = class_of("grass", "player-sleep" if sleeping else "player-up")
    pictures = textures().reshape(-1, TILE_PX, TILE_PX, 3)[drawn]  # [7, 9, 8, 8, 3]
    local = pictures.swapaxes(1, 2).reshape(ROWS * TILE_PX, COLUMNS * TILE_PX, 3)
    world = engine.World((64, 64), [], (12, 12))
    world.reset(seed)
    view = engine.LocalView(world, None, (COLUMNS, ROWS))
    canvas = view._light(local.transpose(1, 0, 2).astype(np.uint8), daylight)
    canvas = view._sleep(canvas) if sleeping else canvas
    frame = np.zeros((72, 72, 3), np.uint8)
    frame[: ROWS * TILE_PX] = canvas.transpose(1, 0, 2)
    return frame, drawn


def test_the_played_frames_hold_day_and_night_and_sleep(played: Played) -> None:
    assert (played.daylight > 0.5).sum() > 40
    assert (played.daylight < 0.2).sum() > 50
    assert played.sleeping.sum() > 20


def test_every_visible_tile_of_a_real_frame_is_read_right(played: Played, reading: Reading) -> None:
    right = reading.tiles == played.tiles
    by_day = played.daylight >= 0.3
    assert reading.visible[by_day].all()
    assert right[by_day].all()
    assert right[reading.visible].mean() > 0.999


def test_a_tile_that_night_hides_is_not_judged(played: Played, reading: Reading) -> None:
    right = reading.tiles == played.tiles
    assert right[~reading.visible].mean() < 0.999
    assert not reading.visible[played.daylight < 0.05][:, 0, 0].any()
    assert reading.visible[:, ROWS // 2, COLUMNS // 2].all()


def test_daylight_sleep_and_inventory_of_a_real_frame_are_read_right(played: Played, reading: Reading) -> None:
    np.testing.assert_allclose(reading.daylight, played.daylight, atol=0.05)
    np.testing.assert_array_equal(reading.sleeping, played.sleeping)
    np.testing.assert_array_equal(reading.inventory, played.inventory)


def test_every_tile_of_a_real_frame_is_a_clean_texture(reading: Reading) -> None:
    assert reading.clean[reading.visible].all()


@pytest.mark.parametrize("daylight", [1.0, 0.7, 0.5, 0.45, 0.3])
@pytest.mark.parametrize("sleeping", [False, True])
def test_every_class_is_read_under_the_engines_own_light(daylight: float, sleeping: bool) -> None:
    for seed in range(5):
        frame, drawn = night_sky(daylight, sleeping=sleeping, seed=seed)
        found = read_frames(frame[None])
        assert found.daylight[0] == pytest.approx(daylight, abs=0.03)
        assert found.sleeping[0] == sleeping
        judged = found.visible[0]
        np.testing.assert_array_equal(found.tiles[0][judged], drawn[judged])


@pytest.mark.parametrize("daylight", [0.0, 0.1, 0.3])
def test_a_night_without_the_grain_of_its_noise_is_read_the_same(played: Played, daylight: float) -> None:
    """A model that draws the mean of what it cannot know draws such nights."""
    down, across = np.meshgrid(np.linspace(-1, 1, ROWS * TILE_PX), np.linspace(-1, 1, COLUMNS * TILE_PX), indexing="ij")
    noise = (1 - 2 * daylight) * (1 - np.exp(-0.5 * (across**2 + down**2) / 0.5**2))[..., None]
    pictures = textures().reshape(-1, TILE_PX, TILE_PX, 3)[played.tiles[:9]]
    local = pictures.swapaxes(2, 3).reshape(9, ROWS * TILE_PX, COLUMNS * TILE_PX, 3)
    frames = np.zeros((9, 72, 72, 3), np.uint8)
    frames[:, : ROWS * TILE_PX] = shade(local, daylight, sleeping=False, noise=noise.astype(np.float32))
    found = read_frames(frames)
    np.testing.assert_allclose(found.daylight, daylight, atol=0.02)
    np.testing.assert_array_equal(found.tiles[found.visible], played.tiles[:9][found.visible])
    assert found.clean[found.visible].all()


def test_light_without_noise_is_the_engines_up_to_rounding() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (8, 16, 3)).astype(np.uint8)
    view = engine.LocalView(engine.World((64, 64), [], (12, 12)), None, (9, 7))
    for daylight in (0.5, 0.75, 1.0):
        lit = view._light(picture, daylight)
        no_noise = np.zeros((1, 1, 1), np.float32)
        ours = shade(picture.astype(np.float32), daylight, sleeping=False, noise=no_noise)
        assert np.abs(ours - lit).max() < 1.0
        asleep = shade(picture.astype(np.float32), daylight, sleeping=True, noise=no_noise)
        assert np.abs(asleep - view._sleep(lit)).max() < 1.5


def test_a_blurred_or_shifted_or_flat_frame_is_not_clean(first: NDArray[np.uint8]) -> None:
    frame = first.astype(np.float32)
    around = [np.roll(frame, (down, across), (0, 1)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    broken = [np.mean(around, axis=0), np.roll(frame, 3, axis=1), np.full_like(frame, frame.mean((0, 1)))]
    found = read_frames(np.stack(broken).astype(np.uint8))
    assert (found.clean.mean((1, 2)) < 0.1).all()


def test_a_texture_blurred_or_flattened_is_farther_than_the_clean_distance() -> None:
    pictures = textures().reshape(-1, TILE_PX, TILE_PX, 3)[[class_of(name) for name in MATERIALS if name != "void"]]
    shifts = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    blurred = np.mean([np.roll(pictures, shift, (1, 2)) for shift in shifts], axis=0)
    flat = pictures.mean((1, 2), keepdims=True)
    for broken in (blurred, flat):
        assert (np.sqrt(((pictures - broken) ** 2).mean((1, 2, 3))) > CLEAN_DISTANCE).all()


@pytest.mark.parametrize("sleeping", [False, True])
def test_a_distance_is_in_grey_levels_by_day_whatever_the_light(sleeping: bool) -> None:
    """A tile half way between two textures, seen by day and in the dusk."""
    drawn = np.full((ROWS, COLUMNS), class_of("sand"))
    drawn[CENTRE] = class_of("grass", "player-sleep" if sleeping else "player-up")
    pictures = textures()[drawn]
    pictures[0, 0] = (textures()[class_of("stone")] + textures()[class_of("iron")]) / 2
    distances = []
    for daylight in (1.0, 0.5):
        lit = shade(pictures, daylight, sleeping=sleeping, noise=np.zeros((1, 1, 1, 1), np.float32))
        frame = np.zeros((1, 72, 72, 3), np.uint8)
        tiles = lit.reshape(ROWS, COLUMNS, TILE_PX, TILE_PX, 3).swapaxes(1, 2)
        frame[0, : ROWS * TILE_PX] = tiles.reshape(ROWS * TILE_PX, COLUMNS * TILE_PX, 3)
        distances.append(read_frames(frame).distance[0, 0, 0])
    half = np.sqrt(((textures()[class_of("stone")] - textures()[class_of("iron")]) ** 2).mean()) / 2
    np.testing.assert_allclose(distances, half, rtol=0.25)


def test_no_picture_is_within_the_clean_distance_of_two_classes() -> None:
    flat = textures().reshape(len(CLASSES), -1)
    distances = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1)) + 1e3 * np.eye(len(CLASSES))
    assert distances.min() > 2 * CLEAN_DISTANCE


def test_a_count_that_is_no_count_is_read_as_none(first: NDArray[np.uint8]) -> None:
    frame = first.copy()
    assert list(read_frames(frame[None]).inventory[0]) == [9, 9, 9, 9] + 12 * [0]
    frame[7 * TILE_PX : 8 * TILE_PX, :TILE_PX] = frame[7 * TILE_PX : 8 * TILE_PX, TILE_PX : 2 * TILE_PX]  # food twice
    found = read_frames(frame[None]).inventory[0]
    assert found[0] == -1
    assert list(found[1:4]) == [9, 9, 9]
    assert INVENTORY_DISTANCE > 0


def test_frames_of_another_size_or_dtype_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"uint8 \[N, 72, 72, 3\].*\[2, 64, 64, 3\]"):
        read_frames(np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(ShapeError, match="float32"):
        read_frames(np.zeros((2, 72, 72, 3), np.float32))  # type: ignore[arg-type]


def test_no_frames_are_no_frames() -> None:
    assert len(read_frames(np.zeros((0, 72, 72, 3), np.uint8))) == 0


def test_readings_join_and_divide(reading: Reading) -> None:
    joined = reading[:7].then(reading[7:19])
    np.testing.assert_array_equal(joined.tiles, reading.tiles[:19])
    np.testing.assert_array_equal(joined.inventory, reading.inventory[:19])
    assert len(joined) == 19


def test_the_engines_day_has_151_daylights() -> None:
    known = daylights()
    assert known.shape == (151,)
    assert known[0] == 0.0
    assert known[-1] == 1.0
    assert (np.diff(known) > 0).all()


def test_the_days_course_is_the_engines(played: Played) -> None:
    assert (np.abs(played.daylight[:, None] - day()[None]).min(axis=1) < 1e-6).all()
    assert day()[0] == pytest.approx(0.797, abs=1e-3)
    assert day()[60] == 1.0
    assert day()[210] == 0.0


def test_a_class_names_material_and_sprite() -> None:
    assert CLASSES[class_of("sand", "cow")] == ("sand", "cow")
    assert SPRITES[0] == ""
    with pytest.raises(ValueError, match="not in tuple"):
        class_of("water", "cow")
