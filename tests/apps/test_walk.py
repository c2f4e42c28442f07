"""What a walk begins from and follows is read, or refused, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.apps.test_footage import video
from worldsim.errors import ConfigError
from worldsim_apps.about import ahead_of, pace_of
from worldsim_apps.telling import Refused
from worldsim_apps.walk import beginning, remark, script_of

NOTHING = {"image": None, "video": None, "start": None, "policy": None}


def test_a_walk_begins_from_nothing_from_a_picture_or_from_the_end_of_a_video(tmp_path: Path) -> None:
    crafter, forcing = ahead_of("crafter", None), ahead_of("self-forcing", "48x32")
    clip, picture = video(tmp_path / "a.mp4", 40), tmp_path / "a.png"
    cv2.imwrite(str(picture), np.full((40, 120, 3), 90, np.uint8))
    assert beginning(crafter, **NOTHING) is beginning(crafter, **NOTHING | {"start": 2}) is None
    assert beginning(crafter, **NOTHING | {"image": picture}).shape == (1, 72, 72, 3)
    assert beginning(crafter, **NOTHING | {"video": clip}).shape == (32, 72, 72, 3)
    assert beginning(crafter, **NOTHING | {"video": clip, "policy": "full"}).shape == (40, 72, 72, 3)
    assert beginning(forcing, **NOTHING | {"video": clip}).shape == (37, 32, 48, 3)
    assert beginning(forcing, **NOTHING | {"video": clip, "policy": "window:frames=3"}).shape == (9, 32, 48, 3)


@pytest.mark.parametrize(
    ("world", "given", "told"),
    [
        ("crafter", {"image": "a.png", "video": "a.mp4"}, "both --image and --video .*; leave one out"),
        ("matrix-game-2-gta", {"video": "a.mp4"}, "begins from one picture; name that with --image"),
        ("matrix-game-2-gta", {}, "begins from a picture, and none was given; name one with --image"),
        ("self-forcing", {"start": 1}, "comes without starting places; leave --start out"),
        ("self-forcing", {"video": "none.mp4"}, "there is no video none.mp4"),
        ("self-forcing", {"video": "none.mp4", "policy": "full"}, "choose a policy with a bound"),
        ("self-forcing", {"video": "none.mp4", "policy": "widow"}, "there is no policy 'widow'"),
    ],
)
def test_what_a_walk_cannot_begin_from_is_refused(world: str, given: dict, told: str) -> None:
    paths = {name: Path(value) if name in ("image", "video") else value for name, value in given.items()}
    with pytest.raises((Refused, ConfigError), match=told):
        beginning(ahead_of(world, None), **NOTHING | paths)


def test_a_script_has_what_is_held_and_what_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text('{"block": 1, "keys": ["KeyW"]}\n')
    (tmp_path / "told").write_text('{"block": 3, "prompt": "a lake"}\n')
    (tmp_path / "later").write_text('{"seconds": 3, "prompt": "a lake", "over": 2}\n')
    crafter, forcing = (
        (ahead_of(name, None), pace_of(name, None, goes_on=False)) for name in ("crafter", "self-forcing")
    )
    assert script_of(*crafter, tmp_path / "keys", None, None).keys_at(2) == {"KeyW"}
    script = script_of(*forcing, None, "a wood", tmp_path / "told")
    assert (script.beginning, script.prompts) == ("a wood", {0: ("a wood", 1), 3: ("a lake", 1)})
    script = script_of(*forcing, None, None, tmp_path / "later")
    assert (script.beginning, script.prompts) == (None, {5: ("a lake", 2)})
    with pytest.raises(Refused, match="takes no prompts; leave --prompt out"):
        script_of(*crafter, None, "a wood", None)
    (tmp_path / "told").write_text('{"block": 0, "prompt": "a lake"}\n')
    with pytest.raises(Refused, match=r"both --prompt and .*told say what block 0 shows; leave one out"):
        script_of(*forcing, None, "a wood", tmp_path / "told")


def test_of_scripts_that_were_given_what_changes_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    remark({Path("a"): [0, 7], None: [9], Path("b"): [0]}, blocks=5)
    assert capsys.readouterr().err == (
        "worldsim: a: the walk has blocks 0 to 4, so its line of block 7 and all after it change nothing\n"
    )
