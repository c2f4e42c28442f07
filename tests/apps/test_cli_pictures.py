"""A world that begins from a picture, from the command line: what is known of it, a walk through it, and it again."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.test_matrixgame import published
from worldsim.errors import NotShipped
from worldsim.session.log import Opening, SessionLog
from worldsim_apps.cli import main

NAME = "matrix-game-2-gta"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as they are published, and a picture."""
    place = published(tmp_path_factory.mktemp("weights"), [NAME])
    pixels = np.random.default_rng(1).integers(0, 256, (40, 90, 3), np.uint8)
    Image.fromarray(pixels).save(place / "street.png")
    return place


def test_a_walk_from_a_picture_is_filmed_and_lived_again(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "keys.jsonl").write_text('{"block": 0, "keys": ["KeyW"]}\n{"block": 1, "keys": ["ArrowLeft"]}\n')
    film, log, given = tmp_path / "walk.mp4", tmp_path / "walk.log", ["--weights", str(folder), "--device", "cpu"]
    walk = ["generate", "--world", NAME, "--image", str(folder / "street.png"), "--size", "48x32", "--seconds", "1.7"]
    keys = ["--actions", str(tmp_path / "keys.jsonl"), "--output", str(film), "--log", str(log), "--json"]
    assert main([*walk, *keys, *given]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 20
    with av.open(film) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 20
    assert main(["replay", str(log), "--verify", *given]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "begins from a picture, and none was given; name one with --image"),
        (["--image", "nowhere.png"], "there is no picture nowhere.png"),
        (["--prompt", "a lake"], "is steered by keys alone"),
        (["--image", "{}/street.png", "--on-prompt", "keep"], "leave on_prompt out"),
    ],
)
def test_what_it_cannot_begin_from_is_told_in_a_line(folder: Path, tmp_path: Path, capsys, more, told: str) -> None:
    walk = ["generate", "--world", NAME, "--weights", str(folder), "--device", "cpu", "--size", "48x32"]
    assert main([*walk, "--output", str(tmp_path / "walk.mp4"), *(text.format(folder) for text in more)]) == 2
    assert told in capsys.readouterr().err


def test_its_card_says_its_keys_what_it_begins_from_and_what_it_takes(capsys) -> None:
    assert main(["info", NAME, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["world"]
    assert (card["size"], card["fps"], card["frames_per_block"]) == ("640x352", 12, 3)
    assert card["keys"]["steer_left"] == "KeyA ArrowLeft"
    assert card["begins from"] == "a picture, --image"
    assert card["weights"] == "Skywork/Matrix-Game-2.0:gta_distilled_model"
    assert card["published"].startswith("25 frames a second of 640x352 on one H100")
    assert set(card["memory"]) == {"with its codec", "with a preview"}


@pytest.mark.parametrize(
    ("world", "more", "told"),
    [
        (NAME, ["--image", "nowhere.png"], "there is no picture nowhere.png"),
        (NAME, ["--image", "{}/street.png", "--actions", "{}/keys.jsonl"], "line 1: there is no key 'KeyX'"),
        ("self-forcing", ["--actions", "{}/keys.jsonl"], "line 1: there is no key 'KeyX' of a world that has none"),
        ("self-forcing", ["--prompts", "{}/keys.jsonl"], "line 1: a line has the field prompt and either block or"),
        ("self-forcing", ["--start", "2"], "self-forcing comes without starting places; leave --start out"),
        ("self-forcing", ["--image", "{}/none.png"], "none.png is no picture that can be read"),
        ("self-forcing", ["--size", "16400x16"], "a video of 16400x16 pixels is too large for H.264, which takes at"),
        (NAME, ["--image", "{}/street.png", "--size", "99984x99984"], "of pictures of 99984x99984 pixels the keys and"),
    ],
)
def test_what_can_be_known_of_a_walk_is_told_before_weights_are_read(
    folder: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, world: str, more: list[str], told: str
) -> None:
    monkeypatch.setattr("worldsim.load", None)
    monkeypatch.setattr("worldsim.published.free_bytes", lambda device: 10**11)
    (folder / "keys.jsonl").write_text('{"block": 0, "keys": ["KeyX"]}\n')
    (folder / "none.png").write_bytes(b"none")
    given = [text.format(folder) for text in more]
    assert main(["generate", "--world", world, "--output", str(tmp_path / "walk.mp4"), *given]) == 2
    assert told in capsys.readouterr().err


def test_a_log_whose_pictures_cannot_be_filmed_is_refused_before_weights_are_read(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"policy": "window:frames=18", "sigmas": [1.0], "frames_per_block": 3, "size": [16, 16400]}
    opening = Opening(
        world="self-forcing", weights="", plan=plan | {"on_prompt": "keep"}, machine={}, seed=1, prompt="a lake"
    )
    (tmp_path / "walk.log").write_bytes(SessionLog(opening=opening, steps=()).encode())
    loaded: list[SessionLog] = []

    def world_of(log: SessionLog, **_: object) -> None:
        loaded.append(log)
        raise NotShipped("no weights")

    monkeypatch.setattr("worldsim.presets.world_of", world_of)
    monkeypatch.setattr("worldsim.published.free_bytes", lambda device: 10**11)
    for more, told in ([], "no weights"), (["-o", str(tmp_path / "a.mp4")], "a video of 16400x16 pixels is too large"):
        assert main(["replay", str(tmp_path / "walk.log"), *more]) == 2
        assert told in capsys.readouterr().err
    assert len(loaded) == 1
    assert not (tmp_path / "a.mp4").exists()


def test_a_picture_to_serve_is_read_before_the_weights(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldsim.load", None)
    assert main(["serve", "--world", NAME, "--image", "nowhere.png"]) == 2
    assert "there is no picture nowhere.png" in capsys.readouterr().err
