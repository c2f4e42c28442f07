"""The command line does what it was asked, or says in one line why not."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

from tests.signalling import send
from worldsim import presets
from worldsim.client import BlockingClient
from worldsim.decoding.noise_plan import noise_text
from worldsim.errors import SessionClosed
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.weights import save_weights
from worldsim.runtime.session import Session
from worldsim.runtime.starts import Starts
from worldsim.session.log import SessionLog
from worldsim.simulators.crafter import CONTROLS
from worldsim.testing.fakes import told_world
from worldsim.training.run import Run
from worldsim_apps.actions import Pace, read_actions
from worldsim_apps.cli import main

FAST = ("--seconds", "0.6")
RUN = "import sys; from worldsim_apps.cli import main; sys.exit(main())"


@pytest.fixture
def untrained(tmp_path, monkeypatch):
    """A crafter whose backbone is tiny and knows nothing, in place of the shipped one; in an empty folder."""
    folder = tmp_path / "assets" / "crafter"
    folder.mkdir(parents=True)
    config = SmallConfig(channels=192, height=9, width=9, controls=len(CONTROLS), dim=16, layers=1, heads=2)
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: torch.randn(w.shape, generator=generator) for name, w in SmallBackbone(config).state_dict().items()
    }
    save_weights(folder / "weights.safetensors", config, weights, dtype=torch.float32)
    places = [(torch.full((3, 72, 72, 3), 20 * n, dtype=torch.uint8), torch.zeros(3, len(CONTROLS))) for n in range(8)]
    Starts.save(folder / "starts.safetensors", places)
    (folder / "card.json").write_text('{"data": {"frames": 7}, "command": "none"}')
    monkeypatch.setattr(presets, "ASSETS", tmp_path / "assets")
    monkeypatch.chdir(tmp_path)
    return folder


def decode(path: Path) -> tuple[int, tuple[int, ...], float]:
    with av.open(path) as file:
        stream = file.streams.video[0]
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in file.decode(stream)]
        assert stream.average_rate is not None
        return len(shapes), shapes[0], float(stream.average_rate)


def subtitles(path: Path) -> list[tuple[int, str]]:
    """The frame from which on each text is shown, in a video of eight frames a second and less than a second."""
    with av.open(path) as file:
        packets = [packet for packet in file.demux(file.streams.subtitles[0]) if packet.size]
        return [(round(float(packet.pts * packet.time_base) * 8), bytes(packet)[2:].decode()) for packet in packets]


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_generate_writes_the_video_and_reports_in_json(untrained, capsys):
    Path("walk.jsonl").write_text('{"block": 1, "keys": ["KeyD"]}\n')
    options = ("--actions", "walk.jsonl", "--start", "3", "--frames-per-block", "2", "-o", "new/walk.mp4", "--json")
    code, out, err = run(capsys, "generate", *FAST, *options)
    assert (code, err) == (0, "")
    assert decode(Path("new/walk.mp4")) == (5, (576, 576, 3), 8.0)
    told = json.loads(out)
    wanted = {"world": "crafter", "seed": 0, "start": 3, "path": "new/walk.mp4", "frames": 5, "fps": 8}
    assert wanted.items() <= told.items()
    made = {"policy": "window:frames=32", "steps": 2, "frames_per_block": 2, "clean_pass": True}
    assert made.items() <= told.items()
    assert told["took_s"] > 0
    assert subtitles(Path("new/walk.mp4")) == [(0, ""), (2, "KeyD")]


def test_generate_tells_a_person_what_it_wrote(untrained, capsys):
    code, out, err = run(capsys, "generate", *FAST)
    assert (code, err) == (0, "")
    assert out.startswith("out/world.mp4: 5 frames, 0.6 s, made at ")
    assert out.count("\n") == 1


def test_generate_explains_what_blocks_attended_to(untrained, capsys):
    code, out, err = run(capsys, "generate", *FAST, "--policy", "window:frames=2", "--explain", "why.png", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)["explain"]
    assert told["path"] == "why.png"
    assert [block["frames"] for block in told["blocks"]] == [[at - 2, at - 1] for at in range(5)]
    assert all(0 < sum(block["shares"]) < 1 for block in told["blocks"])
    assert Path("why.png").read_bytes().startswith(b"\x89PNG")
    assert "explain" not in json.loads(run(capsys, "generate", *FAST, "--json")[1])
    code, _, err = run(capsys, "generate", *FAST, "--explain", "why.svg", "-o", "never.mp4")
    assert (code, Path("never.mp4").exists()) == (2, False)
    assert "drawn as a .png, got why.svg" in err


def test_a_logged_walk_is_lived_again_from_its_log_alone(untrained, capsys):
    assert run(capsys, "generate", *FAST, "--log", "logs/walk.log")[0] == 0
    code, out, err = run(capsys, "replay", "logs/walk.log", "--verify", "-o", "again.mp4")
    assert (code, err) == (0, "")
    assert out == "logs/walk.log: 5 blocks are as they were recorded, bit for bit; again.mp4\n"
    assert Path("again.mp4").read_bytes() == Path("out/world.mp4").read_bytes()
    assert subtitles(Path("again.mp4")) == [(0, "")]
    code, out, _ = run(capsys, "replay", "logs/walk.log", "--json")
    told = {"log": "logs/walk.log", "blocks": 5, "torn_bytes": 0, "verified": False, "output": None}
    assert json.loads(out) == told


def test_no_video_takes_the_place_of_a_log(untrained, capsys):
    code, out, err = run(capsys, "generate", *FAST, "--log", "walk.mp4", "-o", "./walk.mp4")
    assert (code, out) == (2, "")
    assert err == "worldsim: the video and the log are both walk.mp4; give each a file of its own\n"
    assert not Path("walk.mp4").exists()
    assert run(capsys, "generate", *FAST, "--log", "walk.mp4")[0] == 0
    text = Path("walk.mp4").read_bytes()
    Path("link.mp4").symlink_to("walk.mp4")
    Path("same.mp4").hardlink_to("walk.mp4")
    for output in ("walk.mp4", "link.mp4", "same.mp4"):
        for asked in (("replay", "walk.mp4"), ("generate", *FAST), ("generate", *FAST, "--log", "new.log")):
            code, out, err = run(capsys, *asked, "-o", output)
            assert (code, out) == (2, "")
            assert err == f"worldsim: {output} is the log of a session, which no video replaces; name another file\n"
            Path("new.log").unlink(missing_ok=True)
    assert Path("walk.mp4").read_bytes() == text


def test_a_replay_says_that_a_torn_record_was_left_out(untrained, capsys):
    assert run(capsys, "generate", *FAST, "--log", "walk.log")[0] == 0
    Path("walk.log").write_bytes(Path("walk.log").read_bytes()[:-7])
    last = len(Path("walk.log").read_bytes().splitlines()[-1])
    code, out, err = run(capsys, "replay", "walk.log", "--verify")
    assert (code, err) == (0, "")
    assert out == (
        "walk.log: 4 blocks are as they were recorded, bit for bit; "
        f"a record after them, of which {last} bytes were written, was left out\n"
    )
    code, out, _ = run(capsys, "replay", "walk.log", "--json")
    assert (json.loads(out)["blocks"], json.loads(out)["torn_bytes"]) == (4, last)


def test_a_saved_session_is_told_from_a_log_and_from_weights(untrained, capsys):
    with presets.load("crafter").open() as session:
        session.save("life.save")
    code, out, err = run(capsys, "replay", "life.save")
    assert (code, out) == (2, "")
    assert err == "worldsim: life.save is a saved session and no log; worldsim.restore goes on with it\n"
    code, out, err = run(capsys, "generate", *FAST, "--weights", "life.save")
    assert (code, out) == (2, "")
    assert err.startswith("worldsim: life.save is a saved session and no weights file; worldsim.restore goes on with")


def test_a_log_that_does_not_come_out_the_same_or_is_none_is_refused_in_a_line(untrained, capsys):
    assert main(["generate", *FAST, "--log", "walk.log"]) == 0
    code, _, err = run(capsys, "generate", *FAST, "--log", "walk.log")
    assert code == 2
    assert "walk.log exists and a log is never overwritten" in err
    log = SessionLog.decode(Path("walk.log").read_bytes())
    forged = replace(log, steps=(*log.steps[:3], replace(log.steps[3], frames="0" * 64)))
    Path("forged.log").write_bytes(forged.encode())
    code, _, err = run(capsys, "replay", "forged.log", "--verify")
    assert code == 2
    assert "block 3 came out otherwise than it was recorded" in err
    assert run(capsys, "replay", "forged.log")[0] == 0
    for name in ("nowhere.log", "out/world.mp4"):
        code, out, err = run(capsys, "replay", name)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_settings_of_a_world_reach_it(untrained, capsys, monkeypatch):
    given = {}

    def load(name: str, **settings: object) -> object:
        given.update(settings, name=name)
        return presets.load(name)

    monkeypatch.setattr("worldsim.load", load)
    options = ("--device", "cpu", "--policy", "full", "--steps", "2", "--weights", "w.safetensors", "--kv", "fp8")
    options += ("--noise", "shuffled", "--budget", "1GB", "--spill", "spilled", "--no-clean-pass")
    assert main(["generate", *FAST, *options]) == 0
    assert given == {
        "name": "crafter",
        "device": "cpu",
        "policy": "full",
        "steps": 2,
        "frames_per_block": None,
        "weights": "w.safetensors",
        "kv": "fp8",
        "noise": "shuffled",
        "clean_pass": False,
        "budget": "1GB",
        "spill": "spilled",
        "size": None,
        "on_prompt": None,
        "preview": None,
        "compiled": False,
        "linears": None,
        "offload": None,
    }


def test_what_is_chosen_of_a_published_model_reaches_it(untrained, capsys, monkeypatch):
    """The world itself is a small one that is told, so that prompts are seen to change what is shown."""
    given, told = {}, []

    def load(name: str, **settings: object) -> object:
        given.update(settings, name=name)
        return told_world()

    monkeypatch.setattr("worldsim.load", load)
    monkeypatch.setattr("worldsim.published.parse_size", lambda text: told_world().size)
    monkeypatch.setattr("worldsim.published.check_room", lambda *_: None)  # it is no size of such a model
    prompts = untrained / "prompts.jsonl"
    prompts.write_text('{"block": 2, "prompt": "a lake by night"}\n')
    slowly = untrained / "slowly.jsonl"
    slowly.write_text('{"seconds": 1.3125, "prompt": "a lake by night", "over": 3}\n')
    walk = ["generate", "--seconds", "2", "--world", "self-forcing", "--weights", "public", "--prompt", "a wood"]
    walk += ["--size", "96x64", "--on-prompt", "flush", "--preview", "tiny.pth"]
    walk += ["--compile", "--linears", "fp8", "--offload"]
    picture = untrained / "picture.png"
    cv2.imwrite(str(picture), np.full((30, 70), 90, np.uint8))
    for more in ([], ["--prompts", str(prompts)], [], ["--image", str(picture)], ["--prompts", str(slowly)]):
        video = untrained / f"{len(told)}.mp4"
        assert main([*walk, *more, "-o", str(video)]) == 0
        told.append(video.read_bytes())
    assert told[0] == told[2]
    assert len({*told}) == 4
    assert given.pop("weights") == "public"
    chosen = {name: given[name] for name in ("name", "size", "on_prompt", "preview", "compiled", "linears", "offload")}
    assert chosen == {
        "name": "self-forcing",
        "size": "96x64",
        "on_prompt": "flush",
        "preview": Path("tiny.pth"),
        "compiled": True,
        "linears": "fp8",
        "offload": True,
    }
    prompts.write_text('{"block": 0, "prompt": "a lake"}\n')
    capsys.readouterr()
    assert main([*walk, "--prompts", str(prompts)]) == 2
    assert "say what block 0 shows" in capsys.readouterr().err


def test_generate_says_what_keys_and_values_take_in_each_form(untrained, capsys):
    took = []
    for options in ((), ("--kv", "int8"), ("--kv", "int8:recent=0")):
        code, out, err = run(capsys, "generate", *FAST, "--json", *options)
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert told["kv"] == (options[1] if options else None)
        took.append(told["kv_bytes"])
    plain, kept, bare = took
    page = 2 * 81 * 2 * 64 * 4  # keys and values, tokens, heads, dimensions, bytes of a float32
    assert plain == {"exact": 8 * page, "coded": 0}, "three frames of a starting place and five that were made"
    assert kept == plain, "none is older than the newest eight"
    assert bare == {"exact": 0, "coded": 8 * (page // 4 + 2 * 81 * 2)}


def test_no_two_results_of_a_walk_go_to_one_file(untrained, capsys):
    code, _, err = run(capsys, "generate", *FAST, "--log", "one.png", "--explain", "./one.png")
    assert (code, err) == (2, "worldsim: the log and what is explained are both one.png; give each a file of its own\n")
    assert not Path("one.png").exists()
    code, _, err = run(capsys, "generate", *FAST, "--explain", "/proc/nowhere/why.png")
    assert code == 2
    assert "/proc/nowhere" in err
    assert not Path("out/world.mp4").exists()


def test_no_folder_to_spill_to_is_not_taken_for_this_one(untrained, capsys):
    code, _, err = run(capsys, "generate", *FAST, "--budget", "300kB", "--spill", "")
    assert (code, err) == (2, "worldsim: spill is a path, as a text or a Path, got ''\n")


def test_a_walk_under_a_budget_of_memory_is_the_same_and_says_what_lies_where(untrained, capsys):
    told, videos = [], []
    for options in ((), ("--budget", "300kB", "--spill", "spill")):
        code, out, err = run(capsys, "generate", *FAST, "--policy", "full", "--json", *options)
        assert (code, err) == (0, "")
        told.append(json.loads(out))
        videos.append(Path("out/world.mp4").read_bytes())
    assert videos[0] == videos[1]
    plain, tiered = (each["tier_bytes"] for each in told)
    assert [each["budget"] for each in told] == [None, "300kB"]
    assert told[0]["kv_bytes"] == told[1]["kv_bytes"]
    held = sum(told[0]["kv_bytes"].values())
    assert plain == {"device": held, "host": 0, "disk": 0}
    assert tiered["device"] <= 300_000 < held <= tiered["device"] + tiered["disk"]
    code, out, err = run(capsys, "generate", *FAST, "--budget", "300kB")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "that sees 32 frames before it needs" in err
    assert "the budget is 300000; choose one of" in err


def test_a_walk_with_coded_keys_and_values_is_lived_again_from_its_log_alone(untrained, capsys):
    assert run(capsys, "generate", *FAST, "--kv", "kivi2:recent=1", "--log", "walk.log")[0] == 0
    assert run(capsys, "replay", "walk.log", "--verify")[0] == 0


def test_a_walk_under_a_plan_of_noise_is_lived_again_from_its_log_alone(untrained, capsys):
    options = ("--noise", "cosine:low=40,period=3,window=4", "--frames-per-block", "2", "--log", "walk.log", "--json")
    code, out, err = run(capsys, "generate", *FAST, *options)
    assert (code, err) == (0, "")
    assert json.loads(out)["noise"] == "cosine:low=40,period=3,window=4"
    noisy = Path("out/world.mp4").read_bytes()
    assert run(capsys, "replay", "walk.log", "--verify")[0] == 0
    assert run(capsys, "generate", *FAST, "--frames-per-block", "2")[0] == 0
    assert Path("out/world.mp4").read_bytes() != noisy


def test_another_seed_or_start_gives_another_video_and_the_same_the_same(untrained):
    videos = []
    for options in ((), ("--seed", "8"), ("--start", "1"), ()):
        assert main(["generate", *FAST, *options]) == 0
        videos.append(Path("out/world.mp4").read_bytes())
    assert videos[0] == videos[3]
    assert len(set(videos)) == 3


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_made_and_exits_with_130(untrained, capsys, monkeypatch, which):
    step = Session.step

    def press(session: Session, keys: frozenset[str]) -> object:
        if session.block == 2:
            send(which)
        return step(session, keys)

    monkeypatch.setattr(Session, "step", press)
    code, out, err = run(capsys, "generate", "--json")
    assert (code, err) == (130, "worldsim: stopped\n")
    assert json.loads(out)["stopped"] is True
    assert decode(Path("out/world.mp4"))[0] == json.loads(out)["frames"] == 3


def test_a_video_that_exists_outlives_a_walk_that_is_refused_or_stopped(untrained, capsys, monkeypatch):
    assert main(["generate", *FAST]) == 0
    old = Path("out/world.mp4").read_bytes()
    for wrong in ("--weights none.safetensors", "--policy none", "--log /proc/none/walk.log", "--start 99"):
        assert main(["generate", *FAST, *wrong.split()]) == 2
    assert [*Path("out").iterdir()] == [Path("out/world.mp4")]
    step = Session.step

    def press(session: Session, keys: frozenset[str]) -> object:
        send(signal.SIGINT)
        return step(session, keys)

    monkeypatch.setattr(Session, "step", press)
    capsys.readouterr()
    code, out, _ = run(capsys, "generate", "--json")
    assert (code, json.loads(out)["path"]) == (130, "out/world.unfinished.mp4")
    assert decode(Path("out/world.unfinished.mp4"))[0] == 1
    assert Path("out/world.mp4").read_bytes() == old


@pytest.mark.parametrize(("which", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_second_signal_says_which_it_was_and_where_the_part_is_that_was_made(
    untrained, capsys, monkeypatch, which, name
):
    step = Session.step

    def press(session: Session, keys: frozenset[str]) -> object:
        if session.block == 2:
            send(signal.SIGTERM)
            send(which)
        return step(session, keys)

    monkeypatch.setattr(Session, "step", press)
    told = f"worldsim: stopped by {name}; what had been made, 2 frames, is in out/world.mp4\n"
    assert run(capsys, "generate", "--json") == (130, "", told)
    assert decode(Path("out/world.mp4"))[0] == 2


def test_a_log_that_can_be_written_no_more_says_where_the_part_is_that_was_made(untrained, capsys, monkeypatch):
    step = Session.step

    def full(session: Session, keys: frozenset[str]) -> object:
        if session.block == 2:
            raise OSError(28, "No space left on device", "walk.log")
        return step(session, keys)

    monkeypatch.setattr(Session, "step", full)
    code, _, err = run(capsys, "generate", *FAST, "--log", "walk.log")
    assert code == 2
    assert err == (
        "worldsim: cannot use walk.log: No space left on device; free some space, or name a place that has more; "
        "what had been made, 2 frames, is in out/world.mp4\n"
    )


def test_a_picture_that_cannot_be_drawn_costs_nothing_of_what_was_made(untrained, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worldsim.runtime.growing.GrowingFile.write", lambda *_: None)
    monkeypatch.setattr("worldsim_apps.explain.GrowingFile", full)
    code, out, err = run(capsys, "generate", *FAST, "--explain", "why.png", "--json")
    assert (code, len(json.loads(out)["explain"]["blocks"])) == (2, 5)
    assert err == (
        "worldsim: the walk is made, and why.png, which explains it, cannot be written: No space left on device; free "
        "some space, or name another file\n"
    )
    Path("dir.png").mkdir()
    code, _, err = run(capsys, "generate", *FAST, "--explain", "dir.png")
    assert (code, err) == (2, "worldsim: dir.png is a folder, and what is explained is drawn to a file; name another\n")


@pytest.mark.parametrize("option", ["--image", "--video", "--actions", "--prompts", "--weights"])
@pytest.mark.parametrize("result", ["--output", "--log", "--explain"])
def test_no_result_takes_the_place_of_what_is_read(untrained, capsys, option, result):
    Path("a").write_text("read")
    code, out, err = run(capsys, "generate", *FAST, option, "a", result, "./a")
    assert (code, out, Path("a").read_text()) == (2, "", "read")
    assert err.endswith(" are both a; give each a file of its own\n")
    assert not Path("out").exists()


def test_no_replay_takes_the_place_of_its_weights(untrained, capsys):
    Path("a.mp4").write_text("read")
    code, _, err = run(capsys, "replay", "a.log", "--weights", "a.mp4", "-o", "a.mp4")
    assert (code, Path("a.mp4").read_text()) == (2, "read")
    assert "the weights and the video are both a.mp4" in err


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("\n", "walk.jsonl: it has no line, so it changes nothing"),
        (
            '{"block": 1, "keys": []}\n{"block": 5, "keys": ["KeyD"]}\n{"block": 9, "keys": []}\n',
            "walk.jsonl: the walk has blocks 0 to 4, so its line of block 5 and all after it change nothing",
        ),
    ],
)
def test_what_of_a_script_changes_nothing_is_told_and_no_more(untrained, capsys, lines, says):
    Path("walk.jsonl").write_text(lines)
    code, out, err = run(capsys, "generate", *FAST, "--actions", "walk.jsonl", "--json")
    assert (code, json.loads(out)["frames"], err) == (0, 5, f"worldsim: {says}\n")


def test_a_policy_that_forgets_nothing_is_refused_a_walk_that_there_is_no_memory_for(untrained, capsys):
    code, out, err = run(capsys, "generate", "--seconds", "300", "--policy", "full", "--log", "walk.log")
    assert (code, out, [*Path().glob("*.log")], Path("out").exists()) == (2, "", [], False)
    assert "has memory for 2045 frames, 256 s, and 2400 are asked for; ask for --seconds 255 or less" in err


@pytest.mark.parametrize(("which", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("within", ["worldsim.load", "worldsim.runtime.world.World.open"])
def test_a_walk_that_is_stopped_before_its_first_block_exits_with_130_too_and_leaves_no_file(
    untrained, capsys, monkeypatch, within, which, name
):
    def interrupted(*_: object, **__: object) -> None:
        assert signal.getsignal(which) is not signal.SIG_DFL
        send(which)

    monkeypatch.setattr(within, interrupted)
    assert run(capsys, "generate", "--log", "walk.log") == (130, "", f"worldsim: stopped by {name}\n")
    assert [*Path("out").glob("*"), *Path().glob("*.log")] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "Missing command"),
        ("generat", "No such command 'generat'"),
        ("generate --sekonds 3", "No such option: --sekonds"),
        (
            "generate --start x",
            "unable to parse string as an integer, got 'x'. worldsim generate --help says what fits.",
        ),
        ("generate --seconds 1e308", "--seconds is a length of time above 0 and at most 31622400 (a year), got 1e+308"),
        ("generate --world \x1b[31m", "there is no world '\\x1b[31m'; known: "),
        ("generate -o \x1b[31m.avi", "got \\x1b[31m.avi; use a name that ends in .mp4"),
        ("generate --weights .", ". is a folder, and the weights of such a world are one file in it; give the"),
        ("generate --seconds soon", "'--seconds'"),
        ("generate --seconds 0", "--seconds is a length of time above 0 and at most 31622400 (a year), got 0.0"),
        ("generate --kv int7", "no code for keys and values 'int7'; known: fp8, gear2, gear4, int8, kivi2, kivi4"),
        ("generate --noise cosin", "no noise 'cosin'; known: cosine, linear, plain, published, shuffled"),
        ("generate --seconds nan", "--seconds is a length of time above 0 and at most 31622400 (a year), got nan"),
        ("generate --seconds inf", "--seconds is a length of time above 0 and at most 31622400 (a year), got inf"),
        ("generate --seed -1", "'--seed'"),
        ("generate --world crafted", "did you mean 'crafter'?"),
        ("generate --world self-forcing", "the weights of self-forcing are public and not in the package"),
        ("generate --world self-forcing --weights nowhere --steps 3", "steps=3 cannot be chosen for self-forcing"),
        ("generate --size 832x480", "size='832x480' cannot be chosen for crafter"),
        ("generate --world self-forcing --weights nowhere --size 830x480", "the nearest size that does is 832x480"),
        ("generate --prompt wood", "crafter is steered by keys alone and takes no prompts; leave --prompt out"),
        ("convert nowhere out --recipe selfforcing", "did you mean 'self-forcing'?"),
        (
            "generate --policy windows:frames=3",
            "there is no policy 'windows'; known: adaptive, blockvid, far-sink, full, mismatched, pages, random, "
            "recompute, sink, window; did you mean 'window'?",
        ),
        ("generate --policy window:frame=3", "there is no option 'frame' of policy 'window'; known: frames"),
        ("generate --policy window:frames=0", "0"),
        ("generate --device tpu", "there is no device 'tpu'; known: auto, cpu"),
        ("generate --device cuda:64", "is not there"),
        ("generate --steps 0", "at least 1"),
        ("generate --frames-per-block 3", "crafter makes blocks of 1, 2, 4 frames"),
        ("generate --start 8", "there is no starting place 8; choose from 0 to 7"),
        ("generate --start -1", "there is no starting place -1; choose from 0 to 7"),
        ("generate --weights none.safetensors", "there is no weights file none.safetensors"),
        ("generate --weights walk.jsonl", "walk.jsonl is torn or no safetensors file"),
        ("generate --actions none.jsonl", "cannot read the actions file none.jsonl"),
        ("generate --actions walk.jsonl", "walk.jsonl, line 2: there is no key 'KeyX'"),
        ("generate --prompts none.jsonl", "cannot read the prompts file none.jsonl"),
        ("generate --prompts walk.jsonl", "walk.jsonl, line 1: a line has the field prompt and either"),
        ("generate --prompts told.jsonl", "crafter is steered by keys alone and takes no prompts; leave --prompts out"),
        ("generate -o two\nlines.avi", "got two lines.avi; use a name that ends in .mp4"),
        ("generate -o walk.jsonl/a.mp4", "cannot write walk.jsonl/a.mp4: "),
        ("record", "Missing argument"),
        ("record nowhere", "there is no world 'nowhere'"),
        ("record crafter --frames 0", "at least 1 frame"),
        ("record crafter --seed 64", "seed lies in 0 .. 63"),
        ("record crafter -o walk.jsonl", "walk.jsonl"),
        ("train nowhere", "there is no world 'nowhere'"),
        ("train crafter --data none", "there is no held-out shard in none; record some first"),
        ("train crafter --resume", "there is no runs/crafter/checkpoint.safetensors to go on from"),
        ("train crafter --minutes 0", "train for more than 0 minutes"),
        ("train crafter --updates 0", "train for more than 0 minutes and 1 update or more"),
        ("train crafter --device tpu", "there is no device 'tpu'"),
        ("info nowhere", "there is no world 'nowhere'"),
        ("info crafter --budget 1GB", "what crafter takes is small and not planned, got budget=1GB; leave it out"),
        ("info self-forcing --budget 1GB", "and the budget is 1000000000; choose one of 6039MB or more"),
        ("generate --video none.mp4", "there is no video none.mp4; give an MP4, MOV or WebM that plays to its end"),
        ("generate --video walk.jsonl", "walk.jsonl is no video that can be read to its end"),
        ("generate --video a.mp4 --image a.png", "both --image and --video say what the walk begins from; leave one"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_exits_with_2(untrained, capsys, arguments, says):
    Path("walk.jsonl").write_text('{"block": 0, "keys": ["KeyW"]}\n{"block": 1, "keys": ["KeyX"]}\n')
    Path("told.jsonl").write_text('{"block": 0, "prompt": "a lake"}\n')
    code, out, err = run(capsys, *arguments.split(" ") if arguments else ())
    assert (code, out) == (2, "")
    assert err.startswith("worldsim: ")
    assert err.count("\n") == 1
    assert says in err
    assert not Path("out").exists()


def test_record_writes_shards_and_leaves_those_that_are_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 23)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "record", "crafter", "--frames", "20", "--seed", "5", "--json")
    assert (code, err) == (0, "")
    told = {"world": "crafter", "output": "data/crafter", "seed": 5, "held_out": False}
    told |= {"stopped": False, "shards": 1, "frames": 23}
    assert json.loads(out) == told
    (shard,) = Path("data/crafter").iterdir()
    written = shard.stat().st_mtime_ns
    code, out, _ = run(capsys, "record", "crafter", "--frames", "20", "--seed", "5", "-o", "data/crafter")
    assert (code, out) == (0, "data/crafter: 23 frames\n")
    assert shard.stat().st_mtime_ns == written
    assert main(["record", "crafter", "--frames", "1", "--held-out"]) == 0
    (judged,) = {*Path("data/crafter").iterdir()} - {shard}
    assert judged.name.startswith("held-out")


@pytest.fixture
def trained(monkeypatch):
    """What `train` asked of the trainer, which here answers at once."""
    asked: dict[str, Any] = {}

    def train_world(recipe: Any, data: Path, out: Path, run: Run, *, on_update: Any, stopping: Any) -> dict[str, Any]:
        asked.update(name=recipe.name, data=data, out=out, run=run)
        on_update(30, 0.25)
        return {"update": 30, "tiles": 0.5, "still": 0.125}

    monkeypatch.setattr("worldsim.training.run.train_world", train_world)
    monkeypatch.setattr("worldsim.training.run.plan_of", lambda recipe, out, run: recipe.training)
    return asked


def test_train_hands_over_what_was_asked_and_reports_what_was_judged(trained, capsys):
    options = "--data d --out o --minutes 2.5 --updates 40 --seed 6 --device cpu --compile --resume --json"
    code, out, err = run(capsys, "train", "crafter", *options.split())
    assert (code, err) == (0, "")
    wanted = Run(device=torch.device("cpu"), seed=6, minutes=2.5, updates=40, resume=True, compiled=True)
    assert trained == {"name": "crafter", "data": Path("d"), "out": Path("o"), "run": wanted}
    told = {"world": "crafter", "output": "o", "seed": 6, "stopped": False, "update": 30, "tiles": 0.5, "still": 0.125}
    assert json.loads(out) == told


def test_training_that_is_stopped_says_what_is_kept_and_how_to_go_on(monkeypatch, capsys):
    def train_world(*_: Any, **settings: Any) -> dict[str, Any]:
        with settings["stopping"]() as is_stopped:
            send(signal.SIGINT)
            assert is_stopped()
        return {"update": 7, "minutes": 0.5, "train_loss": 0.25}

    monkeypatch.setattr("worldsim.training.run.train_world", train_world)
    for weights, again in (((), "--resume"), (("--weights", "w"), "--resume in place of --weights")):
        code, out, err = run(capsys, "train", "crafter", "--out", "o", *weights)
        says = "o/checkpoint.safetensors: 7 updates are kept, and their weights beside it; go on with the same command "
        assert (code, out) == (130, f"{says}and {again}\n")
        assert err == "worldsim: stopped\n"
    code, out, _ = run(capsys, "train", "crafter", "--json")
    assert code == 130
    assert json.loads(out)["stopped"] is True


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_recording_that_is_stopped_says_what_is_kept_and_how_to_go_on(monkeypatch, capsys, which):
    monkeypatch.setattr("worldsim.training.data.record", lambda *_, **__: send(which))
    code, out, err = run(capsys, "record", "crafter", "-o", "o")
    assert (code, out) == (130, "o: shards that are whole stay there; go on with the same command\n")
    assert err == "worldsim: stopped\n"
    assert json.loads(run(capsys, "record", "crafter", "--json")[1])["stopped"] is True


def test_train_follows_the_plan_of_the_world_when_nothing_else_is_asked(trained, capsys):
    code, out, _ = run(capsys, "train", "crafter", "--device", "cpu")
    assert trained["run"] == Run(device=torch.device("cpu"))
    assert (trained["data"], trained["out"]) == (Path("data/crafter"), Path("runs/crafter"))
    assert code == 0
    assert out.startswith("runs/crafter/weights.safetensors: after 30 updates 50.0% of the tiles one block ahead")


def test_train_shows_how_far_it_is_by_whichever_limit_is_nearer(trained, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for limits, share in ((("--updates", "40"), "75%"), (("--updates", "40", "--minutes", "0.0000001"), "100%")):
        _, _, err = run(capsys, "train", "crafter", *limits)
        assert "train crafter, loss 0.2500" in err
        assert share in err


def test_weights_that_are_not_shipped_are_told_with_how_to_train_them(untrained, capsys):
    (untrained / "weights.safetensors").unlink()
    code, _, err = run(capsys, "generate")
    assert code == 2
    assert err.count("\n") == 1
    assert "worldsim train crafter" in err


def test_info_shows_the_machine_and_a_worlds_keys_and_card(untrained, capsys):
    code, out, err = run(capsys, "info", "crafter")
    assert (code, err) == (0, "")
    for line in ("    do: Space Enter", "  fps: 8", "  size: 72x72", "      frames: 7", "  h264: True"):
        assert line in out.splitlines()


def test_info_is_asked_about_a_world_in_either_way_and_in_one_of_them(untrained, capsys):
    one, other = (run(capsys, "info", *asked)[1] for asked in (("--world", "crafter"), ("crafter",)))
    assert one[: one.index("machine")] == other[: other.index("machine")]
    code, _, err = run(capsys, "info", "crafter", "--world", "maze")
    assert code == 2
    assert "two worlds are named, crafter and --world maze; ask about one at a time" in err


def test_info_in_json_is_one_object(untrained, capsys):
    code, out, _ = run(capsys, "info", "crafter", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["world"]["card"] == {"data": {"frames": 7}, "command": "none"}
    assert told["world"]["keys"]["move_right"] == "KeyD ArrowRight"
    assert told["machine"]["torch"] == torch.__version__
    assert "crafter" in told["worlds"]


def test_info_says_of_a_world_that_is_not_shipped_how_to_train_it(untrained, capsys):
    (untrained / "weights.safetensors").unlink()
    code, out, _ = run(capsys, "info", "crafter", "--json")
    assert code == 0
    assert "worldsim train crafter" in json.loads(out)["world"]["card"]["weights"]


def test_info_refuses_what_is_chosen_of_no_world(untrained, capsys):
    told = "--policy window --preview 'a b.pth' is said of no world; name a published model, as in worldsim info "
    code, out, err = run(capsys, "info", "--preview", "a b.pth", "--policy", "window")
    assert (code, out, err.startswith(f"worldsim: {told}self-forcing --policy window")) == (2, "", True)
    assert run(capsys, "info")[0] == 0


def test_the_help_of_info_says_that_settings_are_of_a_published_model(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    lines = run(capsys, "info", "--help")[1].splitlines()
    for option in ("--size", "--policy", "--kv", "--budget", "--preview"):
        assert "published model" in next(line for line in lines if option in line)


def test_the_doctor_tells_a_person_and_a_program(untrained, capsys):
    code, out, err = run(capsys, "doctor")
    assert (code, err) == (0, "")
    assert "ok       video encoder     libx264" in out
    code, out, err = run(capsys, "doctor", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["fit"] is True
    assert "world crafter" in [check["name"] for check in told["checks"]]


def test_the_doctor_exits_with_1_where_the_bundled_world_cannot_be_lived_in(untrained, capsys):
    (untrained / "weights.safetensors").unlink()
    code, out, err = run(capsys, "doctor")
    assert (code, err) == (1, "")
    assert "missing  world crafter" in out
    assert "worldsim train crafter" in out
    assert json.loads(run(capsys, "doctor", "--json")[1])["fit"] is False


def test_the_real_command_exits_with_2_and_one_line():
    done = subprocess.run(
        [sys.executable, "-c", RUN, "info", "nowhere"], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [done.stderr.strip()]


def test_help_answers_without_importing_torch():
    code = f"{RUN.replace('sys.exit(main())', 'main()')}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "generate", "--help"], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0
    assert "--frames-per-block" in done.stdout


def test_the_shipped_demo_is_a_script_of_twenty_seconds():
    script = Path(str(presets.CRAFTER.folder)) / "demo.jsonl"
    actions = read_actions(script, CONTROLS, Pace(fps=8, frames=1))
    assert actions.blocks[-1] < 20 * 8
    assert len(set(actions.held)) > 5


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
def test_a_served_world_is_played_and_saved_when_the_server_is_told_to_stop(tmp_path):
    command = [sys.executable, "-c", RUN, "serve", "--port", "0", "--max-sessions", "1", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        assert told["world"] == "crafter"
        with BlockingClient(told["url"].removesuffix("/v1/world")) as client:
            client.start(seed=3, pace=0)
            assert [client.frame().pixels.shape for _ in range(2)] == [(72, 72, 3)] * 2
            server.send_signal(signal.SIGTERM)
            with pytest.raises(SessionClosed, match="restart"):
                list(client)
            kept = client.world
        assert server.wait(60) == 0
    assert (tmp_path / "worlds" / f"{kept}.world").exists()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "can be reached by others; start the server with a token"),
        (("--port", "70000"), "'--port': Input should be less than or equal to 65535"),
        (("--max-sessions", "0"), "'--max-sessions': Input should be greater than or equal to 1"),
        (("--max-sessions", "100000"), "pages have room for"),
        (("--world", "crofter"), "did you mean 'crafter'"),
        (("--folder", "taken"), "worlds are kept in a folder, and taken is none"),
    ],
)
def test_a_server_that_cannot_be_started_says_why(capsys, arguments, says):
    Path("taken").write_text("a file")
    code, out, error = run(capsys, "serve", *arguments)
    assert (code, out) == (2, "")
    assert says in error


@pytest.mark.usefixtures("untrained")
def test_how_keys_and_values_are_kept_reaches_the_world_that_is_served(monkeypatch):
    served: list[Any] = []

    async def run(world: object, settings: object, on_ready: object) -> None:
        served.append(world)

    monkeypatch.setattr("worldsim_apps.server.run", run)
    options = ["--kv", "int8:recent=2", "--budget", "30MB", "--spill", "spilled", "--device", "cpu"]
    assert main(["serve", *options]) == 0
    assert main(["serve", "--device", "cpu"]) == 0
    kept, plain = (world.pool for world in served)
    assert (kept.storage.recent, kept._tiers.budget.device) == (2, 30_000_000)
    assert (plain.storage, plain._tiers) == (None, None)
    assert Path("spilled").is_dir()


def test_how_keys_and_values_are_kept_reaches_a_published_model_that_is_served(monkeypatch):
    given: dict[str, Any] = {}

    async def run(world: object, settings: object, on_ready: object) -> None:
        given["world"] = world

    monkeypatch.setattr("worldsim_apps.server.run", run)
    monkeypatch.setattr("worldsim.load", lambda name, **settings: given.update(settings, name=name))
    assert main(["serve", "--world", "longlive", "--kv", "fp8", "--budget", "7GB", "--max-sessions", "2"]) == 0
    chosen = {name: given[name] for name in ("name", "kv", "budget", "sessions")}
    assert chosen == {"name": "longlive", "kv": "fp8", "budget": "7GB", "sessions": 3}


@pytest.mark.usefixtures("untrained")
def test_how_blocks_are_made_reaches_the_world_that_is_served(monkeypatch):
    served: list[Any] = []

    async def run(world: object, settings: object, on_ready: object) -> None:
        served.append(world)

    monkeypatch.setattr("worldsim_apps.server.run", run)
    level = "cosine:low=40,high=100,period=3,window=0"
    options = ["--noise", level, "--no-clean-pass", "--steps", "3", "--device", "cpu"]
    assert main(["serve", *options]) == 0
    assert main(["serve", "--device", "cpu"]) == 0
    chosen, plain = (world.plan for world in served)
    assert (noise_text(chosen.noise), chosen.clean_pass, len(chosen.sigmas)) == (level, False, 3)
    assert (plain.noise.is_plain, plain.clean_pass, len(plain.sigmas)) == (True, True, 2)


@pytest.mark.usefixtures("untrained")
def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, error = run(capsys, "serve", "--port", str(port))
    assert code == 2
    assert f"port {port} of 127.0.0.1 is taken; choose another with --port" in error


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("opens", [True, False])
def test_the_page_is_opened_in_a_browser_or_it_is_said_where_it_is(capsys, monkeypatch, opens):
    opened: list[str] = []

    async def served(world: object, settings: object, on_ready: Callable[[int], None]) -> None:
        on_ready(1234)

    monkeypatch.setattr("worldsim_apps.server.run", served)
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or opens)
    code, out, error = run(capsys, "serve", "--open", "--json")
    assert (code, opened) == (0, ["http://127.0.0.1:1234/"])
    assert json.loads(out)["page"] == opened[0]
    assert error == "" if opens else "open http://127.0.0.1:1234/ in one" in error
