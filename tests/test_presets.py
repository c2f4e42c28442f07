"""A world is loaded by its name, with the settings asked for, or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import worldsim
from worldsim import presets
from worldsim.cache.policy import Full, SinkWindow, Window
from worldsim.cache.quant import PerToken, parse_storage
from worldsim.decoding.noise_plan import PLAIN, NoisePlan, parse_noise
from worldsim.errors import ConfigError, LogError, NotShipped, UnknownName, WeightsError
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.weights import save_weights
from worldsim.presets import CRAFTER, MAZE, WORLDS, card, load, restore, world_of
from worldsim.runtime.starts import Starts
from worldsim.simulators.crafter import Crafter
from worldsim.testing.fakes import tiny_world

SMALL = replace(CRAFTER.backbone, dim=32, layers=1, heads=2)


def write(path: Path, config: SmallConfig = SMALL) -> Path:
    save_weights(path, config, SmallBackbone(config).state_dict(), dtype=torch.float32)
    return path


@pytest.fixture
def assets(tmp_path, monkeypatch) -> Path:
    """A package in which a small Crafter has been shipped."""
    folder = tmp_path / "crafter"
    folder.mkdir()
    write(folder / "weights.safetensors")
    Starts.save(
        folder / "starts.safetensors",
        [(torch.full((3, 72, 72, 3), 60 * at, dtype=torch.uint8), torch.zeros(3, 19)) for at in range(4)],
    )
    (folder / "card.json").write_text(json.dumps({"world": "crafter", "frames": 9}))
    monkeypatch.setattr(presets, "ASSETS", tmp_path)
    return folder


def test_a_world_is_loaded_opened_and_lived_in(assets):
    world = worldsim.load("crafter", device="cpu")
    assert (world.fps, world.size, world.frames_per_block) == (8, (72, 72), 1)
    assert {"KeyW", "ArrowLeft", "Space"} <= set(world.keys)
    assert world.calls_per_block == CRAFTER.steps + 1 <= 4
    with world.open(seed=7) as session:
        chunk = session.step({"KeyW"})
    assert (chunk.frames.shape, chunk.frames.dtype) == ((1, 72, 72, 3), np.uint8)
    assert isinstance(world.reality(seed=7).simulator, Crafter)


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [(None, CRAFTER.policy), ("full", Full()), ("window:frames=7", Window(frames=7)), (SinkWindow(), SinkWindow())],
)
def test_the_policy_is_the_one_that_was_named_or_given_or_the_worlds_own(assets, policy, chosen):
    assert load("crafter", policy=policy).plan.policy == chosen


@pytest.mark.parametrize("kv", [None, "int8", "kivi2:recent=1", parse_storage("gear4:rank=3")])
def test_keys_and_values_are_kept_as_it_was_named_or_given_and_exactly_otherwise(assets, kv):
    world = load("crafter", kv=kv)
    assert world.pool.storage == (parse_storage(kv) if isinstance(kv, str) else kv)
    with world.open() as session:
        session.step()
        assert presets.world_of(session.log).pool.storage == world.pool.storage


@pytest.mark.parametrize("noise", ["plain", "cosine:low=50,period=3,window=4", NoisePlan(window=8)])
def test_noise_is_the_plan_that_was_named_or_given_and_plain_otherwise(assets, noise):
    world = load("crafter", noise=noise)
    assert world.plan.noise == (parse_noise(noise) if isinstance(noise, str) else noise)
    assert load("crafter").plan.noise == PLAIN
    with world.open() as session:
        session.step()
        assert ("noise" in session.log.opening.plan) is (noise != "plain")
        assert world_of(session.log).plan == world.plan


@pytest.mark.parametrize("clean_pass", [True, False])
def test_a_world_without_clean_passes_says_so_in_its_logs(assets, clean_pass):
    world = load("crafter", clean_pass=clean_pass)
    assert world.calls_per_block == CRAFTER.steps + clean_pass
    with world.open() as session:
        session.step()
        assert ("clean_pass" in session.log.opening.plan) is not clean_pass
        assert world_of(session.log).plan == world.plan


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ("policy", None),
        ("policy", {"a": 1}),
        ("sigmas", None),
        ("sigmas", 5),
        ("frames_per_block", True),
        ("frames_per_block", 1.0),
        ("kv", 5),
        ("recall", "yes"),
        ("noise", ["x"]),
        ("noise", None),
        ("clean_pass", []),
        ("linears", 8),
        ("compiled", None),
        ("offload", 1),
        ("preview", ["x"]),
    ],
)
def test_a_log_with_a_plan_that_is_none_is_refused_and_says_what_is_wrong(assets, told, value):
    log = load("crafter").open(seed=1).log
    wrong = replace(log, opening=replace(log.opening, plan={**log.opening.plan, told: value}))
    with pytest.raises(LogError, match=re.escape(f"a plan that no world was loaded with: {told} {value!r}") + "$"):
        world_of(wrong)


def test_a_log_that_tells_no_policy_or_noise_levels_is_refused(assets):
    log = load("crafter").open(seed=1).log
    less = {name: value for name, value in log.opening.plan.items() if name not in ("policy", "sigmas")}
    with pytest.raises(LogError, match=r"policy None; sigmas None$"):
        world_of(replace(log, opening=replace(log.opening, plan=less)))


@dataclass(frozen=True, kw_only=True)
class Own(Window):
    """A policy that has no name."""


def test_a_session_under_a_policy_without_a_name_goes_on_in_a_world_that_is_loaded_with_it(assets, tmp_path):
    with load("crafter", policy=Own(frames=3)).open(seed=1, log=tmp_path / "walk.log") as session:
        session.step({"KeyW"})
        session.save(tmp_path / "saved")
    told = (
        r"the policy 'Own\(frames=3, anew=False\)', and worldsim knows none by that name; .* load crafter with it, .*"
    )
    for ask in (lambda: worldsim.restore(tmp_path / "saved"), lambda: world_of(session.log)):
        with pytest.raises(LogError, match=told + r"restore\(path, world=\.\.\.\)"):
            ask()
    with worldsim.restore(tmp_path / "saved", world=load("crafter", policy=Own(frames=3))) as again:
        assert again.block == 1
    with load("crafter", policy=Own(frames=3)).go_on(tmp_path / "walk.log") as again:
        assert again.block == 1
    with pytest.raises(ConfigError, match="give it a repr that says what its answers depend on"):
        load("crafter", policy=type("Plain", (Own,), {"__repr__": object.__repr__})())


@pytest.mark.parametrize("policy", ["window:frames=100000000000", "blockvid:run=2048", "blockvid:bank=1000000000000"])
def test_a_policy_that_no_session_has_room_for_is_refused_at_once(assets, policy):
    for settings in ({}, {"budget": "64MB"}):
        with pytest.raises(ConfigError, match=r"holds up to \d+ frames, .* share 2048 pages"):
            load("crafter", policy=policy, **settings)


def test_a_budget_of_memory_is_kept_and_changes_no_picture(assets, tmp_path):
    plain = load("crafter", policy="window:frames=2").open(seed=1)
    page = load("crafter").pool.shape.bytes(torch.float32)
    for budget in (3 * page, "0.5MB"):
        world = load("crafter", policy="window:frames=2", budget=budget, spill=tmp_path / "spill")
        session = world.open(seed=1)
        for at in range(9):
            made = session.step({"KeyW"}).frames
            if session.block > plain.block:
                plain.step({"KeyW"})
            assert session.latest == plain.log.steps[at]
        assert made.shape == (1, 72, 72, 3)
        assert world.pool.tier_bytes.disk > 0
        assert world.pool.tier_bytes.device <= (budget if isinstance(budget, int) else 500_000)
        world.pool.check_integrity([session])
        assert presets.world_of(session.log).pool.tier_bytes.disk == 0, "where bytes lay is no part of a life"
    assert (tmp_path / "spill").is_dir()
    assert not [*(tmp_path / "spill").iterdir()]


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"policy": "window:frames=4"}, 5),
        ({"policy": "sink:sink=2,window=3", "frames_per_block": 4}, 9),
        ({"policy": "full"}, 2),
        ({"policy": "blockvid:recent=8,top=2,run=4"}, 17),
    ],
)
def test_a_budget_below_what_one_block_sees_is_refused_with_one_that_would_do(assets, settings, least):
    page = load("crafter").pool.shape.bytes(torch.float32)
    assert load("crafter", budget=least * page, **settings).pool.tier_bytes.device == 0
    with pytest.raises(
        ConfigError, match=rf"needs {least * page} bytes .*the budget is {least * page - 1}; choose one of"
    ):
        load("crafter", budget=least * page - 1, **settings)


@pytest.mark.parametrize("frames", CRAFTER.blocks)
def test_steps_and_block_length_are_the_ones_asked_for(assets, frames):
    world = load("crafter", steps=2, frames_per_block=frames)
    assert (world.calls_per_block, world.frames_per_block) == (3, frames)
    assert world.open().step().frames.shape == (frames, 72, 72, 3)


@pytest.mark.parametrize(
    ("name", "settings", "error", "told"),
    [
        ("craftr", {}, UnknownName, r"no world 'craftr'; known: .*crafter.*did you mean 'crafter'"),
        ("crafter", {"policy": "windw"}, UnknownName, r"no policy 'windw'; known: .*full.*sink, window.*mean 'window'"),
        ("crafter", {"policy": "window:size=3"}, UnknownName, r"no option 'size' of policy 'window'"),
        ("crafter", {"policy": "window:frames=0"}, ConfigError, "at least 1 frame"),
        ("crafter", {"kv": "int4"}, UnknownName, r"no code for keys and values 'int4'; known: fp8, .*mean 'int8'"),
        (
            "crafter",
            {"kv": "int8:group=3"},
            UnknownName,
            r"no option 'group' of code for keys and values 'int8'; known: recent",
        ),
        ("crafter", {"kv": "gear4:rank=99"}, ConfigError, "choose fewer"),
        ("crafter", {"noise": "cosin"}, UnknownName, r"no noise 'cosin'; known: .*mean 'cosine'"),
        ("crafter", {"noise": "linear:low=0"}, ConfigError, "1 <= low <= high <= 100"),
        ("crafter", {"budget": "256"}, ConfigError, "a number and its unit, such as 256MB"),
        ("crafter", {"budget": "1GB,2GB", "device": "cpu"}, ConfigError, "a budget of one size"),
        ("crafter", {"budget": 10**9, "spill": "/dev/null/x"}, ConfigError, "pages cannot be kept in /dev/null/x"),
        ("crafter", {"spill": "somewhere"}, ConfigError, "nothing is moved to somewhere without a budget"),
        ("crafter", {"device": "gpu"}, UnknownName, r"no device 'gpu'; known: auto, cpu"),
        ("crafter", {"device": "cuda:77"}, ConfigError, "is not there"),
        (["crafter"], {}, ConfigError, r"a world is chosen by its name, one of crafter, maze, .*, got \['crafter'\]"),
        ("crafter", {"weights": 3}, ConfigError, "weights is a path, as a text or a Path, got 3"),
        ("self-forcing", {"weights": 3}, ConfigError, "weights is a path, as a text or a Path, got 3"),
        ("self-forcing", {"preview": 3}, ConfigError, "preview is a path, as a text or a Path, got 3"),
        ("self-forcing", {"compiled": 1}, ConfigError, "compiled is True or False, got 1"),
        (
            "self-forcing",
            {"linears": "int4"},
            UnknownName,
            r"no way of linear layers to multiply 'int4'; known: fp8, int8",
        ),
        ("self-forcing", {"linears": ["int8"]}, UnknownName, r"multiply \['int8'\]; known: fp8, int8"),
        ("self-forcing", {"linears": "fp8", "device": "cpu"}, ConfigError, "an H100 .*; choose linears='int8' .* out"),
        ("crafter", {"linears": "fp8"}, ConfigError, "linears='fp8' cannot be chosen for crafter"),
        ("crafter", {"offload": True}, ConfigError, "offload=True cannot be chosen for crafter"),
        ("self-forcing", {"offload": 1}, ConfigError, "offload is True or False, got 1"),
        ("crafter", {"compiled": True}, ConfigError, "compiled=True cannot be chosen for crafter"),
        ("self-forcing", {"size": 3}, ConfigError, "a width and a height in pixels, such as 832x480, got 3"),
        ("crafter", {"budget": "1GB", "spill": 4}, ConfigError, "spill is a path, as a text or a Path, got 4"),
        ("crafter", {"budget": "1B"}, ConfigError, "the budget is 1; choose one of 2MB or more"),
        ("crafter", {"policy": 3}, ConfigError, "policy is a text, .* got 3"),
        ("crafter", {"kv": 3}, ConfigError, "kv is a text, .* got 3"),
        ("crafter", {"noise": None}, ConfigError, "noise is a text, .* got None"),
        ("crafter", {"clean_pass": "no"}, ConfigError, "clean_pass is True or False, got 'no'"),
        ("crafter", {"recall": 0}, ConfigError, "recall is True or False, got 0"),
        ("crafter", {"budget": True}, ConfigError, "a whole number of bytes or a text such as 256MB, got True"),
        ("crafter", {"budget": 1.5e9}, ConfigError, "a whole number of bytes or a text .*, got 1500000000.0"),
        ("crafter", {"device": None}, ConfigError, "a device is chosen by a name such as 'auto' or 'cpu', got None"),
        ("crafter", {"device": 3}, ConfigError, "a device is chosen by a name such as 'auto' or 'cpu', got 3"),
        ("crafter", {"steps": 0}, ConfigError, "at least 1 step and at most 1,000, got 0"),
        ("crafter", {"steps": 10**12}, ConfigError, "at least 1 step and at most 1,000, got 1000000000000"),
        ("crafter", {"steps": "3"}, ConfigError, "steps is an integer, got '3'"),
        ("crafter", {"steps": 1.5}, ConfigError, "steps is an integer, got 1.5"),
        ("crafter", {"frames_per_block": True}, ConfigError, "blocks of 1, 2, 4 frames, got True"),
        ("crafter", {"frames_per_block": 2.0}, ConfigError, "blocks of 1, 2, 4 frames, got 2.0"),
        ("crafter", {"frames_per_block": 3}, ConfigError, "blocks of 1, 2, 4 frames, got frames_per_block=3"),
    ],
)
def test_a_name_or_setting_that_does_not_fit_is_refused_with_what_does(assets, name, settings, error, told):
    with pytest.raises(error, match=told):
        load(name, **settings)


def test_a_world_that_is_not_shipped_says_how_to_train_it(assets):
    (assets / "weights.safetensors").unlink()
    for use in (load, card):
        with pytest.raises(NotShipped, match=r"worldsim record crafter.*worldsim train crafter.*weights=FILE"):
            use("crafter")


def test_weights_can_be_given_as_a_file_with_layers_of_its_own(assets, tmp_path):
    path = write(tmp_path / "mine.safetensors", replace(SMALL, layers=2))
    for given in (path, str(path)):
        assert load("crafter", weights=given).backbone.pages.layers == 2


@pytest.mark.parametrize("changed", [{"controls": 3}, {"channels": 48}, {"height": 7}, {"patch": 3}])
def test_weights_of_another_world_are_refused(assets, tmp_path, changed):
    path = write(tmp_path / "other.safetensors", replace(SMALL, unlikely=0.0, scroll=None, **changed))
    with pytest.raises(WeightsError, match=r"other\.safetensors is not of crafter, .*; give the world that it is of"):
        load("crafter", weights=path)


def test_weights_that_are_missing_torn_or_a_pickle_are_refused(assets, tmp_path):
    torn, pickled = tmp_path / "torn.safetensors", tmp_path / "weights.pt"
    torn.write_bytes((assets / "weights.safetensors").read_bytes()[:-9])
    torch.save({"weight": torch.zeros(2)}, pickled)
    for path, told in ((tmp_path / "none", "no weights file"), (torn, "torn"), (pickled, "pickle")):
        with pytest.raises(WeightsError, match=told):
            load("crafter", weights=path)


def test_a_card_says_what_is_known_of_shipped_weights_and_of_no_others(assets):
    assert card("crafter") == {"world": "crafter", "frames": 9}
    with pytest.raises(UnknownName, match="no world 'craft'"):
        card("craft")


def test_shipped_weights_that_are_damaged_are_refused(assets):
    path = assets / "weights.safetensors"
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    (assets / "card.json").write_text(json.dumps({"world": "crafter", "sha256": known}))
    load("crafter", device="cpu")
    data = bytearray(path.read_bytes())
    data[-7] ^= 0x40
    path.write_bytes(data)
    for use in (load, card):
        with pytest.raises(WeightsError, match=r"weights.safetensors is damaged: .* install the package again"):
            use("crafter")


@pytest.mark.parametrize("name", WORLDS)
def test_a_recipe_fits_together(name):
    recipe = WORLDS[name]
    simulator = recipe.simulator()
    blank = torch.zeros(1, *simulator.size, 3, dtype=torch.uint8)
    latents, _ = recipe.codec.encode(blank, recipe.codec.open())
    assert latents.shape[1:] == recipe.backbone.geometry().frame_shape
    assert recipe.backbone.controls == len(simulator.controls)
    assert recipe.recording.world == recipe.name == name
    assert recipe.recording.simulator().controls == simulator.controls
    assert recipe.policy.limit is None or recipe.policy.limit + max(recipe.blocks) <= recipe.pages
    assert recipe.steps + 1 <= 4


@pytest.mark.parametrize("recipe", WORLDS.values(), ids=WORLDS)
def test_a_gpu_trains_by_its_own_plan_where_there_is_one(recipe):
    assert recipe.plan_for(torch.device("cpu")) is recipe.training
    assert recipe.plan_for(torch.device("cuda", 1)) is (recipe.training_on_gpu or recipe.training)


def test_a_world_is_trained_by_the_plan_for_its_device_or_learns_to_recall():
    assert CRAFTER.plan_for(torch.device("cpu")) is CRAFTER.training
    assert CRAFTER.plan_for(torch.device("cuda")) is CRAFTER.training_on_gpu
    assert CRAFTER.plan_for(torch.device("cpu"), "onward") is CRAFTER.onward
    assert CRAFTER.plan_for(torch.device("cuda"), "onward") is CRAFTER.onward_on_gpu
    assert replace(CRAFTER, onward_on_gpu=None).plan_for(torch.device("cuda"), "onward") is CRAFTER.onward
    assert MAZE.plan_for(torch.device("cuda"), "onward") is MAZE.training
    assert CRAFTER.plan_for(torch.device("cpu"), "recalling") is CRAFTER.recalling
    assert MAZE.plan_for(torch.device("cpu"), "onward") is MAZE.training
    with pytest.raises(ConfigError, match="maze remembers no places"):
        MAZE.plan_for(torch.device("cpu"), "recalling")


@pytest.mark.parametrize("scroll", [None, SMALL.scroll])
@pytest.mark.parametrize("recall", [True, False])
def test_weights_that_remember_places_recall_them_unless_told_not_to(assets, tmp_path, scroll, recall):
    world = load("crafter", weights=write(tmp_path / "w.safetensors", replace(SMALL, scroll=scroll)), recall=recall)
    assert world.plan.recall is (recall and scroll is not None)
    log = world.open(seed=1).log
    assert log.opening.plan["recall"] is world.plan.recall
    again = world_of(log, weights=tmp_path / "w.safetensors")
    assert again.plan == world.plan


def test_the_moves_of_crafter_are_those_of_its_keys():
    scroll = CRAFTER.backbone.scroll
    for key, move in (("KeyA", [0, -1]), ("KeyD", [0, 1]), ("KeyW", [-1, 0]), ("KeyS", [1, 0]), ("Space", [0, 0])):
        assert scroll.asked(torch.tensor(Crafter.controls.vector({key}))).tolist() == move


@pytest.mark.parametrize("settings", [{"policy": Window}, {"noise": NoisePlan}, {"kv": PerToken}])
def test_a_kind_is_not_taken_for_one_of_it(assets, settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is a text, .* got <class"):
        load("crafter", **settings)


@pytest.mark.parametrize("world", ["crafter", 5, True])
def test_a_session_is_restored_in_a_world_and_nothing_else(world):
    with pytest.raises(ConfigError, match=r"world is a World, as worldsim.load gives it, got .*; leave it out"):
        worldsim.restore("ok.sav", world=world)


@pytest.mark.parametrize(("name", "sign"), [("sessions", 1), ("budget", -1), ("steps", 1)])
def test_a_number_of_thousands_of_digits_is_no_setting(assets, name, sign):
    with pytest.raises(ConfigError, match="a number of more digits than can be written"):
        load("crafter", **{name: sign * 10**5_000})


@pytest.mark.parametrize("given", [{"weights": "w"}, {"preview": "p"}, {"budget": 5}])
def test_a_world_that_is_there_is_not_loaded_otherwise(given, tmp_path):
    with pytest.raises(ConfigError, match="are of a world that is loaded, and one is given; leave them out"):
        restore(tmp_path / "none", world=tiny_world(), **given)
