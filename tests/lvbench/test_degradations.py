"""Each light score moves the way it should when a clip goes bad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lvbench.degradations import COMPANIONS_SHOWN, DEGRADATIONS, SHOWN, clip, scores, table
from lvbench.light import Light

SIZE, COUNT = (120, 208), 120


@pytest.fixture(scope="module")
def found():
    return {kind: scores(how, Light(), size=SIZE, count=COUNT) for kind, how in DEGRADATIONS.items()}


def drift(found, kind, name):
    (judged,) = [judged for given, judged in found.items() if given.startswith(kind)]
    return judged.scores[f"drift.{name}"].value


@pytest.mark.parametrize(
    ("kind", "name", "factor"),
    [
        ("blur", "clarity", 5),
        ("noise", "clarity", 5),
        ("noise", "motion", 5),
        ("freeze", "dynamic", 3),
        ("freeze", "motion", 3),
        ("colour shift", "identity", 5),
        ("jump cut", "background", 2),
        ("jump cut", "identity", 5),
        ("identity change", "identity", 3),
        ("identity change", "subject", 1.5),
    ],
)
def test_what_is_done_to_a_clip_is_seen_by_the_score_that_is_meant_for_it(found, kind, name, factor):
    assert drift(found, kind, name) > factor * drift(found, "none", name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("identity change", "background"), ("colour shift", "clarity"), ("freeze", "clarity"), ("jump cut", "clarity")],
)
def test_and_not_by_one_that_is_not(found, kind, name):
    assert drift(found, kind, name) < 2 * drift(found, "none", name) + 0.005


def test_a_loop_does_not_drift(found):
    assert drift(found, "loop", "identity") <= drift(found, "none", "identity") + 0.005


def test_the_same_seed_draws_the_same_clip():
    for how in DEGRADATIONS.values():
        one, other = (list(clip(how, (48, 80), 20, seed=3)) for _ in range(2))
        assert np.array_equal(one, other)


def test_nothing_is_done_to_the_first_chunk_by_what_grows():
    clean = list(clip(DEGRADATIONS["none"], (48, 80), 20, seed=0))
    for kind in ("blur, to sigma 3", "colour shift, to 60 levels"):
        worse = list(clip(DEGRADATIONS[kind], (48, 80), 20, seed=0))
        assert np.array_equal(worse[:2], clean[:2])
        assert not np.array_equal(worse[-1], clean[-1])


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_what_is_meant_to_move_moves_that_way(found, kind):
    clean, judged = found["none"].scores, found[kind].scores
    for told in DEGRADATIONS[kind].moves.split("; "):
        way, _, names = told.partition(": ")
        if way in {"up", "down"}:
            names = names.replace(" and ", " drift, ") if "drift" in names else names
            for name in names.split(", "):
                score = f"drift.{name.removesuffix(' drift')}" if name.endswith(" drift") else name.replace(" ", "_")
                assert (judged[score].value > clean[score].value) == (way == "up"), score


def test_the_table_has_a_line_for_each_degradation(found):
    lines, _, reading = table(found).partition("\n\n")
    assert "A loop is no better" in reading
    lines = lines.splitlines()
    assert len(lines) == 2 + len(DEGRADATIONS)
    assert all(line.count("|") == 3 + len(SHOWN) + len(COMPANIONS_SHOWN) for line in lines)
    assert all(
        line.startswith(f"| {kind} | {how.moves} | ")
        for line, (kind, how) in zip(lines[2:], DEGRADATIONS.items(), strict=True)
    )
    judged = found["none"]
    gone = replace(judged, scores={**judged.scores, "drift.clarity": judged.scores["drift.aesthetic"]})
    assert "| unscored |" in table({"none": gone})
