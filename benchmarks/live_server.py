"""A server in a process of its own, to be measured from outside: `python -m benchmarks.live_server dot`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.request import urlopen

import torch
import typer

import worldsim
from benchmarks.record import ROOT
from worldsim.session.machine import Limits
from worldsim.testing.fakes import tiny_world
from worldsim_apps.gate import Door
from worldsim_apps.server import Settings, run


def main(
    world: Annotated[str, typer.Argument(help="A world to load, or dot for the toy of the tests.")],
    folder: Annotated[Path, typer.Option(help="Where worlds are kept.")],
    sessions: Annotated[int, typer.Option(help="How many at once.")] = 4,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 1,
    resume_s: Annotated[float, typer.Option(help="How long a session waits for a lost player.")] = 60.0,
) -> None:
    """Serve, and print the port."""
    torch.set_num_threads(threads)
    loaded = tiny_world(pages=512) if world == "dot" else worldsim.load(world)
    door = Door(port=0, connections=2_000, handshakes_per_s=1e6)
    limits = Limits(messages_per_s=1e5, burst=100_000)
    settings = Settings(door=door, folder=folder, sessions=sessions, limits=limits, resume_s=resume_s)
    asyncio.run(run(loaded, settings, lambda port: print(port, flush=True)))


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: where it is, and what it costs."""

    url: str
    pid: int
    folder: Path

    @property
    def resident_mb(self) -> float:
        """Memory of the process that is in use."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    @property
    def descriptors(self) -> int:
        """Files and sockets that it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def threads(self) -> int:
        """Its threads."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def gauge(self, name: str, label: str = "") -> float:
        """One of its figures, all labels added up that contain a text."""
        with urlopen(f"{self.url.replace('ws://', 'http://')}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.partition("{")[0].split(" ")[0] == name and label in line]
        return sum(float(line.split()[-1]) for line in found)


@contextmanager
def served(world: str, *, sessions: int = 4, threads: int = 1, resume_s: float = 60.0) -> Iterator[Served]:
    """A server for as long as the context lasts; it is stopped with SIGTERM and has to end by itself."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.live_server", world, "--folder", folder]
        command += ["--sessions", str(sessions), "--threads", str(threads), "--resume-s", str(resume_s)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Served(f"ws://127.0.0.1:{port}", process.pid, Path(folder))
        finally:
            process.terminate()
            code = process.wait(30)
            if process.stdout is not None:
                process.stdout.close()
        assert code == 0, f"the server ended with {code}"


if __name__ == "__main__":
    typer.run(main)
