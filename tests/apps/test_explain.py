"""What blocks attended to is drawn where it belongs, and the numbers are those that were measured."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from worldsim.cache.policy import SinkWindow
from worldsim.cache.sight import Sight
from worldsim.errors import ConfigError, SpillError
from worldsim.testing.fakes import tiny_world
from worldsim_apps.explain import (
    BORDER,
    LEFT,
    MOST_COLUMNS,
    PROBES,
    SINGLE,
    TOP,
    UNSEEN,
    Explained,
    bands,
    by_age,
    drawing,
    retrieved_rows,
)

NEAR = Sight(frames=(-2, -1), shares=(0.125, 0.5))
FAR = Sight(frames=(-2, 0, 1), retrieved=(-2,), shares=(0.25, 0.125, 0.125))
SINK = Sight(frames=(-2, 0, 1), shares=(0.25, 0.125, 0.125))


@pytest.mark.parametrize("oldest", [1, 7, SINGLE, SINGLE + 1, 500, 28_800])
def test_every_age_has_one_row_and_rows_are_few(oldest):
    rows = bands(oldest)
    assert rows[0].start == 1
    assert rows[-1].stop > oldest >= rows[-1].start
    assert all(before.stop == after.start for before, after in pairwise(rows))
    assert len(rows) == oldest if oldest <= SINGLE else len(rows) < 60


def test_shares_stand_in_the_row_of_their_age_and_what_was_not_seen_is_not_nothing():
    table = by_age([NEAR, FAR], [range(1, 2), range(2, 3), range(3, 5)], length=2)
    unseen = np.nan
    assert np.array_equal(
        table,
        [[0.5, 0.125], [0.125, 0.125], [unseen, 0.25], [0.375, 0.5]],
        equal_nan=True,
    )


def test_ages_that_share_a_row_are_added_up():
    assert by_age([NEAR], [range(1, 3), range(3, 4)], length=1)[0, 0] == 0.625


def cell(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    """The colour in the middle of a cell of a picture with few blocks, whose cells are 16 high and 48 wide."""
    return tuple(picture[TOP + 16 * row + 8, LEFT + 48 * column + 24].tolist())


def test_what_is_older_is_drawn_higher_and_what_gets_more_is_brighter():
    picture = drawing([NEAR, FAR], of="here", length=2, fps=8)
    rows = 4  # FAR saw frame -2 from frame 2 on
    assert cell(picture, 0, 0) == cell(picture, 1, 0) == cell(picture, 1, 1) == UNSEEN
    bright = {where: sum(cell(picture, *where)) for where in ((rows - 1, 0), (rows - 2, 0), (0, 1), (rows - 1, 1))}
    assert bright[rows - 1, 0] > bright[0, 1] > bright[rows - 2, 0] == bright[rows - 1, 1]


def test_what_was_retrieved_is_told_apart_from_what_is_near_and_from_a_sink_by_lines():
    rows = bands(8)
    assert retrieved_rows([NEAR, FAR, Sight()], rows, length=2) == [[], [range(3, 4)], []]
    adjoining = Sight(frames=(-1, 0, 1), retrieved=(-1,), shares=FAR.shares)
    assert retrieved_rows([SINK, adjoining], rows, length=2) == [[], [range(2, 3)]]
    behind = Sight(frames=(-8, -6, -5, -3, -1), retrieved=(-6, -5, -3), shares=(0.1,) * 5)
    assert retrieved_rows([behind], rows, length=2) == [[range(2, 3), range(4, 6)]]
    assert retrieved_rows([behind], [range(1, 4), range(4, 5), range(5, 9)], length=2) == [[range(0, 1), range(2, 3)]]
    lines = (drawing([NEAR, FAR], of="here", length=2, fps=8) == BORDER).all(-1)
    for row in (0, 1):  # above and below the one row that holds it
        assert lines[TOP + 16 * row, LEFT:].nonzero()[0].tolist() == [*range(48, 96)]
    assert lines.sum() == 3 * 48, "of the line at the upper edge half is seen"
    assert not (drawing([NEAR, SINK], of="here", length=2, fps=8) == BORDER).all(-1).any()


def test_blocks_that_share_a_column_have_their_line_there():
    blocks = 2 * MOST_COLUMNS + 1
    walk = [Sight(frames=(-3, at - 1), retrieved=(-3,), shares=(0.5, 0.25)) for at in range(blocks)]
    lines = (drawing(walk, of="here", length=1, fps=8) == BORDER).all(-1)
    assert lines.sum(0).nonzero()[0].tolist() == [*range(LEFT, LEFT + blocks // 3 + 1)]


def test_a_picture_says_what_it_is_of_and_how_its_rows_go_on(monkeypatch):
    said = []
    monkeypatch.setattr("worldsim_apps.explain._say", lambda canvas, text, at, **_: said.append(text))
    for walk in ([NEAR], [NEAR, FAR], [Sight(frames=(-SINGLE - 1,), shares=(0.5,))]):
        drawing(walk, of="crafter, policy full", length=2, fps=8)
    assert said.count("crafter, policy full") == 3
    even, brought, far = (text for text in said if text.startswith("Rows go up"))
    assert even == "Rows go up in equal steps"
    assert brought == f"{even}; between red lines: retrieved"
    assert far == "Rows go up by logarithm, each 1.2 times as far back as the one below"


def test_a_long_name_widens_the_picture():
    narrow, wide = (drawing([NEAR], of="here" * times, length=2, fps=8) for times in (1, 99))
    assert wide.shape[1] > narrow.shape[1]


def test_a_long_walk_has_a_picture_no_wider_and_its_columns_are_means():
    blocks = 3 * MOST_COLUMNS - 1
    walk = [Sight(frames=(at - 1,), shares=(0.75 if at % 3 == 0 else 0.0,)) for at in range(blocks)]
    picture = drawing(walk, of="here", length=1, fps=8)
    assert picture.shape[1] <= drawing(walk[:MOST_COLUMNS], of="here", length=1, fps=8).shape[1]
    row = picture[TOP + 8, LEFT : LEFT + MOST_COLUMNS]
    # Whole groups hold one third of 0.75, the last, of which one column is missing, half of it.
    assert len(np.unique(row[:-1], axis=0)) == 1
    assert sum(row[-1].tolist()) > sum(row[0].tolist())


def test_a_walk_is_measured_drawn_and_told(tmp_path):
    world = tiny_world(policy=SinkWindow(sink=1, window=2))
    explained, told = Explained(world, tmp_path / "new" / "deep" / "a.PNG"), []
    with world.open(seed=3) as session:
        note, seen = explained.follow(session, told.append), []
        for _ in range(3):
            session.step({"KeyD"})
            note(1)
            seen.append(session.seen)
    explained.draw()
    found = explained.to_dict()["explain"]
    assert told == [1, 1, 1]
    assert (found["path"], found["probes"]) == (str(tmp_path / "new" / "deep" / "a.PNG"), PROBES)
    assert [block["frames"] for block in found["blocks"]] == [(-5, -2, -1), (-5, -1, 0), (-5, 0, 1)]
    assert [block["retrieved"] for block in found["blocks"]] == [(), (), ()]
    for block, one in zip(found["blocks"], seen, strict=True):
        assert block["shares"] == pytest.approx(one.shares, abs=1e-5)
    of = f"{world.origin.name}, policy sink:sink=1,window=2"
    assert np.array_equal(cv2.imread(found["path"]), drawing(seen, of=of, length=1, fps=world.fps))


def test_without_a_path_nothing_is_measured_and_without_a_block_nothing_is_drawn(tmp_path):
    world = tiny_world()
    unasked = Explained(world, None)
    assert world.plan.probes == 0
    with world.open(seed=3) as session:
        assert unasked.follow(session, print) is print
    unasked.draw()
    assert unasked.to_dict() == {}
    assert Explained(world, tmp_path / "a.png").to_dict() == {}
    assert not (tmp_path / "a.png").exists()


def test_a_picture_of_another_kind_is_refused():
    world = tiny_world()
    with pytest.raises(ConfigError, match=r"drawn as a \.png, got out/a\.svg"):
        Explained(world, Path("out/a.svg"))
    assert world.plan.probes == 0


@pytest.mark.parametrize("inside", ["a.png", "deeper/a.png"])
def test_a_picture_in_a_file_in_place_of_a_folder_is_refused(inside, tmp_path):
    (tmp_path / "file").touch()
    told = f"{inside} cannot be made, since {tmp_path}/file is a file and no folder; name another"
    with pytest.raises(ConfigError, match=told):
        Explained(tiny_world(), tmp_path / "file" / inside)


@pytest.mark.parametrize("is_writable", [True, False])
def test_what_a_walk_that_failed_attended_to_is_drawn_where_it_can_be_and_the_fault_is_told(tmp_path, is_writable):
    world = tiny_world()
    explained = Explained(world, tmp_path / "why.png")
    if not is_writable:
        (tmp_path / "why.png").mkdir()
    session = world.open(seed=1)
    note = explained.follow(session, lambda _: None)

    def fail() -> None:
        with explained:
            for _ in range(3):
                note(len(session.step().frames))
            raise SpillError("a page is lost")

    with pytest.raises(SpillError, match="a page is lost"):
        fail()
    assert (tmp_path / "why.png").is_file() == is_writable


def test_a_walk_that_ends_well_is_drawn_when_it_is_asked_for(tmp_path):
    world = tiny_world()
    explained = Explained(world, tmp_path / "why.png")
    session = world.open(seed=1)
    note = explained.follow(session, lambda _: None)
    with explained:
        note(len(session.step().frames))
    assert not (tmp_path / "why.png").exists()
    explained.draw()
    assert cv2.imread(str(tmp_path / "why.png")) is not None
