"""How a trained world gets into the package."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from benchmarks import ship
from worldsim import presets
from worldsim.errors import ConfigError
from worldsim.runtime.starts import Starts


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run, and a package without worlds to ship it into."""
    monkeypatch.setattr(presets, "ASSETS", tmp_path / "assets")
    monkeypatch.setitem(ship.PLACES, "crafter", ((6, 33), (5, 36)))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    lines = [{"update": 250, "tiles": 0.5}, {"update": 500, "tiles": 0.75}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_shipped_world_has_the_weights_of_the_run_its_starting_places_and_a_card(run):
    ship.main("crafter", run, data="one walk", hours="a minute", machine="an abacus")
    folder = presets.CRAFTER.folder
    assert (folder / "weights.safetensors").read_bytes() == b"weights"
    assert len(Starts.load(folder / "starts.safetensors")) == 2
    card = json.loads((folder / "card.json").read_text())
    assert card["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert card["held_out"] == {"update": 500, "tiles": 0.75}
    assert (card["data"], card["training"], card["hardware"]) == ("one walk", "a minute", "an abacus")
    assert {"licence", "commands", "commit", "hardware", "backbone"} <= card.keys()


def test_a_starting_place_ends_at_the_frame_named_and_shows_the_play_before_it(run):
    ship.main("crafter", run, data="", hours="", machine="")
    played = list(ship.play(presets.CRAFTER.recording, 5, most=37))
    frames, controls = Starts.load(presets.CRAFTER.folder / "starts.safetensors").get(1)
    assert len(frames) == ship.START_FRAMES
    assert (frames[-1].numpy() == played[36][0]).all()
    assert torch.equal(controls[-1], torch.tensor(played[36][1]))


def test_a_place_past_the_end_of_its_episode_is_refused(run, monkeypatch):
    monkeypatch.setitem(ship.PLACES, "crafter", ((4, 8),))
    with pytest.raises(ConfigError, match="choose another frame"):
        ship.main("crafter", run, data="", hours="", machine="")
