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

from worldsim.errors import MissingDependency, ShapeError

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

Less than half the smallest distance between two classes (11.6), and less than that of any texture to itself after a
blur over 3 x 3 pixels or to its mean colour (6.6 for the palest, path; the void beyond the map has no texture to blur).
"""

INVENTORY_DISTANCE = 20.0

VISIBLE_NOISE = 0.5
"""A tile is judged where night's noise takes at most this share of its pixels' light, on average over the tile."""

NOISE_MEAN, NOISE_DEVIATION = (32 + 127) / 2, (127 - 32) / 12**0.5
TOLERANCE = 2.0  # grey levels by which a frame may differ from the engine's and still tell its daylight


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

    def __getitem__(self, index: slice | NDArray[Any]) -> Reading:
        return Reading(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

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


def read_frames(frames: Frames, *, batch: int = 64) -> Reading:
    """Read Crafter frames uint8 [N, 72, 72, 3].

    Raises:
        ShapeError: frames of another size or dtype.
        MissingDependency: the engine, whose textures are the reference, is not installed.
    """
    if frames.dtype != np.uint8 or frames.shape[1:] != FRAME_SHAPE:
        raise ShapeError(
            f"expected frames uint8 [N, 72, 72, 3], got {frames.dtype} {list(frames.shape)}; "
            "render Crafter at 72 x 72 so that a tile is 8 x 8 pixels"
        )
    parts = [_lights(_cut(frames[at : at + batch])) for at in range(0, len(frames), batch)]
    lights = np.concatenate([np.empty(0, np.intp), *parts])
    tiles = np.empty((len(frames), ROWS, COLUMNS), np.int16)
    distance = np.empty(tiles.shape, np.float32)
    visible = np.empty(tiles.shape, np.bool_)
    for light in np.unique(lights):
        (where,) = np.nonzero(lights == light)
        visible[where] = _noise_share(light) <= VISIBLE_NOISE
        for some in np.array_split(where, -(-len(where) // batch)):
            tiles[some], distance[some] = _match(_cut(frames[some]), int(light))
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
def daylights() -> Floats:
    """The daylights that the engine's day of 300 frames knows, rising, [151]."""
    progress = (np.arange(300) / 300) % 1 + 0.3
    return np.unique(np.round(1 - np.abs(np.cos(np.pi * progress)) ** 3, 6)).astype(np.float32)


def _cut(frames: Frames) -> Floats:
    """The tiles of the local view, [N, 63, 64, 3]."""
    local = frames[:, : ROWS * TILE_PX].reshape(-1, ROWS, TILE_PX, COLUMNS, TILE_PX, 3)
    return local.swapaxes(2, 3).reshape(len(frames), ROWS * COLUMNS, TILE_PX**2, 3).astype(np.float32)


@cache
def _engine() -> Any:
    try:
        import crafter.constants
        import crafter.engine
    except ImportError as error:
        raise MissingDependency(
            "the Crafter engine, whose textures frames are compared with, is not installed; "
            "run: pip install 'worldsim[worlds]'"
        ) from error
    return crafter.engine.Textures(crafter.constants.root / "assets"), crafter.engine


def _composite(canvas: Frames, layers: Iterable[tuple[str, int, int]]) -> Frames:
    """Draw sprites (name, size and offset in pixels) over a tile as the engine does; returns [8, 8, 3]."""
    textures, engine = _engine()
    drawn = canvas.transpose(1, 0, 2).copy()
    for name, size, offset in layers:
        engine._draw_alpha(drawn, (offset, offset), textures.get(name, (size, size)))
    return drawn.transpose(1, 0, 2)


@cache
def textures() -> Floats:
    """The picture of every class by full daylight, [classes, 64, 3], grey levels 0 to 255."""
    library, _ = _engine()
    pictures = []
    for material, sprite in CLASSES:
        ground = np.full((TILE_PX, TILE_PX, 3), 127, np.uint8)
        if material != "void":
            ground[:] = library.get(material, (TILE_PX, TILE_PX))[..., :3].transpose(1, 0, 2)
        pictures.append(_composite(ground, [(sprite, TILE_PX, 0)] if sprite else []))
    return np.stack(pictures).reshape(len(CLASSES), TILE_PX**2, 3).astype(np.float32)


@cache
def _vignette() -> Floats:
    """How strongly night's noise covers each pixel of each tile, 0 to 1, [63, 64, 1]."""
    across, down = np.meshgrid(np.linspace(-1, 1, COLUMNS * TILE_PX), np.linspace(-1, 1, ROWS * TILE_PX))
    cover = 1 - np.exp(-0.5 * (across**2 + down**2) / 0.5**2)
    tiles = cover.reshape(ROWS, TILE_PX, COLUMNS, TILE_PX).swapaxes(1, 2)
    return tiles.reshape(ROWS * COLUMNS, TILE_PX**2, 1).astype(np.float32)


def _noise(daylight: float) -> Floats:
    """The share of each pixel that is noise at that daylight, [63, 64, 1]; [1, 64, 1] by day, when there is none."""
    if daylight >= 0.5:
        return np.zeros((1, TILE_PX**2, 1), np.float32)
    return np.float32(2 * (0.5 - daylight)) * _vignette()


def _noise_share(light: int) -> Floats:
    """The noise of each tile under a light, [7, 9] (or [1, 1] where there is none)."""
    share = _noise(float(daylights()[light % len(daylights())])).mean((1, 2))
    return share.reshape(ROWS, COLUMNS) if len(share) > 1 else share.reshape(1, 1)


def shade(picture: Floats, daylight: float, *, sleeping: bool, noise: Floats) -> Floats:
    """What the engine makes of colours [..., 3] at a daylight, with the noise (a share, [..., 1]) at its mean."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    night = (1 - noise) * picture + noise * np.float32(NOISE_MEAN)
    night = 0.4 * night + 0.6 * (night @ weights)[..., None]
    night = 0.5 * night + 0.5 * np.array([0, 16, 64], np.float32)
    lit = daylight * picture + (1 - daylight) * night
    if sleeping:
        lit = 0.5 * np.repeat((lit @ weights)[..., None], 3, axis=-1) + 0.5 * np.array([0, 0, 16], np.float32)
    return lit.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Light:
    """The textures under one light, ready to be compared with tiles.

    Noise adds one grey value to a pixel; its deviation is known. Dividing the grey part of a difference by that
    makes the squared distance a log likelihood: damping is the share of the grey part to take away.
    """

    pictures: Floats  # [63 or 1, classes, 192], damped
    damping: Floats  # [63 or 1, 64, 1]
    surprise: Floats  # log of the volume of the noise, per tile [63 or 1]
    gain: float  # the contrast left by this light


@lru_cache(maxsize=4)
def _light(light: int) -> _Light:
    daylight, sleeping = float(daylights()[light % len(daylights())]), light >= len(daylights())
    noise = _noise(daylight)
    deviation = NOISE_DEVIATION * (1 - daylight) / 2 * noise * (0.5 if sleeping else 1.0)
    excess = 1 + 3 * deviation**2 / TOLERANCE**2
    damping = (1 - excess**-0.5).astype(np.float32)
    lit = shade(textures()[None], daylight, sleeping=sleeping, noise=noise[:, None])
    return _Light(
        pictures=_damp(lit, damping[:, None]).reshape(len(noise), len(CLASSES), -1),
        damping=damping,
        surprise=np.log(excess).sum((1, 2)).astype(np.float32),
        gain=(daylight + (1 - daylight) / 2) * (0.5 if sleeping else 1.0),
    )


def _damp(pixels: Floats, damping: Floats) -> Floats:
    return pixels - damping * _grey(pixels)


def _grey(pixels: Floats) -> Floats:
    """The mean over channels, [..., 1]; numpy's own mean over so short an axis takes five times as long."""
    grey: Floats = (pixels[..., 0] + pixels[..., 1] + pixels[..., 2])[..., None] / 3
    return grey


def _match(tiles: Floats, light: int) -> tuple[NDArray[np.intp], Floats]:
    """The nearest class of tiles [N, 63, 64, 3] under one light and its distance, both [N, 7, 9]."""
    under = _light(light)
    seen = _damp(tiles, under.damping).reshape(len(tiles), ROWS * COLUMNS, -1)
    squares = _squares(seen.swapaxes(0, 1), under.pictures).swapaxes(0, 1)
    nearest = squares.argmin(-1)
    distance = np.sqrt(squares.min(-1) / seen.shape[-1]) / under.gain
    shape = (len(tiles), ROWS, COLUMNS)
    return nearest.reshape(shape), distance.reshape(shape).astype(np.float32)


def _squares(seen: Floats, pictures: Floats) -> Floats:
    """Squared distances between every row of seen [P, N, D] and of pictures [P or 1, M, D], as [P, N, M]."""
    cross = seen @ pictures.swapaxes(-1, -2)
    squares: Floats = (seen**2).sum(-1)[..., None] - 2 * cross + (pictures**2).sum(-1)[..., None, :]
    return np.maximum(squares, 0)


@cache
def _middle() -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats, Floats]:
    """All lights at once for the nine middle tiles, from every second pixel across and down.

    Returns the tiles' indices [9], the pixels' indices [16], pictures [lights, 9, classes, 48], damping
    [lights, 9, 16, 1] and surprise [lights].
    """
    rows, columns = (np.arange(centre - 1, centre + 2) for centre in CENTRE)
    tiles = (rows[:, None] * COLUMNS + columns).ravel()
    pixels = np.arange(TILE_PX**2).reshape(TILE_PX, TILE_PX)[::2, ::2].ravel()
    shape = (ROWS * COLUMNS, TILE_PX**2, 1)
    pictures, dampings, surprises = [], [], []
    for light in range(2 * len(daylights())):
        under = _light(light)
        lit = np.broadcast_to(under.pictures, (ROWS * COLUMNS, *under.pictures.shape[1:]))[tiles]
        pictures.append(lit.reshape(9, len(CLASSES), TILE_PX**2, 3)[:, :, pixels].reshape(9, len(CLASSES), -1))
        dampings.append(np.broadcast_to(under.damping, shape)[tiles][:, pixels])
        surprises.append(np.broadcast_to(under.surprise, ROWS * COLUMNS)[tiles].sum() * len(pixels) / TILE_PX**2)
    return tiles, pixels, np.stack(pictures), np.stack(dampings), np.array(surprises, np.float32)


def _lights(tiles: Floats) -> NDArray[np.intp]:
    """The light of each frame, from its tiles [N, 63, 64, 3]: index into the daylights, asleep ones after awake."""
    where, pixels, pictures, damping, surprise = _middle()
    seen = tiles[:, where][:, :, pixels].swapaxes(0, 1)
    grey = _grey(seen)
    misfit = np.empty((len(tiles), len(pictures)), np.float32)
    for light in range(len(pictures)):
        damped = (seen - damping[light][:, None] * grey).reshape(len(where), len(tiles), -1)
        squares = _squares(damped, pictures[light])
        misfit[:, light] = squares.min(-1).sum(0) / TOLERANCE**2 + surprise[light]
    return misfit.argmin(1)


@cache
def _counts() -> Floats:
    """What each item's cell looks like at each count, [16, 10, 192]."""
    black = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    cells = [
        [black if not count else _composite(black, [(item, 6, 0), (str(count), 4, 3)]) for count in range(10)]
        for item in ITEMS
    ]
    return np.array(cells, np.float32).reshape(len(ITEMS), 10, -1)


def _read_inventory(frames: Frames) -> NDArray[np.int8]:
    """How many of each item the two lowest rows of tiles show, [N, 16]; -1 where no number fits."""
    below = frames[:, ROWS * TILE_PX :].reshape(-1, 2, TILE_PX, COLUMNS, TILE_PX, 3).swapaxes(2, 3)
    cells = below.reshape(len(frames), 2 * COLUMNS, -1)[:, : len(ITEMS)].astype(np.float32)
    squares = _squares(cells.swapaxes(0, 1), _counts()).swapaxes(0, 1)
    far = squares.min(-1) > cells.shape[-1] * INVENTORY_DISTANCE**2
    return np.where(far, -1, squares.argmin(-1)).astype(np.int8)
