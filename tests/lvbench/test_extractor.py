"""The contract of extractors, on every one there is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lvbench.extractor import Extractor
from lvbench.features import TRACKS, Features
from lvbench.light import Light
from lvbench.presets import EXTRACTORS
from lvbench.published import Published
from lvbench.video import Facts
from lvbench.weights import Networks
from tests.lvbench.films import drifting
from tests.lvbench.random_weights import folder_of_weights, networks_of


def measured(extractor: Extractor, frames: np.ndarray, *, cuts: list[int], fps: float = 16) -> Features:
    extraction = extractor.begin(Facts(container="drawn", codec="none", size=frames.shape[1:3], fps=fps))
    for part in np.split(frames, cuts):
        extraction.add(part)
    return extraction.features()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return folder_of_weights(tmp_path_factory.mktemp("weights"))


SOME = "published, of some networks"


@pytest.fixture(params=[*EXTRACTORS, SOME])
def make(request, weights):
    """Makes the extractor, the published one of small networks with random weights."""
    if request.param == "light":
        return Light
    networks = networks_of(weights)
    if request.param == SOME:
        kept = {name: networks.weights[name] for name in ("clarity", "flow")}
        networks = Networks(weights=kept, sizes=networks.sizes)
    return lambda: Published(networks)


@pytest.fixture
def extractor(make):
    return make()


def test_the_size_of_batches_changes_no_bit(extractor):
    frames = np.stack(drifting(13))
    whole = measured(extractor, frames, cuts=[])
    for cuts in ([1, 2, 3], [5, 11], list(range(1, 13))):
        parts = measured(extractor, frames, cuts=cuts)
        assert all(parts.tracks[name].tobytes() == whole.tracks[name].tobytes() for name in whole.tracks)


def test_a_track_is_measured_or_the_reason_is_said(extractor):
    found = measured(extractor, np.stack(drifting(9)), cuts=[])
    assert set(found.tracks) | set(extractor.missing) == set(TRACKS)
    assert not set(found.tracks) & set(extractor.missing)
    assert all(extractor.missing.values())


def test_tracks_are_float32_and_where_they_are_defined_they_are_finite(extractor):
    found = measured(extractor, np.stack(drifting(12)), cuts=[], fps=24)
    defined = {"interpolation_error": slice(1, -1), "difference": slice(1, None), "flow": slice(0, 9, 3)}
    for name, track in found.tracks.items():
        assert track.dtype == np.float32
        assert np.isfinite(track[defined.get(name, slice(None))]).all()
        assert np.isfinite(track).reshape(12, -1).all(1).sum() == len(track[defined.get(name, slice(None))])


def test_an_extraction_does_not_know_of_another(make, extractor):
    frames = np.stack(drifting(9))
    first, alone = measured(extractor, frames, cuts=[]), measured(make(), frames, cuts=[])
    measured(extractor, 255 - frames, cuts=[])
    again = measured(extractor, frames, cuts=[])
    for name in first.tracks:
        assert first.tracks[name].tobytes() == again.tracks[name].tobytes() == alone.tracks[name].tobytes()


def test_the_number_of_threads_changes_no_bit(extractor):
    frames = np.random.default_rng(0).integers(0, 255, (4, 240, 416, 3), dtype=np.uint8)
    threads, found = cv2.getNumThreads(), []
    try:
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            found.append(measured(extractor, frames, cuts=[]))
    finally:
        cv2.setNumThreads(threads)
    for name, track in found[0].tracks.items():
        assert track.tobytes() == found[1].tracks[name].tobytes() == found[2].tracks[name].tobytes()


def test_what_becomes_of_frames_afterwards_changes_nothing(extractor):
    frames = np.stack(drifting(9))
    extraction = extractor.begin(Facts(container="drawn", codec="none", size=(48, 64), fps=16))
    buffer = np.empty_like(frames[:3])
    for at in (0, 3, 6):
        buffer[:] = frames[at : at + 3]
        extraction.add(buffer)
        buffer[:] = 0
    found, whole = extraction.features(), measured(extractor, frames, cuts=[])
    assert all(found.tracks[name].tobytes() == whole.tracks[name].tobytes() for name in whole.tracks)


def test_a_fingerprint_is_a_hash_that_stays(make, extractor):
    assert len(extractor.fingerprint) == 64
    assert extractor.fingerprint == make().fingerprint
