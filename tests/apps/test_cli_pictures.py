"""A world that begins from a picture, from the command line: what is known of it, a walk through it, and it again."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.test_matrixgame import published
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
        ([], "begins from one picture, before anything is held"),
        (["--image", "nowhere.png"], "nowhere.png is no picture that can be read"),
        (["--prompt", "a lake"], "is steered by keys alone"),
        (["--on-prompt", "keep"], "leave on_prompt out"),
    ],
)
def test_what_it_cannot_begin_from_is_told_in_a_line(folder: Path, tmp_path: Path, capsys, more, told: str) -> None:
    walk = ["generate", "--world", NAME, "--weights", str(folder), "--device", "cpu", "--size", "48x32"]
    assert main([*walk, "--output", str(tmp_path / "walk.mp4"), *more]) == 2
    assert told in capsys.readouterr().err


def test_its_card_says_its_keys_what_it_begins_from_and_what_it_takes(capsys) -> None:
    assert main(["info", NAME, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)["world"]
    assert (card["size"], card["fps"], card["frames_per_block"]) == ([352, 640], 12, 3)
    assert card["keys"]["steer_left"] == "KeyA ArrowLeft"
    assert card["begins from"] == "a picture, --image"
    assert card["weights"] == "Skywork/Matrix-Game-2.0:gta_distilled_model"
    assert card["published"] == "nothing of its speed"
    assert set(card["memory"]) == {"with its codec", "with a preview"}
