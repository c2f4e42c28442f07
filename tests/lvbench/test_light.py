"""The light extractor measures each track as its parts do, in bounded memory, and at any size."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from lvbench.clarity import clarity
from lvbench.light import Light
from lvbench.video import Facts
from tests.lvbench.films import drifting


def begun(size, fps=16.0):
    return Light().begin(Facts(container="drawn", codec="none", size=size, fps=fps))


def of(frames, fps=16.0):
    extraction = begun(frames[0].shape[:2], fps)
    extraction.add(np.stack(frames))
    return extraction.features()


def test_clarity_and_difference_are_of_the_full_picture():
    frames = [np.random.default_rng(at).integers(0, 255, (360, 640, 3), dtype=np.uint8) for at in range(3)]
    found = of(frames)
    assert found.tracks["clarity"][1] == np.float32(clarity(cv2.cvtColor(frames[1], cv2.COLOR_RGB2GRAY)))
    plain = np.abs(frames[2].astype(int) - frames[1]).mean()
    assert found.tracks["difference"][2] == pytest.approx(plain)


@pytest.mark.parametrize(("fps", "looks"), [(8.0, 1), (16.0, 2), (25.0, 3)])
def test_looks_are_an_eighth_of_a_second_apart(fps, looks):
    found = of(drifting(13), fps)
    defined = np.flatnonzero(np.isfinite(found.tracks["flow"]))
    assert list(defined) == list(range(0, 13 - looks, looks))


def test_flow_is_in_pixels_of_a_picture_whose_shorter_side_is_256():
    base = np.random.default_rng(0).integers(0, 255, (30, 60, 3), dtype=np.uint8)
    wide = cv2.resize(base, (1280, 512), interpolation=cv2.INTER_CUBIC)
    found = of([np.roll(wide, 8 * at, axis=1) for at in range(3)])
    assert found.tracks["flow"][0] == pytest.approx(16 * 256 / 512, rel=0.25)  # 16 px in two frames of 512 lines


def test_a_frozen_video_does_not_move_and_a_moving_one_does():
    still, moving = of([drifting(1)[0]] * 9), of(drifting(9))
    assert np.nanmax(still.tracks["flow"]) < 0.1
    assert np.nanmax(still.tracks["difference"]) == np.nanmax(still.tracks["interpolation_error"]) == 0
    assert np.nanmin(moving.tracks["flow"]) > 1


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 2), (3, 1000), (1000, 3), (17, 31), (1080, 1920)])
def test_a_video_of_any_size_is_measured(size):
    frames = [np.random.default_rng(at).integers(0, 255, (*size, 3), dtype=np.uint8) for at in range(4)]
    found = of(frames)
    assert np.isfinite(found.tracks["subject"]).all()
    assert np.isfinite(found.tracks["background"]).all()
    assert np.isfinite(found.tracks["clarity"]).all()


GROWTH = """
import resource
import numpy as np
from lvbench.light import Light
from lvbench.video import Facts

def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

generator = np.random.default_rng(0)
frames = generator.integers(0, 255, (8, 720, 1280, 3), dtype=np.uint8)
extraction = Light().begin(Facts(container="drawn", codec="none", size=(720, 1280), fps=16))
for batch in range(24):
    extraction.add(frames.copy())
    if batch == 7:
        before = peak_kb()
print(peak_kb() - before)
"""


def test_a_long_video_takes_no_more_memory_than_a_short_one():
    shown = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert int(shown.stdout) < 20 * 1024
