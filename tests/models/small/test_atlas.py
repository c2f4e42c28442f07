"""What was seen stays at its place, whoever walks over it and however far, and moves are told by what is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN
from worldsim.models.small.atlas import LARGEST, Atlas, Codes, Dim, Scroll

SCROLL = Scroll(rows=3, body=(1, 2), moves=((0, 0, 1), (1, 0, -1), (2, 1, 0), (3, -1, 0)))
COLUMNS = 5
STEPS = [(rows, columns) for _, rows, columns in SCROLL.moves] + [(0, 0)]


def land(rng: np.random.Generator, size: int = 400) -> Codes:
    return rng.integers(0, 500, (size, size)).astype(np.int16)


def view_of(land: Codes, place: tuple[int, int]) -> Codes:
    """What is seen from a place, with one more row below that shows no land."""
    row, column = place
    shown = land[row : row + SCROLL.rows, column : column + COLUMNS].copy()
    shown[SCROLL.body] = 999
    return np.concatenate((shown, np.full((1, COLUMNS), 888, np.int16)))


def opened() -> Atlas:
    return Atlas.of({}, SCROLL, COLUMNS)


@given(st.lists(st.sampled_from(STEPS), max_size=80), st.integers(0, 2**32 - 1))
def test_what_is_recalled_is_what_was_seen_there_last_and_is_out_of_view(
    steps: list[tuple[int, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tiles, place = land(rng), (200, 200)
    seen: dict[tuple[int, int], int] = {}
    atlas = opened()
    for step in [(0, 0), *steps]:
        place = (place[0] + step[0], place[1] + step[1])
        tiles[rng.integers(195, 206), rng.integers(195, 206)] = rng.integers(0, 500)
        shown = view_of(tiles, place)
        atlas = atlas.see(shown, step)
        for row, column in np.ndindex(SCROLL.rows, COLUMNS):
            if (row, column) != SCROLL.body:
                seen[place[0] + row, place[1] + column] = int(shown[row, column])
    for step in [*STEPS, (2, -1), (-7, 0)]:
        wanted = np.full((SCROLL.rows, COLUMNS), UNKNOWN)
        for row, column in np.ndindex(SCROLL.rows, COLUMNS):
            at = row + step[0], column + step[1]
            if not (0 <= at[0] < SCROLL.rows and 0 <= at[1] < COLUMNS):
                wanted[row, column] = seen.get((place[0] + at[0], place[1] + at[1]), UNKNOWN)
        assert atlas.recall(step).tolist() == wanted.tolist()


def test_by_night_the_clearest_sight_of_a_place_is_kept_unless_it_has_changed() -> None:
    """Codes stand out of the fog the more the higher they are."""
    by_day, worse, better = (np.full((4, COLUMNS), code, np.int16) for code in (5, 3, 7))
    changed = np.zeros((SCROLL.rows, COLUMNS), bool)
    changed[0, 1] = True
    dim = Dim(changed=changed, clear=np.arange(10, dtype=np.float32))
    left = opened().see(by_day, (0, 0)).see(worse, (0, 1), dim)
    assert left.recall((0, 5))[:, 0].tolist() == [UNKNOWN] * 3
    wanted = np.full((SCROLL.rows, COLUMNS), 5)
    wanted[:, -1] = wanted[0, 1] = 3  # what was unknown, and what has changed
    row, column = left.view
    assert left.tiles[row : row + SCROLL.rows, column : column + COLUMNS].tolist() == wanted.tolist()
    again = left.see(better, (0, 0), dim).tiles[row : row + SCROLL.rows, column : column + COLUMNS]
    wanted = np.full((SCROLL.rows, COLUMNS), 7)
    wanted[SCROLL.body] = 5  # who stands there hides it
    assert again.tolist() == wanted.tolist()


@pytest.mark.parametrize("night", [False, True])
def test_what_does_not_rest_hides_its_place_and_is_forgotten_once_it_has_left(night: bool) -> None:
    ground, crowd, other = (np.full((4, COLUMNS), code, np.int16) for code in (1, 7, 2))
    crowd[0, 0] = 1
    restless = np.arange(10) == 7
    dim = Dim(changed=np.ones((SCROLL.rows, COLUMNS), bool), clear=np.arange(10, dtype=np.float32)) if night else None

    def shown(*frames: Codes) -> Codes:
        atlas = opened().see(frames[0], (0, 0), restless=restless)
        for frame in frames[1:]:
            atlas = atlas.see(frame, (0, 0), dim, restless=restless)
        row, column = atlas.view
        land = atlas.tiles[row : row + SCROLL.rows, column : column + COLUMNS].copy()
        land[SCROLL.body] = 0
        return land

    apart = [
        np.array_equal(shown(*frames), shown(last))
        for *frames, last in (
            (ground, crowd, ground),
            (crowd, crowd),
            (crowd, ground, ground),
            (ground, crowd, other, other),
        )
    ]
    assert apart == [True] * 4


@pytest.mark.parametrize("move", [(0, 0), (0, 1), (1, 0)])
def test_a_frame_is_dim_by_night_and_tells_what_has_changed(move: tuple[int, int]) -> None:
    land = (FOG + 0.2).expand(12, 14, 12)
    sorts = torch.stack((FOG, FOG + 0.1, FOG - 0.3))
    before = by_night(land[1:10, 1:10], thick=0.0)
    after = before.clone()
    after[3, 5] = after[1, 2] = FOG - 0.3
    ((dim,), (day,)) = (
        WIDE.dim(before[None], shown[None], [move], sorts)
        for shown in (after, after.index_put((torch.tensor(3), torch.tensor(4)), torch.linspace(-1, 1, 12)))
    )
    assert day is None
    assert dim is not None
    assert np.argwhere(dim.changed).tolist() == [[3, 5]]  # in reach; of [1, 2] nothing is told
    assert dim.clear.argsort().tolist() == [1, 0, 2]  # told from the corners, which show land here


def test_what_was_seen_by_day_is_sure_and_stays_so_by_night_however_far_one_walks() -> None:
    """Codes stand out of the fog the more the higher they are; 7 does not rest."""
    by_day, by_night = (np.full((4, COLUMNS), code, np.int16) for code in (5, 3))
    by_day[0, 0] = 7
    restless = np.arange(10) == 7
    dim = Dim(changed=np.zeros((SCROLL.rows, COLUMNS), bool), clear=np.arange(10, dtype=np.float32))
    left = opened().see(by_day, (0, 0), restless=restless)
    for _ in range(40):
        left = left.see(by_night, (0, 1), dim, restless=restless)
    sure = left.surely((0, -40))
    wanted = np.ones((SCROLL.rows, COLUMNS), bool)
    wanted[0, 0] = wanted[SCROLL.body] = False
    assert sure.tolist() == wanted.tolist()
    assert not left.surely((0, -20)).any()  # seen by night alone
    assert not left.surely((0, 0)).any()  # in view
    assert (left.recall((0, -40))[sure] == 5).all()


def test_an_atlas_stays_as_it_is_when_more_is_seen() -> None:
    rng = np.random.default_rng(1)
    tiles = land(rng)
    atlas = opened().see(view_of(tiles, (50, 50)), (0, 0))
    before = atlas.tiles.copy()
    atlas.see(view_of(tiles, (70, 70)), (0, 0))
    assert np.array_equal(atlas.tiles, before)


def test_an_atlas_keeps_what_lies_around_the_view_however_far_one_walks() -> None:
    tiles = land(np.random.default_rng(2), size=800)
    atlas = opened().see(view_of(tiles, (5, 5)), (0, 0))
    for at in range(6, 700):
        atlas = atlas.see(view_of(tiles, (at, 5)), (1, 0))
        assert max(atlas.tiles.shape) <= LARGEST
    for back in (3, 20, 60):
        wanted = view_of(tiles, (699 - back, 5))[: SCROLL.rows]
        found = atlas.recall((-back, 0))
        assert (found == wanted).sum() >= found.size - 1  # but for whoever stood there


WIDE = replace(SCROLL, rows=7, body=(3, 4))


@pytest.mark.parametrize("seed", range(5))
def test_a_bump_by_night_is_no_step(seed: int) -> None:
    """Where all looks alike and nothing stays quite as it was, a view that stayed is still more like itself."""
    generator = torch.Generator().manual_seed(seed)
    wide = 0.02 * torch.randn(12, 14, 12, generator=generator)
    trembles = 0.02 * torch.randn(2, 9, 9, 12, generator=generator)
    for control, rows, columns in WIDE.moves:
        asked = torch.eye(5)[[control]]
        before = wide[1:10, 1:10]
        stepped = wide[1 + rows : 10 + rows, 1 + columns : 10 + columns]
        before, stayed, stepped = before + trembles[0], before + trembles[1], stepped + trembles[1]
        assert WIDE.made(before[None], stayed[None], asked).tolist() == [[0, 0]]
        assert WIDE.made(before[None], stepped[None], asked).tolist() == [[rows, columns]]


FOG = torch.linspace(-0.6, -0.4, 12)


def by_night(land: torch.Tensor, thick: float) -> torch.Tensor:
    """Land [9, 9, 12] under a fog that leaves less of it the farther from the body it lies; that is seen well."""
    row, column = torch.meshgrid(torch.arange(9) - WIDE.body[0], torch.arange(9) - WIDE.body[1], indexing="ij")
    left = (-thick * (row**2 + column**2) / 8).exp()[..., None]
    shown = left * land + (1 - left) * FOG
    shown[WIDE.body] = torch.linspace(-0.9, -0.3, 12)
    return shown


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("thick", [0.0, 0.5, 1.0])
def test_a_step_over_plain_ground_in_fog_is_no_bump(seed: int, thick: float) -> None:
    """All ground is the same, but for a few places and for the wall before a body that stays."""
    generator = torch.Generator().manual_seed(seed)
    ground = (FOG + 0.4 * torch.rand(12, generator=generator)).expand(12, 14, 12).clone()
    for row, column in ((2, 3), (3, 8), (8, 4)):
        ground[row, column] = FOG + 0.4 * torch.rand(12, generator=generator)
    for control, rows, columns in WIDE.moves:
        asked = torch.eye(5)[[control]]
        before = by_night(ground[1:10, 1:10], thick)
        stepped = by_night(ground[1 + rows : 10 + rows, 1 + columns : 10 + columns], thick)
        assert WIDE.made(before[None], stepped[None], asked).tolist() == [[rows, columns]]
        walled, ahead = ground.clone(), (1 + WIDE.body[0] + rows, 1 + WIDE.body[1] + columns)
        for aside in (-1, 0, 1):
            walled[ahead[0] + aside * columns, ahead[1] + aside * rows] = FOG + 0.5
        stayed = by_night(walled[1:10, 1:10], thick)
        assert WIDE.made(stayed[None], stayed[None], asked).tolist() == [[0, 0]]


def test_a_creature_that_follows_over_open_ground_is_no_bump() -> None:
    """It stays where it was in the view, as if that had not moved; in the way it is a bump."""
    plain = by_night((FOG + 0.2).expand(9, 9, 12), thick=0.0)
    for column, made in ((3, [[0, 1]]), (5, [[0, 0]])):
        frame = plain.clone()
        frame[3, column] = FOG + 0.37
        assert WIDE.made(frame[None], frame[None], torch.eye(5)[[0]]).tolist() == made


def test_what_enters_is_what_a_move_brings_into_view() -> None:
    controls = torch.eye(5)
    for vector, (rows, columns) in zip(controls, STEPS, strict=True):
        entering = SCROLL.enters(vector, COLUMNS)
        for row, column in np.ndindex(SCROLL.rows, COLUMNS):
            inside = 0 <= row + rows < SCROLL.rows and 0 <= column + columns < COLUMNS
            assert bool(entering[row, column]) is not inside


def test_an_atlas_is_read_back_from_its_tensors() -> None:
    atlas = (
        opened().see(view_of(land(np.random.default_rng(3)), (9, 9)), (0, 0)).see(np.zeros((4, 5), np.int16), (0, 1))
    )
    again = Atlas.of(atlas.tensors, SCROLL, COLUMNS)
    assert np.array_equal(again.tiles, atlas.tiles)
    assert again.view == atlas.view


@pytest.mark.parametrize(
    "wrong",
    [
        {"view": torch.tensor([-1, 0])},
        {"view": torch.tensor([0, 33])},
        {"view": torch.tensor([33, 0])},
        {"view": torch.tensor([1])},
        {"view": torch.tensor([1.0, 1.0])},
        {"tiles": torch.zeros(35, 37)},
        {"tiles": torch.zeros(37, dtype=torch.int16)},
        {"tiles": torch.zeros(2, 37, dtype=torch.int16)},
        {"more": torch.zeros(1)},
    ],
    ids=str,
)
def test_tensors_that_are_no_atlas_are_refused(wrong: dict[str, torch.Tensor]) -> None:
    tensors = opened().tensors
    assert Atlas.of(tensors | {"view": torch.tensor([32, 32])}, SCROLL, COLUMNS).view == (32, 32)
    with pytest.raises(ConfigError, match=r"a memory of places has tiles, .* a view of 3 by 5 inside them"):
        Atlas.of(tensors | wrong, SCROLL, COLUMNS)
    with pytest.raises(ConfigError, match="a memory of places has tiles"):
        Atlas.of({"view": tensors["view"]}, SCROLL, COLUMNS)


def test_controls_ask_for_the_first_move_that_is_held() -> None:
    controls = torch.tensor([[0.0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]])
    assert SCROLL.asked(controls).tolist() == [[0, 0], [0, -1], [0, 1], [-1, 0]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("light", [1.0, 0.9])
def test_a_view_has_moved_or_stayed_as_what_it_shows_says(seed: int, light: float) -> None:
    """Random tiles, of which some change and all may get darker; the body shows the same wherever it is."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.rand(40, 40, 6, generator=generator)

    def patches(row: int, column: int) -> torch.Tensor:
        shown = tiles[row : row + 9, column : column + 9].clone()
        changed = torch.rand(9, 9, generator=generator) < 0.05
        shown[changed] = torch.rand(6, generator=generator)
        shown[7:] = 0.0
        shown[WIDE.body] = torch.linspace(0, 1, 6)
        return shown

    for number, (_, rows, columns) in enumerate(WIDE.moves):
        controls = torch.zeros(2, 5)
        controls[:, number] = 1
        before = torch.stack([patches(10, 10)] * 2)
        after = torch.stack([patches(10 + rows, 10 + columns), patches(10, 10)]) * light
        assert WIDE.made(before, after, controls).tolist() == [[rows, columns], [0, 0]]


def test_a_view_of_one_thing_everywhere_is_taken_to_have_moved() -> None:
    grass, controls = torch.ones(1, 4, COLUMNS, 6), torch.tensor([[1.0, 0, 0, 0]])
    assert SCROLL.made(grass, grass, controls).tolist() == [[0, 1]]
    assert SCROLL.made(grass, grass, torch.zeros(1, 4)).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"moves": ()}, {"moves": ((0, 1),)}, {"moves": ((0, 2, 0),)}, {"body": (1,)}]
)
def test_a_scroll_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="a view"):
        replace(SCROLL, **wrong)  # type: ignore[arg-type]
