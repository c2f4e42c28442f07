"""Each measure is its one line of numpy, and a companion is the measure over one chunk."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench.errors import ConfigError, UnknownName, VideoRefused
from lvbench.features import Features
from lvbench.measures import (
    COMPANIONS,
    DIMENSIONS,
    chunk_values,
    chunks_of,
    companion,
    dimensions_of,
    smoothness,
    steadiness,
)
from lvbench.score import Score, Unscored
from tests.lvbench.films import synthetic


def features(frames: int = 43, seed: int = 0) -> Features:
    generator = np.random.default_rng(seed)
    rows = {
        name: generator.uniform(0, 100, frames).astype(np.float32)
        for name in ("clarity", "aesthetic", "interpolation_error", "difference", "flow")
    }
    looks = {name: generator.random((frames, 5)).astype(np.float32) for name in ("subject", "background")}
    for name, first, last in (("interpolation_error", 1, 1), ("difference", 1, 0), ("flow", 0, 2)):
        rows[name][:first] = np.nan
        rows[name][frames - last :] = np.nan
    return Features(frames=frames, tracks={**rows, **looks})


def test_steadiness_is_the_published_number_on_the_published_clip():
    frames = synthetic().astype(np.int64)
    errors = np.abs(frames[1:] - frames[:-1]).mean((1, 2, 3))
    assert errors[:3] == pytest.approx([38.447266, 38.887802, 38.884007], abs=4e-6)  # as float32 tells them
    part = np.array([np.nan, *errors], np.float32)
    assert steadiness(part) == pytest.approx(0.848377587, abs=1e-6)


def test_smoothness_is_the_published_number_on_the_published_clip():
    frames = synthetic().astype(np.int64)
    guess = (frames[:-2] + frames[2:]) // 2  # a plain average, cut to bytes, in place of a network
    errors = np.abs(frames[1:-1] - guess).mean((1, 2, 3))
    part = np.array([np.nan, *errors, np.nan], np.float32)
    assert smoothness(part) == pytest.approx(0.913037429, abs=1e-6)
    assert len(part[1:-1:2]) == 5


def test_chunks_are_equal_and_the_tail_is_left_out():
    assert [(part.start, part.stop) for part in chunks_of(43, 10)][::9] == [(0, 4), (36, 40)]
    assert [part.stop - part.start for part in chunks_of(11, 3)] == [3, 3, 3]


def test_a_video_too_short_for_its_chunks_says_how_many_would_fit():
    with pytest.raises(VideoRefused, match=r"29 frames are too few for 10 chunks .* at most 9 chunks"):
        chunks_of(29, 10)
    assert len(chunks_of(30, 10)) == 10


def test_one_frame_is_told_as_one():
    with pytest.raises(VideoRefused, match=r"^1 frame is too few for 2 chunks"):
        chunks_of(1, 2)
    with pytest.raises(VideoRefused, match=r"^0 frames are too few for 2 chunks"):
        chunks_of(0, 2)


@pytest.mark.parametrize("frames", [1, 5])
def test_a_video_without_frames_for_two_chunks_is_not_told_to_ask_for_fewer(frames):
    with pytest.raises(VideoRefused, match=r"score a longer video$"):
        chunks_of(frames, 2)
    with pytest.raises(VideoRefused, match=r"or ask for at most 2 chunks$"):
        chunks_of(6, 3)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("clarity", lambda f, s: f["clarity"][s].mean()),
        ("aesthetic", lambda f, s: f["aesthetic"][s].mean()),
        ("motion", lambda f, s: (255 - f["interpolation_error"][s.start + 1 : s.stop - 1 : 2].mean()) / 255),
        ("dynamic", lambda f, s: np.nanmean(f["flow"][s])),
    ],
)
def test_a_dimension_is_its_line_of_numpy_in_each_chunk(name, plain):
    found = features()
    tracks = {track: array.astype(np.float64) for track, array in found.tracks.items()}
    wanted = [plain(tracks, slice(at * 8, at * 8 + 8)) for at in range(5)]
    assert chunk_values(found, name, 5) == pytest.approx(wanted, rel=1e-6)


def test_a_chunk_is_not_measured_by_what_is_outside_of_it():
    found = features()
    spoiled = {name: track.copy() for name, track in found.tracks.items()}
    for track in spoiled.values():
        track[8:] = 3.0
    other = Features(frames=43, tracks=spoiled)
    for name in DIMENSIONS:
        assert chunk_values(found, name, 5)[0] == chunk_values(other, name, 5)[0]


def test_values_are_float32_as_published():
    assert all(float(np.float32(value)) == value for name in DIMENSIONS for value in chunk_values(features(), name, 5))


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("subject_consistency", "subject"),
        ("background_consistency", "background"),
        ("motion_smoothness", "motion"),
        ("aesthetic_quality", "aesthetic"),
    ],
)
def test_a_companion_is_its_dimension_over_one_chunk(name, dimension):
    found = features()
    assert companion(found, name).value == pytest.approx(chunk_values(found, dimension, 1)[0], rel=1e-6)


def test_imaging_quality_is_a_share_and_flicker_leaves_the_first_frame_out():
    found = features()
    assert companion(found, "imaging_quality").value == pytest.approx(found.tracks["clarity"].mean() / 100, rel=1e-6)
    plain = (255 - np.nanmean(found.tracks["difference"])) / 255
    assert companion(found, "temporal_flicker").value == pytest.approx(plain, rel=1e-6)


def test_a_video_without_looks_has_no_dynamic_degree():
    still = Features(frames=9, tracks={"flow": np.full(9, np.nan, np.float32)})
    assert isinstance(companion(still, "dynamic_degree"), Unscored)
    moving = Features(frames=9, tracks={"flow": np.full(9, 7.0, np.float32)})
    assert companion(moving, "dynamic_degree") == Score(1.0, 9)


def test_dimensions_come_in_one_order_and_by_their_names_only():
    assert dimensions_of(["subject", "clarity", "subject"]) == ("clarity", "subject")
    assert dimensions_of([]) == tuple(DIMENSIONS)
    with pytest.raises(UnknownName, match="did you mean 'clarity'"):
        dimensions_of(["clearity"])


def test_dimensions_in_one_word_are_refused_with_how_to_give_them():
    with pytest.raises(ConfigError, match=r"by itself: --dimension clarity --dimension motion$"):
        dimensions_of(["clarity, motion"])


def test_every_companion_names_a_track():
    assert {measure.track for measure in COMPANIONS.values()} <= set(features().tracks)
