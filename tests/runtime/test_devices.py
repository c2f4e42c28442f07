"""A device is the one that was named, or an error."""

from __future__ import annotations

import pytest
import torch

from worldsim.errors import ConfigError, UnknownName
from worldsim.runtime.devices import free_bytes, is_gpu, pick_device


@pytest.fixture
def gpus(monkeypatch):
    """Says how many GPUs torch sees from then on."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.mark.parametrize(("count", "kind"), [(0, "cpu"), (1, "cuda"), (3, "cuda")])
def test_auto_is_the_gpu_where_there_is_one(gpus, count, kind):
    gpus(count)
    assert pick_device() == pick_device("auto") == torch.device(kind)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_is_taken_by_name(gpus, name):
    gpus(2)
    assert pick_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:10", 2)])
def test_a_gpu_that_is_not_there_is_never_replaced(gpus, name, count):
    gpus(count)
    with pytest.raises(ConfigError, match=f"{name}' is not there: torch sees {count} GPUs?; use 'auto' or 'cpu'"):
        pick_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda0", "mps", "cuda:0\n"])
def test_a_device_that_nobody_knows_is_refused_with_those_that_are_known(gpus, name):
    gpus(2)
    with pytest.raises(UnknownName, match=r"there is no device .*; known: auto, cpu, cuda, cuda:0"):
        pick_device(name)


@pytest.mark.parametrize(("count", "known"), [(0, "auto, cpu"), (1, "auto, cpu, cuda, cuda:0")])
def test_no_gpu_is_offered_where_there_is_none(gpus, count, known):
    gpus(count)
    with pytest.raises(UnknownName, match=f"there is no device 'xyz'; known: {known}$"):
        pick_device("xyz")


@pytest.mark.parametrize("name", [None, 3, torch.device("cpu"), ["cpu"]])
def test_what_is_no_name_is_no_device(name):
    with pytest.raises(ConfigError, match="a device is chosen by a name such as 'auto' or 'cpu', got "):
        pick_device(name)


def test_a_gpu_of_a_number_without_end_is_not_there(gpus):
    gpus(1)
    with pytest.raises(ConfigError, match="is not there: torch sees 1 GPU; use"):
        pick_device("cuda:" + "1" * 5_000)


def test_a_gpu_is_known_by_its_device():
    assert is_gpu(torch.device("cuda", 1))
    assert not is_gpu(torch.device("cpu"))


def test_what_is_free_on_a_gpu_is_what_the_driver_has_and_what_torch_holds_ready(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 8)
    assert free_bytes(torch.device("cuda", 1)) == 70 + 20 - 8


@pytest.mark.parametrize(
    ("told", "free"),
    [
        ("MemTotal:  9 kB\nMemAvailable:   7 kB\nHugePages_Total:  3\nSwapFree:    2 kB\n", 9 * 1024),
        ("MemTotal:  9 kB\n", None),
        (None, None),
    ],
)
def test_what_is_free_on_a_cpu_is_what_the_system_can_give_up_if_it_tells(monkeypatch, tmp_path, told, free):
    monkeypatch.setattr("worldsim.runtime.devices.MEMINFO", tmp_path / "meminfo")
    if told is not None:
        (tmp_path / "meminfo").write_text(told)
    assert free_bytes(torch.device("cpu")) == free
