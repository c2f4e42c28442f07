"""What works on this machine, what does not, and what to do about it.

Nothing heavy is imported before the check that needs it, so that a machine without it is told so in its own line.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

BUNDLED = "crafter"
PORT = 8765
"""Where `worldsim serve` listens by default."""
FOLDER = Path("worlds")
"""Where it keeps worlds by default."""
ROOM_BYTES = 1_000_000_000
"""Below this a disk is soon full of logs, saved worlds and videos."""
INSTALL = ".venv/bin/pip install --constraint constraints.txt --editable"
"""As worldsim.errors.installing says it, which this page cannot ask: importing worldsim takes torch."""
SOURCES = {
    "crafter": f"{INSTALL} '.[worlds]' to record, train and compare with the real engine",
    "vizdoom": f"{INSTALL} '.[worlds]' to record and train the maze",
    "gymnasium": f"{INSTALL} '.[gym]' to give the worlds to agents",
    "gradio": f"{INSTALL} '.[ui]' for the page around the player",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "firefox")
APPLICATIONS = ("Google Chrome", "Chromium", "Microsoft Edge", "Firefox", "Safari")
SECURE = "H.264 in a page (WebCodecs) wants https or localhost; JPEG is shown anywhere"

State = Literal["ok", "missing", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    name: what it is.
    state: "ok"; "missing": it does not work; "note": it works, or is not needed, and there is something to know.
    found: what there is.
    remedy: what to do, where something can be done.
    needed: whether the bundled world cannot be walked, filmed or served without it.
    """

    name: str
    state: State
    found: str
    remedy: str = ""
    needed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return asdict(self)


def examine() -> Iterator[Check]:
    """Every check, in the order in which things build on each other; takes some seconds, most of them to load torch."""
    yield _python()
    yield _tried("torch", _torch, "pip install torch, version 2.11 or newer")
    yield _tried("processor", _processor, "install torch first")
    yield _tried("graphics", _graphics, "install torch first", needed=False)
    yield from _worlds()
    yield _tried("video encoder", _encoder, "pip install --force-reinstall --only-binary av av")
    yield _tried("video decoder", _decoder, "pip install --force-reinstall --only-binary av av", needed=False)
    yield _tried("JPEG", _jpeg, "pip install --force-reinstall opencv-python-headless")
    for package in SOURCES:
        yield _package(package)
    yield _browser()
    yield _port()
    yield _folder("current folder", Path())
    yield _folder("folder of worlds", FOLDER)


def is_fit(checks: list[Check]) -> bool:
    """Whether nothing is missing that the bundled world needs."""
    return not any(check.needed and check.state == "missing" for check in checks)


def table(checks: list[Check]) -> str:
    """A line for each check, and what to do on a line of its own below."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.name:<{width}}  {check.found}")
        if check.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.remedy}")
    return "\n".join(lines)


def _tried(name: str, check: Callable[[], Check], remedy: str, *, needed: bool = True) -> Check:
    """The check, or that what it is about is not there or broken."""
    try:
        return check()
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        return Check(name=name, state="missing", found=_line(error), remedy=remedy, needed=needed)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(name="Python", state="ok", found=found, needed=True)


def _torch() -> Check:
    import torch

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    found = f"{torch.__version__}, computes on {threads} of {cores} cores"
    if threads > 1 and hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > cores / 2:
        remedy = f"others keep the cores busy (load {load:.1f}); blocks come faster with OMP_NUM_THREADS=1"
        return Check(name="torch", state="note", found=found, remedy=remedy, needed=True)
    return Check(name="torch", state="ok", found=found, needed=True)


def _processor() -> Check:
    import torch

    from worldsim_apps.machine import machine

    gain = machine()["cpu_bf16_speedup"]
    found = f"{torch.backends.cpu.get_cpu_capability()}; bfloat16 is {gain:.2g} times as fast as float32"
    return Check(name="processor", state="ok", found=found, needed=True)


def _graphics() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check(name="graphics", state="note", found="no GPU that torch can use; the bundled world needs none")
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
    return Check(name="graphics", state="ok", found=f"{torch.cuda.get_device_name(0)}, {memory_gb:.0f} GB")


def _worlds() -> Iterator[Check]:
    """Each world that worldsim knows: whether its weights and starting places are here and whole."""
    try:
        from worldsim.presets import WORLDS
    except (ImportError, OSError) as error:
        remedy = "install what is missing above, then worldsim again"
        yield Check(name=f"world {BUNDLED}", state="missing", found=_line(error), remedy=remedy, needed=True)
        return
    for name in WORLDS:
        yield _world(name)


def _world(name: str) -> Check:
    import torch

    from worldsim.errors import NotShipped, WorldSimError
    from worldsim.models.small.weights import load_weights
    from worldsim.presets import WORLDS, card
    from worldsim.runtime.starts import Starts

    folder, title, needed = WORLDS[name].folder, f"world {name}", name == BUNDLED
    try:
        card(name)
        weights = load_weights(folder / "weights.safetensors", dtype=torch.float32, device=torch.device("cpu"))
        starts = Starts.load(folder / "starts.safetensors")
    except NotShipped:
        state: State = "missing" if needed else "note"
        remedy = f"worldsim record {name}, the same with --held-out, then worldsim train {name}"
        return Check(name=title, state=state, found="no weights in the package", remedy=remedy, needed=needed)
    except (WorldSimError, OSError, ValueError) as error:
        remedy = "install the package again"
        return Check(name=title, state="missing", found=_line(error), remedy=remedy, needed=needed)
    millions = sum(parameter.numel() for parameter in weights.parameters()) / 1e6
    found = f"weights whole ({millions:.1f} million numbers), {len(starts)} starting places"
    return Check(name=title, state="ok", found=found, needed=needed)


def _film() -> bytes:
    """Two grey frames as an MP4."""
    import av
    import numpy as np

    from worldsim.runtime.video import movie

    try:
        return movie(np.full((2, 16, 16, 3), 128, dtype=np.uint8), fps=8, scale=1)
    except av.FFmpegError as error:
        raise ValueError(f"two frames could not be encoded: {error}") from error


def _encoder() -> Check:
    import av

    from worldsim.runtime.video import ENCODER

    size = len(_film())
    found = f"{ENCODER} in PyAV {av.__version__}: two frames became {size} bytes of MP4"
    return Check(name="video encoder", state="ok", found=found, needed=True)


def _decoder() -> Check:
    from io import BytesIO

    import av

    try:
        with av.open(BytesIO(_film()), "r") as file:
            frames = len([*file.decode(file.streams.video[0])])
    except av.FFmpegError as error:
        raise ValueError(f"two frames could not be decoded: {error}") from error
    if frames != 2:
        raise ValueError(f"{frames} of 2 frames came back")
    return Check(name="video decoder", state="ok", found="H.264: both frames came back")


def _jpeg() -> Check:
    import cv2
    import numpy as np

    try:
        _, data = cv2.imencode(".jpg", np.full((16, 16, 3), 128, dtype=np.uint8))
        whole = cv2.imdecode(data, cv2.IMREAD_COLOR) is not None
    except cv2.error as error:
        raise ValueError(f"a picture could not be encoded: {error}") from error
    if not whole:
        raise ValueError("a picture could not be read back")
    found = f"OpenCV {cv2.__version__}: encoded and read back"
    return Check(name="JPEG", state="ok", found=found, needed=True)


def _package(name: str) -> Check:
    try:
        return Check(name=name, state="ok", found=version(name))
    except PackageNotFoundError:
        found = "not installed; the bundled world goes without"
        return Check(name=name, state="missing", found=found, remedy=SOURCES[name])


def _browser() -> Check:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and sys.platform == "darwin":
        places = (Path("/Applications") / f"{name}.app" for name in APPLICATIONS)
        found = next((str(path) for path in places if path.exists()), None)
    if found is None:
        remedy = f"play from a browser on another machine, or install one; {SECURE}"
        return Check(name="browser", state="note", found="none found here", remedy=remedy)
    return Check(name="browser", state="ok", found=f"{found}; {SECURE}")


def _port() -> Check:
    try:
        socket.create_server(("127.0.0.1", PORT)).close()
    except OSError as error:
        remedy = "name another with worldsim serve --port, or 0 for any that is free"
        return Check(name=f"port {PORT}", state="note", found=error.strerror or _line(error), remedy=remedy)
    return Check(name=f"port {PORT}", state="ok", found="free")


def _folder(name: str, path: Path) -> Check:
    """Whether a file can be written there, and how much room there is; a folder to come is judged by the one above."""
    there = path if path.exists() else path.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"worldsim")
        free = shutil.disk_usage(there).free
    except OSError as error:
        found = f"{there.resolve()}: {error.strerror}"
        remedy = "go to a folder that can be written, or name one: -o for videos, --folder for worlds"
        return Check(name=name, state="missing", found=found, remedy=remedy, needed=True)
    found = f"{path.resolve()}: can be written, {free / 1e9:.1f} GB free"
    if free < ROOM_BYTES:
        return Check(name=name, state="note", found=found, remedy="free some space before long recordings", needed=True)
    return Check(name=name, state="ok", found=found, needed=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
