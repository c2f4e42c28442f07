"""The doctor finds what is wrong, says what to do about it, and takes nothing for missing that is not needed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import av
import cv2
import pytest
import torch
from typer.main import get_command

from worldsim import presets
from worldsim.errors import installing
from worldsim_apps import doctor
from worldsim_apps.cli import app
from worldsim_apps.doctor import Check, examine, is_fit, table

NAMES = [
    *(
        "Python",
        "torch",
        "processor",
        "graphics",
        "world crafter",
        "world maze",
        "video encoder",
        "video decoder",
        "JPEG",
    ),
    *("crafter", "vizdoom", "gymnasium", "gradio", "browser", "port 8765", "current folder", "folder of worlds"),
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_a_machine_that_runs_these_tests_is_fit():
    checks = found()
    assert [*checks] == NAMES
    assert is_fit([*checks.values()])
    assert [name for name, check in checks.items() if check.needed and check.state == "missing"] == []
    assert checks["torch"].found.startswith(torch.__version__)
    assert "5.9 million numbers" in checks["world crafter"].found
    assert "libx264" in checks["video encoder"].found
    assert not [*Path().iterdir()], "nothing is left behind"


def test_all_that_is_missing_or_to_be_known_has_a_remedy_or_needs_none():
    for check in found().values():
        assert check.state != "missing" or check.remedy
        assert check.state == "ok" or check.remedy or not check.needed


def test_checks_fit_into_json():
    checks = [check.to_dict() for check in examine()]
    assert json.loads(json.dumps(checks)) == checks
    assert {*checks[0]} == {"name", "state", "found", "remedy", "needed"}


def test_the_table_has_a_line_for_each_check_and_one_for_each_remedy():
    checks = [
        Check(name="a", state="ok", found="one"),
        Check(name="longer", state="missing", found="none", remedy="get one"),
    ]
    assert table(checks).splitlines() == [
        "ok       a       one",
        "missing  longer  none",
        "                 -> get one",
    ]


@pytest.mark.parametrize(
    ("state", "needed", "fit"), [("missing", True, False), ("missing", False, True), ("note", True, True)]
)
def test_only_what_is_needed_and_missing_makes_unfit(state, needed, fit):
    assert is_fit([Check(name="a", state=state, found="", needed=needed)]) is fit


@pytest.fixture
def assets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled worlds that may be broken."""
    copy = tmp_path_factory.mktemp("assets") / "assets"
    shutil.copytree(presets.ASSETS, copy)
    monkeypatch.setattr(presets, "ASSETS", copy)
    return copy / "crafter"


@pytest.mark.parametrize("name", ["weights.safetensors", "starts.safetensors", "card.json"])
def test_a_bundled_world_that_is_torn_is_missing(assets, name):
    whole = (assets / name).read_bytes()
    (assets / name).write_bytes(whole[: len(whole) // 2])
    check = found()["world crafter"]
    assert (check.state, check.needed, check.remedy) == ("missing", True, "install the package again")


def test_weights_that_are_not_here_are_missing_with_how_to_train_them(assets):
    (assets / "weights.safetensors").unlink()
    check = found()["world crafter"]
    assert (check.state, check.needed) == ("missing", True)
    assert "worldsim train crafter" in check.remedy
    assert found()["world maze"].state == "note"


def test_a_build_without_the_encoder_is_unfit(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"vp9"})
    check = found()["video encoder"]
    assert (check.state, check.needed) == ("missing", True)
    assert "without libx264" in check.found
    assert "pip install" in check.remedy


def test_an_encoder_that_is_listed_and_does_not_work_is_unfit(monkeypatch):
    def broken(*_: object, **__: object) -> bytes:
        raise av.FFmpegError(1, "it broke")

    monkeypatch.setattr("worldsim.runtime.video.movie", broken)
    checks = found()
    assert [checks[name].state for name in ("video encoder", "video decoder")] == ["missing", "missing"]
    assert "two frames could not be encoded" in checks["video encoder"].found


def test_pictures_that_cannot_be_made_are_missing(monkeypatch):
    def broken(*_: object) -> None:
        raise cv2.error("no JPEG here")

    monkeypatch.setattr(cv2, "imencode", broken)
    check = found()["JPEG"]
    assert (check.state, check.needed) == ("missing", True)
    assert "no JPEG here" in check.found


def test_engines_that_are_not_installed_are_missing_and_not_needed(monkeypatch):
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", nowhere)
    checks = found()
    for name, extra in {"crafter": "worlds", "vizdoom": "worlds", "gymnasium": "gym", "gradio": "ui"}.items():
        assert (checks[name].state, checks[name].needed) == ("missing", False)
        assert checks[name].remedy.startswith(f"{installing(extra)} ")
    assert is_fit([*checks.values()])


def test_a_browser_is_found_or_told_what_it_would_need(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "firefox" else None)
    check = found()["browser"]
    assert (check.state, check.found.split(";")[0]) == ("ok", "/usr/bin/firefox")
    assert "https or localhost" in check.found
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")
    check = found()["browser"]
    assert check.state == "note"
    assert "https or localhost" in check.remedy


def test_a_port_that_is_taken_is_told(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(doctor, "PORT", taken.getsockname()[1])
        check = found()[f"port {doctor.PORT}"]
    assert check.state == "note"
    assert "in use" in check.found
    assert "--port" in check.remedy
    assert found()[f"port {doctor.PORT}"].state == "ok"


def test_a_folder_that_cannot_be_written_is_missing_and_a_full_disk_is_told(monkeypatch):
    Path("worlds").write_text("a file")
    check = found()["folder of worlds"]
    assert (check.state, check.needed) == ("missing", True)
    assert "--folder" in check.remedy
    Path("worlds").unlink()
    monkeypatch.setattr(doctor, "ROOM_BYTES", 10**30)
    assert found()["current folder"].state == found()["folder of worlds"].state == "note"


def test_a_busy_machine_is_told_to_use_one_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (1e6, 0.0, 0.0))
    assert found()["torch"].state == "note"
    assert "OMP_NUM_THREADS=1" in found()["torch"].remedy
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert found()["torch"].state == "ok"


def test_the_port_and_the_folder_are_those_of_the_server():
    (serve,) = [command for name, command in get_command(app).commands.items() if name == "serve"]
    defaults = {parameter.name: parameter.default for parameter in serve.params}
    assert (defaults["port"], defaults["folder"]) == (doctor.PORT, doctor.FOLDER)


def test_without_torch_every_check_that_needs_it_says_so_and_the_others_go_on():
    without = "import sys; sys.modules['torch'] = None; from worldsim_apps.cli import main"
    code = f"{without}; sys.exit(main(['doctor', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert told["fit"] is False
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert [states[name] for name in ("torch", "processor", "world crafter")] == ["missing"] * 3
    assert [states[name] for name in ("Python", "JPEG", "current folder")] == ["ok"] * 3
