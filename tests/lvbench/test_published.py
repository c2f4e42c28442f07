"""The published extractor puts what networks say where it belongs, whoever the networks are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lvbench.dynamics import magnitude
from lvbench.errors import VideoRefused
from lvbench.extractor import Slots
from lvbench.features import TRACKS, Features
from lvbench.measures import chunk_values
from lvbench.published import GROUP, LONGEST, MOST_PIXELS, NEEDED, NOT_NEEDED, Published
from lvbench.sizes import Sizes
from lvbench.video import Facts
from lvbench.weights import SOURCES, Networks, Weights
from tests.lvbench.films import drifting
from tests.lvbench.random_weights import TINY, folder_of_weights, networks_of

ALL = Networks(weights={name: Weights(Path(name), name) for name in SOURCES})


def plain(calls: list[int] | None = None) -> Slots:
    """Stand-ins whose answers are seen in the frames."""

    def rows(frames: np.ndarray) -> np.ndarray:
        if calls is not None:
            calls.append(len(frames))
        return frames[:, :2, :2].reshape(len(frames), -1).astype(np.float32)

    def flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return (after.astype(np.float32) - before)[..., :2]

    return Slots(
        clarity=lambda frames: frames.mean((1, 2, 3)),
        aesthetic=lambda frames: frames[:, 0, 0, 0] / 255,
        background=rows,
        subject=lambda frames: frames.reshape(len(frames), -1)[:, :3].astype(np.float32),
        between=lambda before, after: ((before.astype(int) + after) // 2).astype(np.uint8),
        flow=flow,
    )


def some(*names: str) -> Networks:
    return Networks(weights={name: ALL.weights[name] for name in names})


def measured(frames: list[np.ndarray], fps: float = 16.0, networks: Networks = ALL) -> Features:
    facts = Facts(container="drawn", codec="none", size=frames[0].shape[:2], fps=fps)
    extraction = Published(networks, plain()).begin(facts)
    extraction.add(np.stack(frames))
    return extraction.features()


def test_every_track_is_what_its_network_says_of_its_frames():
    frames = drifting(19)
    tracks = measured(frames).tracks
    many = np.stack(frames).astype(np.float64)
    assert tracks["clarity"] == pytest.approx(many.mean((1, 2, 3)))
    assert tracks["aesthetic"] == pytest.approx(many[:, 0, 0, 0] / 255)
    assert np.array_equal(tracks["background"], many[:, :2, :2].reshape(19, -1))
    assert np.array_equal(tracks["subject"], many.reshape(19, -1)[:, :3])
    assert tracks["difference"][1:] == pytest.approx(np.abs(np.diff(many, axis=0)).mean((1, 2, 3)))
    guess = (many[:-2] + many[2:]) // 2
    assert tracks["interpolation_error"][1:-1] == pytest.approx(np.abs(many[1:-1] - guess).mean((1, 2, 3)))


def test_flow_is_from_each_look_to_the_next_in_pixels_of_a_picture_of_256():
    frames = drifting(10)
    flow = measured(frames, fps=24.0).tracks["flow"]
    assert np.flatnonzero(np.isfinite(flow)).tolist() == [0, 3, 6]
    length = magnitude((frames[6].astype(np.float64) - frames[3])[..., :2])
    assert flow[3] == pytest.approx(length * 256 / 48)


@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
def test_motion_is_the_published_one_in_each_chunk_wherever_that_begins(chunks):
    frames = np.stack(drifting(21)).astype(np.int64)
    length, wanted = 21 // chunks, []
    for at in range(chunks):
        chunk = frames[at * length : (at + 1) * length]
        kept = chunk[::2]
        guesses = (kept[:-1] + kept[1:]) // 2
        wanted.append((255 - np.mean([np.abs(a - b).mean() for a, b in zip(chunk[1::2], guesses, strict=False)])) / 255)
    assert chunk_values(measured(list(frames.astype(np.uint8))), "motion", chunks) == pytest.approx(wanted, abs=1e-6)


def test_the_same_frames_always_go_through_a_network_together():
    calls: list[int] = []
    extraction = Published(ALL, plain(calls)).begin(Facts(container="", codec="", size=(48, 64), fps=16))
    for frame in drifting(19):
        extraction.add(frame[None])
    extraction.features()
    assert calls == [GROUP, GROUP, 19 - 2 * GROUP]


def test_what_was_measured_so_far_can_be_asked_and_changes_nothing():
    frames = np.stack(drifting(13))
    extraction = Published(ALL, plain()).begin(Facts(container="", codec="", size=(48, 64), fps=16))
    extraction.add(frames[:5])
    assert extraction.features().frames == 5
    extraction.add(frames[5:])
    found, whole = extraction.features(), measured(list(frames))
    assert all(found.tracks[name].tobytes() == whole.tracks[name].tobytes() for name in whole.tracks)


@pytest.mark.parametrize("size", [(1089, 1920), (10, 10 * LONGEST + 1), (81, 10)])
def test_a_picture_that_networks_cannot_hold_is_refused(size):
    with pytest.raises(VideoRefused, match=f"it is {size[1]} x {size[0]}; .* score a smaller copy"):
        Published(ALL, plain()).begin(Facts(container="", codec="", size=size, fps=16))


@pytest.mark.parametrize("size", [(1088, 1920), (1920, 1080), (10, 10 * LONGEST), (1, 1)])
def test_other_pictures_are_not(size):
    assert size[0] * size[1] <= MOST_PIXELS
    Published(ALL, plain()).begin(Facts(container="", codec="", size=size, fps=16))


@pytest.mark.parametrize("track", NEEDED)
def test_a_track_is_measured_as_ever_by_its_own_networks_alone(track):
    frames = drifting(19)
    found, whole = measured(frames, networks=some(*NEEDED[track])), measured(frames)
    assert set(found.tracks) == {track, "difference"}
    assert all(values.tobytes() == whole.tracks[name].tobytes() for name, values in found.tracks.items())


def test_what_no_network_was_given_for_is_not_measured_and_says_why():
    assert Published(ALL).missing == {}
    assert {name for names in NEEDED.values() for name in names} == SOURCES.keys()
    others = set(TRACKS) - {"clarity", "difference"}
    for networks in (some("clarity"), some("clarity", "aesthetic")):  # what CLIP sees is nothing without its judge
        assert Published(networks).missing == dict.fromkeys(others, NOT_NEEDED)


def test_what_one_network_measured_is_not_taken_for_what_all_do():
    given = [some(), *(some(name) for name in SOURCES), some("clarity", "motion"), ALL]
    assert len({Published(networks).fingerprint for networks in given}) == len(given)


def test_its_networks_are_those_of_the_files(tmp_path):
    networks = networks_of(folder_of_weights(tmp_path / "weights"))
    extraction = Published(networks).begin(Facts(container="", codec="", size=(48, 64), fps=16))
    extraction.add(np.stack(drifting(3)))
    found = extraction.features()
    assert found.tracks["subject"].shape == (3, TINY.subject.width)
    assert found.tracks["background"].shape == (3, TINY.background.out)
    assert np.isfinite(found.tracks["clarity"]).all()


def test_a_fingerprint_is_of_the_weights_and_sizes(tmp_path):
    def told(hash_: str, sizes: Sizes = TINY) -> str:
        return Published(Networks(weights={"flow": Weights(tmp_path, hash_)}, sizes=sizes)).fingerprint

    assert told("a") == told("a")
    assert len({told("a"), told("b"), told("a", Sizes())}) == 3
