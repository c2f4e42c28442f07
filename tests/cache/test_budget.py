"""A size is read as people write it, exactly, and only what is a size."""

from __future__ import annotations

import sys

import pytest
import torch

from worldsim.cache.budget import Budget, parse_budget, parse_bytes
from worldsim.errors import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("900B", 900),
        ("256MB", 256_000_000),
        (" 256 mb ", 256_000_000),
        ("1.5GB", 1_500_000_000),
        ("0.1GB", 100_000_000),
        ("512MiB", 512 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("3kB", 3_000),
        ("2TB", 2 * 10**12),
    ],
)
def test_a_size_is_a_number_and_its_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "256", "MB", "-1MB", "1e3MB", "1,5GB", "256 M", "256MBs", "9" * 40 + "B", "٣MB"])
def test_what_is_no_size_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a number and its unit, such as 256MB"):
        parse_bytes(text)


def test_a_budget_has_as_many_sizes_as_there_are_kinds_of_memory() -> None:
    assert parse_budget("256MB", CPU) == parse_budget(256_000_000, CPU) == Budget(device=256_000_000, host=0)
    assert parse_budget("1kB", GPU) == parse_budget(1_000, GPU) == Budget(device=1_000, host=sys.maxsize)
    assert parse_budget("1kB,2kB", GPU) == Budget(device=1_000, host=2_000)
    with pytest.raises(ConfigError, match="a budget of one size, not '1kB,2kB'"):
        parse_budget("1kB,2kB", CPU)
    with pytest.raises(ConfigError, match="one for host memory, got '1kB,2kB,3kB'"):
        parse_budget("1kB,2kB,3kB", GPU)


@pytest.mark.parametrize("given", [0, -5, "0MB", "0.1B"])
def test_a_budget_of_nothing_is_refused(given: str | int) -> None:
    with pytest.raises(ConfigError, match=r"1 byte or more on the device and .*; choose one such as 256MB"):
        parse_budget(given, CPU)
