"""Reads Crafter frames back into what the engine drew: tiles, sprites, inventory, daylight and sleep.

Every 8 x 8 tile of a 72 x 72 frame is matched against the engine's own textures under the light of its frame. The
light (one of the engine's 151 daylights, awake or asleep) is found first, from the nine tiles around the player,
where night leaves the least noise. Night noise is grey and of known strength at every pixel, so the match gives
little weight to brightness where it is strong; tiles that it hides are marked as not visible.

Source of the rendering: crafter/engine.py (PyPI `crafter` 1.8.3), LocalView and ItemView.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import MissingDependency, ShapeError, installing

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]

ROWS, COLUMNS, TILE_PX = 7, 9, 8
CENTRE = (ROWS // 2, COLUMNS // 2)
FRAME_SHAPE = (72, 72, 3)

FACINGS = ("left", "right", "up", "down")
ITEMS = (
    *("health", "food", "drink", "energy", "sapling", "wood", "stone", "coal", "iron", "diamond"),
    *("wood_pickaxe", "stone_pickaxe", "iron_pickaxe", "wood_sword", "stone_sword", "iron_sword"),
)
MATERIALS = (
    *("water", "grass", "stone", "path", "sand", "tree", "lava", "coal", "iron", "diamond", "table", "furnace"),
    "void",  # beyond the edge of the map
)
WALKABLE = ("grass", "sand", "path")
PLAYER = tuple(f"player-{way}" for way in (*FACINGS, "sleep"))
ARROWS = tuple(f"arrow-{way}" for way in FACINGS)
PLANTS = ("plant", "plant-ripe")
CREATURES = ("cow", "zombie", "skeleton", *ARROWS)
SPRITES = ("", *PLAYER, *CREATURES, *PLANTS)

CLASSES: tuple[tuple[str, str], ...] = (
    *((material, "") for material in MATERIALS),
    *((material, sprite) for sprite in (*PLAYER, *CREATURES) for material in WALKABLE),
    *((material, sprite) for sprite in ARROWS for material in ("water", "lava")),
    *(("lava", sprite) for sprite in PLAYER),
    *(("grass", sprite) for sprite in PLANTS),
)
"""Every (material, sprite on it) that the engine can draw in one tile."""

MATERIAL_OF = np.array([MATERIALS.index(material) for material, _ in CLASSES])
SPRITE_OF = np.array([SPRITES.index(sprite) for _, sprite in CLASSES])

CLEAN_DISTANCE = 5.5
"""A tile nearer than this to a texture is that texture: root mean square over its pixels, in grey levels by day.

Less than half the smallest distance between two classes (11.6), and less than the distance of any texture from itself
blurred over 3 x 3 pixels or flattened to its mean colour (6.6 for path, the palest). Tiles of the engine lie within 1.5
by day and within 3.0 (awake) or 4.7 (asleep) at night. What lies beyond the map is flat and cannot be blurred.
"""

INVENTORY_DISTANCE = 15.0
"""A count nearer than this to what a cell shows is that count: less than half the smallest distance of two (31.9)."""

VISIBLE_NOISE = 0.5
"""A tile is judged where night's noise is at most this share of it, on average over the tile.

Of 244,000 tiles of 24 played episodes (seeds 900 to 923 of the exploring player), those with less noise than 0.4 were
read without an error, awake and asleep. Of the others an awake player's view loses 0.02 % up to 0.5, 0.1 % up to 0.6,
2 % up to 0.8 and 8 % beyond; a sleeper's, without colour, 0.3 % up to 0.6 and 16 % beyond. So every tile is judged at a
daylight of 0.25 or more, and at midnight the middle of the view, 28 % of it.
"""

TOLERANCE = 2.0
"""Grey levels by which a pixel may differ from the engine's for other reasons than noise."""

NOISE_MEAN, NOISE_DEVIATION = (32 + 127) / 2, (127 - 32) / 12**0.5
MIDDLE_TILES = np.array([row * COLUMNS + column for row in (2, 3, 4) for column in (3, 4, 5)])
MIDDLE_PIXELS = np.arange(TILE_PX**2).reshape(TILE_PX, TILE_PX)[::2, ::2].ravel()
GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What N frames show.

    tiles: index into CLASSES of the nearest texture, [N, 7, 9].
    distance: how far that texture is, in grey levels by day, [N, 7, 9].
    visible: whether night's noise leaves enough of the tile to tell, [N, 7, 9].
    daylight: 0 (midnight) to 1 (noon), [N].
    sleeping: whether the picture is that of a sleeper, [N].
    inventory: how many of each of ITEMS, 0 to 9; -1 where no number fits, [N, 16].
    """

    tiles: NDArray[np.int16]
    distance: Floats
    visible: NDArray[np.bool_]
    daylight: Floats
    sleeping: NDArray[np.bool_]
    inventory: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: slice) -> Reading:
        return Reading(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def then(self, later: Reading) -> Reading:
        """What these frames and then those show."""
        names = [field.name for field in fields(self)]
        return Reading(**{name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in names})

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Which tiles are a texture of the engine, [N, 7, 9]."""
        return self.distance <= CLEAN_DISTANCE

    @property
    def materials(self) -> NDArray[np.intp]:
        """Index into MATERIALS of what each tile is made of, also under a sprite, [N, 7, 9]."""
        return MATERIAL_OF[self.tiles]

    @property
    def sprites(self) -> NDArray[np.intp]:
        """Index into SPRITES of what stands on each tile, 0 for nothing, [N, 7, 9]."""
        return SPRITE_OF[self.tiles]


def read_frames(frames: Frames) -> Reading:
    """What Crafter frames uint8 [N, 72, 72, 3] show, some 400 frames a second on one core.

    Raises:
        ShapeError: frames of another size or dtype.
        MissingDependency: the engine, whose textures are the reference, is not installed.
    """
    if frames.dtype != np.uint8 or frames.shape[1:] != FRAME_SHAPE:
        raise ShapeError(
            f"expected frames uint8 [N, 72, 72, 3], got {frames.dtype} {list(frames.shape)}; "
            "render Crafter at 72 x 72 so that a tile is 8 x 8 pixels"
        )
    every = np.arange(len(frames))
    lights = np.concatenate([np.empty(0, np.intp), *(_find_light(_cut(frames[some])) for some in _batches(every))])
    tiles = np.empty((len(frames), ROWS, COLUMNS), np.int16)
    distance = np.empty(tiles.shape, np.float32)
    visible = np.empty(tiles.shape, np.bool_)
    for light in np.unique(lights):
        under = _light(int(light))
        for some in _batches(every[lights == light]):
            tiles[some], distance[some] = _match(_cut(frames[some]), under)
            visible[some] = np.broadcast_to(under.visible, ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    return Reading(
        tiles=tiles,
        distance=distance,
        visible=visible,
        daylight=daylights()[lights % len(daylights())],
        sleeping=lights >= len(daylights()),
        inventory=_read_inventory(frames),
    )


def class_of(material: str, sprite: str = "") -> int:
    """The index into CLASSES of a sprite on a material; ValueError where the engine cannot draw that."""
    return CLASSES.index((material, sprite))


@cache
def day() -> Floats:
    """The daylight at every frame of the engine's day, which begins in the morning, [300]."""
    return np.round(1 - np.abs(np.cos(np.pi * (np.arange(300) / 300 + 0.3))) ** 3, 6).astype(np.float32)


@cache
def daylights() -> Floats:
    """The daylights that the engine's day knows, rising, [151]."""
    return np.unique(day())


@cache
def textures() -> Floats:
    """The picture of every class by full daylight, [classes, 64, 3], grey levels 0 to 255."""
    library, _ = _engine()
    pictures = []
    for material, sprite in CLASSES:
        ground = np.full((TILE_PX, TILE_PX, 3), 127, np.uint8)
        if material != "void":
            ground[:] = library.get(material, (TILE_PX, TILE_PX))[..., :3].transpose(1, 0, 2)
        pictures.append(_draw(ground, [(sprite, TILE_PX, 0)] if sprite else []))
    return np.stack(pictures).reshape(len(CLASSES), TILE_PX**2, 3).astype(np.float32)


def shade(picture: Floats, daylight: float, *, sleeping: bool, noise: Floats) -> Floats:
    """What the engine makes of colours [..., 3] at a daylight, with the noise (a share, [..., 1]) at its mean."""
    night = (1 - noise) * picture + noise * np.float32(NOISE_MEAN)
    night = 0.4 * night + 0.6 * (night @ GREY)[..., None]
    night = 0.5 * night + 0.5 * np.array([0, 16, 64], np.float32)
    lit = daylight * picture + (1 - daylight) * night
    if sleeping:
        lit = 0.5 * np.repeat((lit @ GREY)[..., None], 3, axis=-1) + 0.5 * np.array([0, 0, 16], np.float32)
    return lit.astype(np.float32)


def _batches(indices: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Cut into parts of at most 64 frames, whose comparisons fit into a processor's cache."""
    return np.array_split(indices, -(-len(indices) // 64)) if len(indices) else []


def _cut(frames: Frames) -> Floats:
    """The tiles of the local view, [63, N, 64, 3]."""
    local = frames[:, : ROWS * TILE_PX].reshape(-1, ROWS, TILE_PX, COLUMNS, TILE_PX, 3)
    return local.transpose(1, 3, 0, 2, 4, 5).reshape(ROWS * COLUMNS, -1, TILE_PX**2, 3).astype(np.float32)


@cache
def _engine() -> tuple[Any, Any]:
    """The engine's textures and its module."""
    try:
        import crafter.constants
        import crafter.engine
    except ImportError as error:
        raise MissingDependency(
            "the Crafter engine, whose textures frames are compared with, is not installed; "
            f"run: {installing('worlds')}"
        ) from error
    return crafter.engine.Textures(crafter.constants.root / "assets"), crafter.engine


def _draw(ground: Frames, layers: Iterable[tuple[str, int, int]]) -> Frames:
    """Draw sprites (name, size and offset in pixels) over a tile [8, 8, 3] as the engine does."""
    library, engine = _engine()
    drawn = ground.transpose(1, 0, 2).copy()
    for name, size, offset in layers:
        engine._draw_alpha(drawn, (offset, offset), library.get(name, (size, size)))
    return drawn.transpose(1, 0, 2)


@cache
def _vignette() -> Floats:
    """How strongly night's noise covers each pixel of each tile, 0 to 1, [63, 64, 1]."""
    across, down = np.meshgrid(np.linspace(-1, 1, COLUMNS * TILE_PX), np.linspace(-1, 1, ROWS * TILE_PX))
    cover = 1 - np.exp(-0.5 * (across**2 + down**2) / 0.5**2)
    tiles = cover.reshape(ROWS, TILE_PX, COLUMNS, TILE_PX).swapaxes(1, 2)
    return tiles.reshape(ROWS * COLUMNS, TILE_PX**2, 1).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Light:
    """The textures under one light, ready to be compared with P tiles of D pixels (P = 1: with any tile).

    Noise adds one grey value to a pixel, of known deviation. Taking the share `damping` of the grey part away from
    both sides lets it weigh no more in their distance than a difference of TOLERANCE would.
    """

    pictures: Floats  # [P, classes, 3 * D]
    damping: Floats  # [P, 1, D, 1]
    gain: float  # the contrast that this light leaves
    visible: NDArray[np.bool_]  # [P], or [1] without noise


def _render(light: int, cover: Floats, pictures: Floats) -> _Light:
    """The light of that number on pictures [classes, D, 3] where noise covers [P, D, 1]."""
    daylight, sleeping = float(daylights()[light % len(daylights())]), light >= len(daylights())
    noise = np.float32(1 - 2 * daylight) * cover if daylight < 0.5 else np.zeros_like(cover[:1])
    deviation = NOISE_DEVIATION * (1 - daylight) / 2 * noise * (0.5 if sleeping else 1.0)
    excess = 1 + 3 * deviation**2 / TOLERANCE**2
    damping = (1 - excess**-0.5)[:, None]
    lit = shade(pictures, daylight, sleeping=sleeping, noise=noise[:, None])
    return _Light(
        pictures=_damp(lit, damping).reshape(len(noise), len(pictures), -1),
        damping=damping,
        gain=(daylight + (1 - daylight) / 2) * (0.5 if sleeping else 1.0),
        visible=noise.mean((1, 2)) <= VISIBLE_NOISE,
    )


@lru_cache(maxsize=4)
def _light(light: int) -> _Light:
    """A light on the whole view. Kept are few: at night one takes 3 MB."""
    return _render(light, _vignette(), textures())


@cache
def _middle_lights() -> tuple[_Light, ...]:
    """Every light on what _middle leaves of a view: awake from midnight to noon, then asleep."""
    cover, pictures = _middle(_vignette()), textures()[:, MIDDLE_PIXELS]
    return tuple(_render(light, cover, pictures) for light in range(2 * len(daylights())))


def _middle(tiles: Floats) -> Floats:
    """The nine tiles around the player, every second pixel across and down: [63, ..., 64, C] to [9, ..., 16, C]."""
    middle: Floats = tiles[MIDDLE_TILES][..., MIDDLE_PIXELS, :]
    return middle


def _find_light(tiles: Floats) -> NDArray[np.intp]:
    """The number of the light in which the middle of each view [63, N, 64, 3] is nearest to textures."""
    seen = _middle(tiles)
    grey = _grey(seen)
    misfits = []
    for light in _middle_lights():
        damped = (seen - light.damping * grey).reshape(*seen.shape[:2], -1)
        misfits.append(_squares(damped, light.pictures).min(-1).sum(0))
    lights: NDArray[np.intp] = np.stack(misfits).argmin(0)
    return lights


def _match(tiles: Floats, light: _Light) -> tuple[NDArray[np.intp], Floats]:
    """The nearest class of tiles [63, N, 64, 3] under that light, and how far it is; both [N, 7, 9]."""
    seen = _damp(tiles, light.damping).reshape(*tiles.shape[:2], -1)
    squares = _squares(seen, light.pictures)
    nearest, distance = squares.argmin(-1), np.sqrt(squares.min(-1) / seen.shape[-1]) / light.gain
    return nearest.T.reshape(-1, ROWS, COLUMNS), distance.T.reshape(-1, ROWS, COLUMNS)


def _damp(pixels: Floats, damping: Floats) -> Floats:
    damped: Floats = pixels - damping * _grey(pixels)
    return damped


def _grey(pixels: Floats) -> Floats:
    """The mean over channels, [..., 1]; numpy's own mean over so short an axis takes five times as long."""
    grey: Floats = (pixels[..., 0] + pixels[..., 1] + pixels[..., 2])[..., None] * np.float32(1 / 3)
    return grey


def _squares(seen: Floats, pictures: Floats) -> Floats:
    """Squared distances between every row of seen [P, N, D] and of pictures [P or 1, M, D], as [P, N, M]."""
    squares: Floats = (seen**2).sum(-1)[..., None] - 2 * (seen @ pictures.swapaxes(-1, -2))
    squares += (pictures**2).sum(-1)[..., None, :]
    return np.maximum(squares, 0, out=squares)


@cache
def _counts() -> Floats:
    """What each item's cell looks like at each count, [16, 10, 192]."""
    black = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    cells = [
        [black if not count else _draw(black, [(item, 6, 0), (str(count), 4, 3)]) for count in range(10)]
        for item in ITEMS
    ]
    return np.array(cells, np.float32).reshape(len(ITEMS), 10, -1)


def _read_inventory(frames: Frames) -> NDArray[np.int8]:
    """How many of each item the two lowest rows of tiles show, [N, 16]; -1 where no number fits."""
    rows = frames[:, ROWS * TILE_PX :].reshape(-1, 2, TILE_PX, COLUMNS, TILE_PX, 3).transpose(1, 3, 0, 2, 4, 5)
    cells = rows.reshape(2 * COLUMNS, len(frames), TILE_PX**2 * 3)[: len(ITEMS)].astype(np.float32)
    squares = _squares(cells, _counts())
    unlike = squares.min(-1) > cells.shape[-1] * INVENTORY_DISTANCE**2
    return np.where(unlike, -1, squares.argmin(-1)).astype(np.int8).T
