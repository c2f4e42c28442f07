"""Recorded play: what is written depends on seed and number alone, and what is drawn lies inside one episode."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from time import monotonic, sleep
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from worldsim.controls import Action, Controls, Keys
from worldsim.errors import BrokenRun, ConfigError, DataError
from worldsim.training import data
from worldsim.training.data import TRAINING_SEEDS, Episodes, Recording, Series, play, record

CPU = torch.device("cpu")


class Counting:
    """A world of days of 5 frames that shows its seed (two bytes), the number of the frame and if the key is held."""

    controls = Controls(
        actions=(Action(name="go", keys=("KeyW",)), Action(name="turn", keys=("KeyA",))), exclusive=True, day=5
    )
    fps = 4
    size = (1, 2)

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._seed, self._frame, self._held = seed, 0, 0
        return self._show()

    def close(self) -> None: ...

    def step(self, keys: Keys) -> NDArray[np.uint8]:
        self._frame += 1
        self._held = len(keys)
        return self._show()

    @property
    def hour(self) -> int:
        return self._frame % 5

    @property
    def event(self) -> str:
        return "third" if self._frame == 3 else "other"

    @property
    def over(self) -> bool:
        return self._frame == 4 + self._seed % 5

    def _show(self) -> NDArray[np.uint8]:
        low, high = self._seed % 256, self._seed // 2**24
        shown = [[[low, self._seed // 256 % 256, high], [self._frame, self._held, 0]]]
        return np.asfortranarray(np.array(shown, dtype=np.uint8))  # some engines turn their pictures without copying


class Player:
    """Presses by chance, from its seed."""

    def __init__(self, simulator: Counting, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def choose(self) -> Keys:
        return frozenset(["KeyW"]) if self._rng.random() < 0.5 else frozenset()


RECORDING = Recording(world="counting", simulator=Counting, explorer=Player)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SHARD_FRAMES", 30)


@contextmanager
def limited_files() -> Iterator[None]:
    """No file grows beyond 100 bytes, as on a disk that is full."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("small_shards")
def test_a_shard_depends_on_its_seed_and_number_alone(tmp_path: Path) -> None:
    record(RECORDING, tmp_path / "one", Series(seed=3), frames=90)
    record(RECORDING, tmp_path / "two", Series(seed=3), frames=45)
    record(RECORDING, tmp_path / "two", Series(seed=3), frames=90)
    record(RECORDING, tmp_path / "other", Series(seed=4), frames=90)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert [*sorted(one)] == [f"train-03-0000{n}.safetensors" for n in range(3)]
    assert one == two
    assert len({*one.values(), *other.values()}) == 6


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are there at once, and know this one's small shards."""
    monkeypatch.setattr(data, "get_context", lambda _: get_context("fork"))


@pytest.mark.usefixtures("small_shards", "forked")
def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    told = [record(RECORDING, tmp_path / str(n), Series(), frames=90, workers=n) for n in (1, 2, 5)]
    assert told[0] == told[1] == told[2]
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "5")
    assert active_children() == []


def test_what_a_recording_hands_to_other_processes_can_be_handed_to_them() -> None:
    write = partial(data._write_shard, RECORDING, Path("folder"), Series(seed=2))
    assert pickle.loads(pickle.dumps(write)).args == write.args


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("wrong", [DataError("a shard is torn"), OSError("the disk is full")])
def test_what_a_worker_cannot_do_is_told_and_ends_them_all(wrong: Exception) -> None:
    def write(shard: int) -> int:
        if shard == 2:
            raise wrong
        return shard

    made = data._spread(write, 50, 2)
    with pytest.raises(type(wrong), match=str(wrong)):
        list(made)
    assert active_children() == []


@pytest.mark.usefixtures("forked")
def test_a_worker_that_is_killed_is_told_in_words(tmp_path: Path) -> None:
    def write(shard: int) -> int:
        if shard == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return shard

    with pytest.raises(BrokenRun, match=r"was killed.*shards that are whole stay.*fewer workers"):
        list(data._spread(write, 50, 2))
    assert active_children() == []


@pytest.mark.usefixtures("forked")
def test_when_recording_is_interrupted_every_worker_closes_its_simulator_and_ends(tmp_path: Path) -> None:
    """Two are in the midst of a shard, and there are fifty more."""

    def write(shard: int) -> int:
        (tmp_path / f"begun-{shard}").touch()
        try:
            sleep(100)
        finally:
            (tmp_path / f"closed-{shard}").touch()
        return shard

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(data._spread(write, 52, 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
    assert monotonic() - began < 20
    assert active_children() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun-0", "begun-1", "closed-0", "closed-1"]


def test_processes_started_while_ctrl_c_is_unheard_never_hear_it() -> None:
    command = [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"]
    with data._unheard():
        assert "SIGINT" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


class Closing(Counting):
    """One that tells when it is closed."""

    closed: ClassVar[list[int]] = []

    def close(self) -> None:
        self.closed.append(self._frame)


def test_a_simulator_is_closed_at_the_end_of_its_episode_and_when_nobody_goes_on() -> None:
    recording = Recording(world="closing", simulator=Closing, explorer=Player)
    Closing.closed.clear()
    assert len([*play(recording, 3, most=99)]) == 8
    assert len([*play(recording, 3, most=5)]) == 5
    playing = play(recording, 3, most=99)
    next(playing)
    assert Closing.closed == [7, 4]
    playing.close()
    assert Closing.closed == [7, 4, 0]


@pytest.mark.usefixtures("small_shards")
def test_what_a_killed_recording_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "train-00-00000.safetensors.7.part").write_bytes(b"half")
    record(RECORDING, tmp_path, Series(), frames=30)
    assert [*contents(tmp_path)] == ["train-00-00000.safetensors"]


def test_a_folder_that_cannot_be_recorded_into_is_told_before_anything_is_played(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"file.* is no folder that can be written to .*; name another one"):
            record(replace(RECORDING, simulator=lambda: 1 / 0), folder, Series(), frames=30)


@pytest.mark.timeout(120)  # seconds are enough, but not while other work has the cores
def test_the_workers_of_a_process_that_was_killed_end_too(tmp_path):
    """One waits for work, the other is in the midst of it."""
    (tmp_path / "working.py").write_text(
        "import time\ndef tell(shard):\n    time.sleep(100 * (shard == 3))\n    return 1\n"
    )
    code = "import time, working; from worldsim.training.data import _spread; made = _spread(working.tell, 4, 2); "
    code += "[print(next(made), flush=True) for _ in range(3)]; time.sleep(100)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(3)] != [""] * 3
        running.kill()
        try:
            running.communicate(timeout=20)  # it has an end once nobody holds the pipe any more
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.usefixtures("small_shards")
def test_shards_that_are_there_are_kept_and_counted(tmp_path: Path) -> None:
    counts: list[int] = []
    record(RECORDING, tmp_path, Series(), frames=50)
    (first, second) = sorted(tmp_path.iterdir())
    second.unlink()
    written = first.stat().st_mtime_ns
    told = record(RECORDING, tmp_path, Series(), frames=50, on_frames=counts.append)
    assert first.stat().st_mtime_ns == written
    assert second.exists()
    assert told == {"shards": 2, "frames": sum(counts)}
    assert sum(counts) == len(Episodes(tmp_path, world="counting", held_out=False, device=CPU).frames) >= 60


def seeds(folder: Path, *, held_out: bool) -> list[int]:
    """The seed of every episode in a folder, as its frames show it (two bytes and the highest)."""
    episodes = Episodes(folder, world="counting", held_out=held_out, device=CPU)
    frames = episodes.frames[[start for start, _ in episodes.episodes]].long()
    return (frames[:, 0, 0, 0] + 256 * frames[:, 0, 0, 1] + 2**24 * frames[:, 0, 0, 2]).tolist()


@pytest.mark.usefixtures("small_shards")
def test_held_out_seeds_are_apart_from_those_of_training_and_no_seed_is_played_twice(tmp_path: Path) -> None:
    for seed in (0, 63):
        for held_out in (False, True):
            record(RECORDING, tmp_path, Series(seed=seed, held_out=held_out), frames=60)
    train, held = (seeds(tmp_path, held_out=held_out) for held_out in (False, True))
    assert min(train) >= TRAINING_SEEDS > max(held)
    assert len(train) == len(set(train))
    assert len(held) == len(set(held))


@pytest.mark.usefixtures("small_shards")
def test_each_frame_stands_beside_the_controls_that_led_to_it(tmp_path: Path) -> None:
    record(RECORDING, tmp_path, Series(), frames=100)
    episodes = Episodes(tmp_path, world="counting", held_out=False, device=CPU)
    assert torch.equal(episodes.frames[:, 0, 1, 1], episodes.controls[:, 0])
    assert 0 < episodes.controls[:, 0].float().mean() < 1
    assert not episodes.controls[:, 1].any()
    for start, end in episodes.episodes:
        assert episodes.frames[start:end, 0, 1, 0].tolist() == list(range(end - start))
        hours = [Counting.controls.hour(held) for held in episodes.controls[start:end].tolist()]
        assert hours == [frame % 5 for frame in range(end - start)]
    whole = [end - start for start, end in episodes.episodes]
    assert sum(whole) == len(episodes.frames)


def test_play_ends_with_the_episode_or_at_the_most() -> None:
    frames = [frame[0, 1, 0] for frame, *_ in play(RECORDING, 3, most=99)]
    assert frames == list(range(8))  # over at frame 4 + 3 % 5
    assert len([*play(RECORDING, 3, most=5)]) == 5
    first, then = [control for _, control, _ in play(RECORDING, 3, most=2)]
    assert first == (0.0, 0.0, 1.0, 0.0, 1.0)
    assert len(then) == 5


@pytest.mark.usefixtures("small_shards")
def test_windows_lie_inside_one_episode_and_every_one_is_equally_likely(tmp_path: Path) -> None:
    """Chi-square over all windows, at 4 standard deviations."""
    record(RECORDING, tmp_path, Series(), frames=60)
    episodes = Episodes(tmp_path, world="counting", held_out=False, device=CPU)
    possible = [at for start, end in episodes.episodes for at in range(start, end - 5 + 1)]
    assert any(end - start < 5 for start, end in episodes.episodes)
    at = episodes.draw(np.random.default_rng(1), windows=20_000, frames=5)
    frames, controls = episodes.frames[at], episodes.controls[at]
    assert frames.shape == (20_000, 5, 1, 2, 3)
    assert frames.dtype == torch.uint8
    assert controls.shape == (20_000, 5, 5)
    assert controls.dtype == torch.float32
    steps = frames[:, :, 0, 1, 0].long()
    assert torch.equal(steps - steps[:, :1], torch.arange(5).expand(20_000, 5))
    assert torch.equal(frames[:, :, 0, 0], frames[:, :1, 0, 0].expand(-1, 5, -1))
    assert torch.equal(frames[:, :, 0, 1, 1].float(), controls[:, :, 0])
    drawn = Counter((*f[0, 0, 0, :2].tolist(), int(f[0, 0, 1, 0])) for f in frames)
    assert len(drawn) == len(possible)
    expected = 20_000 / len(possible)
    chi = sum((count - expected) ** 2 / expected for count in drawn.values())
    freedom = len(possible) - 1
    assert abs(chi - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(("seldom", "fewest"), [(0.5, 1), (1.0, 1), (1.0, 14)])
def test_drawn_for_what_seldom_happens_a_window_counts_the_less_the_more_often_its_event_did(
    tmp_path, monkeypatch, seldom, fewest
):
    monkeypatch.setattr(data, "FEWEST", fewest)
    record(RECORDING, tmp_path, Series(), frames=60)
    episodes = Episodes(tmp_path, world="counting", held_out=False, device=CPU)
    steps = episodes.frames[:, 0, 1, 0]
    ends = torch.tensor([at + 2 for start, end in episodes.episodes for at in range(start, end - 2)])
    thirds = int((steps[ends] == 3).sum())
    at = episodes.draw(np.random.default_rng(1), windows=20_000, frames=3, seldom=seldom)
    frames, controls = episodes.frames[at], episodes.controls[at]
    assert frames.shape[:2] == controls.shape[:2] == (20_000, 3)
    share = float((frames[:, -1, 0, 1, 0] == 3).double().mean())
    counts = [thirds, len(ends) - thirds]
    third, other = (count * max(count, fewest) ** -seldom for count in counts)
    expected = third / (third + other)
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 20_000) ** 0.5)
    assert share > thirds / len(ends) + 0.02
    assert len({frame.numpy().tobytes() for frame in frames}) == len(ends)


@pytest.mark.usefixtures("small_shards")
def test_a_shard_without_events_is_to_be_recorded_again(tmp_path):
    record(RECORDING, tmp_path, Series(), frames=30)
    path = tmp_path / "train-00-00000.safetensors"
    with safe_open(path, framework="np") as file:
        kept = {name: file.get_tensor(name) for name in ("frames", "controls", "starts")}
        header = file.metadata()
    save_file(kept, path, metadata=header)
    with pytest.raises(DataError, match="earlier version, without events; delete it and record again"):
        Episodes(tmp_path, world="counting", held_out=False, device=CPU)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": np.zeros(30, np.uint8)},
        {"frames": np.zeros((30, 1, 2, 3), np.float32)},
        {"controls": np.zeros((29, 5), np.float32)},
        {"controls": np.zeros((30, 5), np.int32)},
        {"frames": np.zeros((0, 1, 2, 3), np.uint8), "controls": np.zeros((0, 5), np.float32)}
        | {"events": np.zeros(0, np.int64), "starts": np.zeros(0, np.int64)},
        {"events": np.zeros(31, np.int64)},
        {"starts": np.zeros(0, np.int64)},
        {"starts": np.array([4, 9])},
        {"starts": np.array([0, 9, 9])},
        {"starts": np.array([0, 1000])},
    ],
)
@pytest.mark.usefixtures("small_shards")
def test_a_shard_whose_tensors_do_not_belong_together_is_refused(wrong, tmp_path):
    record(RECORDING, tmp_path, Series(), frames=30)
    path = tmp_path / "train-00-00000.safetensors"
    with safe_open(path, framework="np") as file:
        kept, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(kept | wrong, path, metadata=header)
    with pytest.raises(DataError, match="which is no recorded play; delete it and record again"):
        Episodes(tmp_path, world="counting", held_out=False, device=CPU)


@pytest.mark.usefixtures("small_shards")
def test_shards_of_frames_of_two_sizes_are_refused(tmp_path):
    record(RECORDING, tmp_path, Series(), frames=60)
    path = tmp_path / "train-00-00001.safetensors"
    with safe_open(path, framework="np") as file:
        kept, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(kept | {"frames": np.zeros((len(kept["frames"]), 7, 5, 3), np.uint8)}, path, metadata=header)
    says = (
        r"00001.* holds frames of 7 x 5 x 3 with 5 controls, train-00-00000.safetensors has 1 x 2 x 3 with 5 controls"
    )
    with pytest.raises(DataError, match=says):
        Episodes(tmp_path, world="counting", held_out=False, device=CPU)


@pytest.mark.usefixtures("small_shards")
def test_shards_must_hold_what_the_world_needs(tmp_path):
    record(RECORDING, tmp_path, Series(), frames=60)
    for frame in ((1, 2, 3, 4), (2, 2, 3, 5)):
        says = r"00000.* holds frames of 1 x 2 x 3 with 5 controls, the world needs {} x {} x {} with {} controls"
        with pytest.raises(DataError, match=says.format(*frame)):
            Episodes(tmp_path, world="counting", held_out=False, device=CPU, frame=frame)
    Episodes(tmp_path, world="counting", held_out=False, device=CPU, frame=(1, 2, 3, 5))


@pytest.mark.usefixtures("small_shards")
def test_a_shard_whose_controls_are_no_numbers_is_refused(tmp_path):
    record(RECORDING, tmp_path, Series(), frames=30)
    path = tmp_path / "train-00-00000.safetensors"
    with safe_open(path, framework="np") as file:
        kept, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    kept["controls"][7, 1] = np.nan
    save_file(kept, path, metadata=header)
    with pytest.raises(DataError, match=r"00000.* holds controls that are no finite numbers; delete it and record"):
        Episodes(tmp_path, world="counting", held_out=False, device=CPU)


@pytest.mark.usefixtures("small_shards")
def test_a_shard_that_does_not_fit_the_disk_is_named_and_leaves_nothing(tmp_path):
    with (
        limited_files(),
        pytest.raises(OSError, match=r"00.safetensors cannot be written .*too large.*free"),
    ):
        record(RECORDING, tmp_path, Series(), frames=30)
    assert contents(tmp_path) == {}


@pytest.mark.usefixtures("small_shards")
def test_windows_longer_than_every_episode_are_refused(tmp_path: Path) -> None:
    record(RECORDING, tmp_path, Series(), frames=30)
    episodes = Episodes(tmp_path, world="counting", held_out=False, device=CPU)
    for ask in (
        lambda: episodes.draw(np.random.default_rng(0), windows=1, frames=10),
        lambda: episodes.check(10),
    ):
        with pytest.raises(DataError, match=r"no train episode in .* has 10 frames, as a window needs; record others"):
            ask()
    episodes.check(9)


@pytest.mark.usefixtures("small_shards")
def test_what_is_no_shard_of_this_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no held-out shard in .*worldsim record counting -o .* --held-out"):
        Episodes(tmp_path, world="counting", held_out=True, device=CPU)
    record(RECORDING, tmp_path, Series(), frames=30)
    path = tmp_path / "train-00-00000.safetensors"
    with pytest.raises(DataError, match="holds frames of 'counting', not of 'maze'"):
        Episodes(tmp_path, world="maze", held_out=False, device=CPU)
    whole = path.read_bytes()

    def torn() -> None:
        path.write_bytes(whole[:-1])

    def foreign() -> None:
        save_file({"frames": np.zeros(3)}, path)

    def weights() -> None:
        save_file({"frames": np.zeros(3)}, path, metadata={"worldsim": '{"dim": 16}'})

    for write, says in ((torn, "not a readable shard"), (foreign, "not written by"), (weights, "not written by")):
        write()
        with pytest.raises(DataError, match=says):
            Episodes(tmp_path, world="counting", held_out=False, device=CPU)
        with pytest.raises(DataError, match=says):
            record(RECORDING, tmp_path, Series(), frames=30)
    path.write_bytes(whole)
    for header in ("[]", "3", '{"world": "counting", "shard": 0}', '{"world": "counting", "shard": 0, "frames": "x"}'):
        save_file({"frames": np.zeros(3)}, path, metadata={"worldsim": header})
        with pytest.raises(DataError, match="not written by"):
            record(RECORDING, tmp_path, Series(), frames=30)
    for header in ("[" * 100_000, "{"):
        save_file({"frames": np.zeros(3)}, path, metadata={"worldsim": header})
        with pytest.raises(DataError, match="not a readable shard"):
            record(RECORDING, tmp_path, Series(), frames=30)
    path.write_bytes(whole)
    with pytest.raises(DataError, match="its own folder"):
        record(Recording(world="maze", simulator=Counting, explorer=Player), tmp_path, Series(), frames=30)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"frames": 0}, "at least 1 frame"), ({"workers": 0}, "at least 1 worker"), ({"frames": 10**8}, "several seeds")],
)
def test_a_recording_that_cannot_be_made_is_refused(wrong: dict[str, int], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        record(RECORDING, tmp_path / "new", Series(), **({"frames": 1} | wrong))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seed", [-1, 64])
def test_a_seed_that_would_share_episodes_with_another_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"0 \.\. 63"):
        Series(seed=seed)


def test_more_workers_than_a_machine_can_use_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with pytest.raises(ConfigError, match=r"has 3 cores, and more than 12 workers .* got 13; ask for 3"):
        record(RECORDING, tmp_path, Series(), frames=90, workers=13)
    assert [*tmp_path.iterdir()] == []


def test_a_process_that_cannot_be_started_ends_the_recording_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(get_context("spawn"), "Pipe", full)
    with pytest.raises(BrokenRun, match=r"only 0 of 1 processes .*Too many open files.* with fewer workers"):
        record(RECORDING, tmp_path, Series(), frames=90, workers=2)


@pytest.mark.parametrize("name", ["held-out-00-00000", "train-01-00000"])
def test_a_shard_under_the_name_of_others_is_refused(tmp_path: Path, name: str) -> None:
    record(RECORDING, tmp_path, Series(), frames=9)
    (tmp_path / "train-00-00000.safetensors").rename(tmp_path / f"{name}.safetensors")
    with pytest.raises(DataError, match="holds train episodes of seed 0, and its name says otherwise"):
        Episodes(tmp_path, world="counting", held_out=name.startswith("held"), device=CPU)
