"""A walk that goes on from a video, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.apps.test_footage import video
from tests.test_wan import converted
from worldsim.runtime.journal import read_log
from worldsim_apps.cli import main
from worldsim_apps.footage import last_frames

pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.mark.parametrize(("frames", "given"), [(7, 5), (40, 17)])
def test_a_walk_goes_on_from_the_end_of_a_video_as_far_back_as_blocks_see_and_is_lived_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], frames: int, given: int
) -> None:
    (tmp_path / "weights").mkdir()
    weights = ["--weights", str(converted(tmp_path / "weights")), "--device", "cpu"]
    clip, log = video(tmp_path / "clip.mp4", frames), tmp_path / "walk.log"
    walk = [
        "generate",
        "--world",
        "self-forcing",
        "--size",
        "96x64",
        "--policy",
        "window:frames=5",
        "--prompt",
        "a lake",
    ]
    results = ["--output", str(tmp_path / "walk.mp4"), "--log", str(log), "--json"]
    assert main([*walk, *weights, "--seconds", "1", "--video", str(clip), *results]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 16
    begun = read_log(log).opening.given
    assert begun is not None
    assert begun.shape == (given, 64, 96, 3)
    shown = np.frombuffer(begun.pixels, np.uint8).reshape(begun.shape)
    assert np.array_equal(shown, last_frames(clip, (64, 96), most=given, group=4))
    assert main(["replay", str(log), "--verify", *weights]) == 0


def test_a_walk_through_the_bundled_world_goes_on_from_a_video_of_it(tmp_path: Path) -> None:
    film, again, log = tmp_path / "one.mp4", tmp_path / "two.mp4", tmp_path / "two.log"
    walk = ["generate", "--seconds", "1", "--device", "cpu"]
    assert main([*walk, "--output", str(film)]) == 0
    assert main([*walk, "--video", str(film), "--output", str(again), "--log", str(log)]) == 0
    begun = read_log(log).opening.given
    assert begun is not None
    assert begun.shape == (8, 72, 72, 3)
