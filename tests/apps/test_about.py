"""What is said of a world, learned here or published."""

from __future__ import annotations

import pytest

from worldsim.errors import ConfigError, UnknownName
from worldsim.presets import WORLDS
from worldsim.wan import RECIPES
from worldsim_apps.about import ahead_of, describe, lines_of, pace_of, past_of, recipe_of, wan_recipe


def test_a_world_that_is_learned_here_is_told_with_its_keys_and_its_card():
    told = describe("crafter")
    assert (told["fps"], told["size"]) == (8, "72x72")
    assert "KeyW" in told["keys"]["move_up"]
    assert told["card"]["licence"].startswith("Apache-2.0")
    assert "not in the package" in describe("maze")["card"]["weights"]


def test_a_published_model_is_told_with_its_source_and_where_its_weights_are():
    told = describe("self-forcing")
    assert "arXiv:2506.08009" in told["source"]
    assert told["weights"].startswith("gdhe17/Self-Forcing")
    assert told["sigmas"] == [1.0, 0.9375, 0.8333, 0.625]
    assert (told["policy"], told["on_prompt"]) == ("window:frames=18", "keep")


@pytest.mark.parametrize(("size", "says"), [(None, "832x480"), ("640x352", "640x352")])
def test_a_size_is_told_as_it_is_asked_for_width_first(size, says):
    assert f"size: {says}" in lines_of(describe("self-forcing", size))


def test_a_published_model_is_told_with_the_memory_that_it_takes():
    pytest.importorskip("diffusers")
    small, large = (describe("self-forcing", size)["memory"] for size in ("640x352", None))
    for told in (small, large):
        assert [*told] == ["with its codec", "with a preview"]
        assert all(size.endswith(" GB") for parts in told.values() for size in parts.values())
    device = "together, on the device"
    sizes = [float(told[kind][device].removesuffix(" GB")) for told in (small, large) for kind in told]
    assert sizes[1] < sizes[0] < sizes[2]
    assert sizes[3] < sizes[2]
    with pytest.raises(ConfigError, match="crafter has one size"):
        describe("crafter", "640x352")
    with pytest.raises(ConfigError, match="the nearest size that does is 640x352"):
        describe("self-forcing", "640x350")


def gigabytes(told: dict[str, str], part: str) -> float:
    return float(told[part].removesuffix(" GB"))


def test_what_is_chosen_of_a_published_model_changes_what_it_is_told_to_take():
    pytest.importorskip("diffusers")
    plain = describe("self-forcing")["memory"]["with a preview"]
    chosen = describe("self-forcing", policy="window:frames=9", budget="3.5GB", preview="taew2_1.pth")
    assert (chosen["policy"], chosen["budget"]) == ("window:frames=9", "3.5GB")
    assert [*chosen["memory"]] == ["with a preview"]
    told = chosen["memory"]["with a preview"]
    assert told["keys and values in pages"] == "3.50 GB"
    assert gigabytes(told, "pages beyond the budget, at the most") > 2
    card = "of a GPU, with its driver and slack"
    assert gigabytes(told, card) < 16 < gigabytes(plain, card)
    coded = describe("self-forcing", kv="int8", policy="window:frames=9")["memory"]["with a preview"]
    assert gigabytes(coded, "keys and values in pages") > gigabytes(told, "keys and values in pages")


def test_layers_of_8_bits_are_planned_as_a_gpu_has_them():
    plain = describe("self-forcing", preview="taew2_1.pth")["memory"]["with a preview"]
    coded = describe("self-forcing", preview="taew2_1.pth", linears="fp8")["memory"]["with a preview"]
    weights = [float(told["weights of the backbone"].removesuffix(" GB")) for told in (plain, coded)]
    assert 0.5 < weights[1] / weights[0] < 0.65
    with pytest.raises(UnknownName, match="multiply on a GPU 'int8'; known: fp8"):
        describe("self-forcing", linears="int8")


def test_what_cannot_be_chosen_is_refused_before_anything_is_planned():
    with pytest.raises(ConfigError, match="choose one of 6039MB or more"):
        describe("self-forcing", budget="1GB")
    with pytest.raises(ConfigError, match="choose a policy with a bound"):
        describe("self-forcing", policy="full")
    with pytest.raises(UnknownName, match="no policy 'widow'"):
        describe("self-forcing", policy="widow")
    with pytest.raises(ConfigError, match="what crafter takes is small and not planned, got kv=int8; leave it out"):
        describe("crafter", kv="int8")


@pytest.mark.parametrize(
    ("name", "policy", "held"),
    [
        ("self-forcing", None, (18, 4)),
        ("causal-forcing-framewise", "window:frames=5", (5, 4)),
        ("crafter", None, (32, 1)),
        ("crafter", "full", (2_048, 1)),
    ],
)
def test_a_world_holds_as_much_of_a_past_as_its_policy_and_its_memory_let_it(name, policy, held):
    assert past_of(name, policy) == held


@pytest.mark.parametrize(
    ("name", "frames_per_block", "goes_on", "begins"),
    [
        ("self-forcing", None, False, [0, 9, 21]),  # over 16 frames a second
        ("self-forcing", None, True, [0, 12, 24]),
        ("causal-forcing-framewise", None, False, [0, 1, 5]),
        ("matrix-game-2-gta", None, True, [0, 9, 21]),
        ("crafter", None, False, [0, 1, 2]),
        ("crafter", 4, True, [0, 4, 8]),
    ],
)
def test_it_is_known_ahead_when_blocks_begin(name, frames_per_block, goes_on, begins):
    pace = pace_of(name, frames_per_block, goes_on=goes_on)
    assert [pace.block_at(frames / pace.fps) for frames in begins] == [0, 1, 2]
    assert [pace.blocks(frames + 1) for frames in begins] == [1, 2, 3]
    with pytest.raises(ConfigError, match="crafter makes blocks of 1, 2, 4 frames, got frames_per_block=0"):
        pace_of("crafter", 0, goes_on=False)


def test_a_world_without_a_bound_to_its_past_is_refused_where_memory_is_large():
    with pytest.raises(ConfigError, match="choose a policy with a bound"):
        past_of("self-forcing", "full")


@pytest.mark.parametrize(
    ("name", "size", "keys", "is_told", "needs_picture"),
    [
        ("crafter", (72, 72), True, False, False),
        ("self-forcing", (480, 832), False, True, False),
        ("matrix-game-2-gta", (352, 640), True, False, True),
    ],
)
def test_much_is_known_of_a_world_before_it_is_loaded(name, size, keys, is_told, needs_picture):
    ahead = ahead_of(name, None)
    assert (ahead.name, ahead.size, bool(ahead.controls.keys)) == (name, size, keys)
    assert (ahead.is_told, ahead.needs_picture, ahead.has_starts) == (is_told, needs_picture, name == "crafter")
    with pytest.raises(UnknownName, match="there is no world 'nowhere'"):
        ahead_of("nowhere", None)


def test_a_published_model_is_ahead_in_the_size_that_is_asked_for():
    assert ahead_of("self-forcing", "640x352").size == (352, 640)
    with pytest.raises(ConfigError, match="such as 832x480, got 'large'"):
        ahead_of("self-forcing", "large")


def test_every_recipe_goes_by_its_name(monkeypatch):
    monkeypatch.setattr("worldsim_apps.about._memory", lambda *_: {})  # planning all of them takes a while
    assert all(recipe_of(name).name == name for name in WORLDS)
    assert all(wan_recipe(name).name == describe(name)["name"] == name for name in RECIPES)
    with pytest.raises(UnknownName, match="crafter"):
        recipe_of("self-forcing")
    with pytest.raises(UnknownName, match="longlive"):
        wan_recipe("longlife")
    with pytest.raises(UnknownName, match="crafter"):
        describe("crafted")


def test_fields_within_fields_are_indented():
    assert list(lines_of({"a": 1, "b": {"c": [1, 2], "d": {"e": "x"}}})) == [
        "a: 1",
        "b",
        "  c: 1, 2",
        "  d",
        "    e: x",
    ]
