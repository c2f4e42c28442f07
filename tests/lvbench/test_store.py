"""What was measured is kept whole, under all that it depends on."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from lvbench.store import Store, hash_of, hash_of_code


def test_arrays_come_back_bit_for_bit(tmp_path):
    store = Store(tmp_path / "cache")
    given = {"a": np.array([1.5, math.nan], np.float32), "facts": np.array('{"fps": 16.0}')}
    store.put(given, "video", "extractor")
    found = store.get("video", "extractor")
    assert found is not None
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in given.items()
    }


def test_another_key_finds_nothing(tmp_path):
    store = Store(tmp_path)
    store.put({"a": np.zeros(1)}, "video", "extractor")
    assert store.get("video", "other") is None
    assert store.get("vide", "oextractor") is None


def test_what_was_put_under_other_words_is_nothing_whatever_its_file_is_called(tmp_path):
    store = Store(tmp_path)
    store.put({"a": np.zeros(1)}, "one video")
    store.put({"a": np.ones(1)}, "another")
    one, another = store._path(("one video",)), store._path(("another",))
    another.write_bytes(one.read_bytes())
    assert store.get("another") is None
    assert store.get("one video")["a"] == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_torn_file_counts_as_none(tmp_path, share):
    store = Store(tmp_path)
    store.put({"a": np.arange(1000.0)}, "key")
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert store.get("key") is None


def test_a_file_that_could_run_code_counts_as_none(tmp_path):
    store = Store(tmp_path)
    store.put({"a": np.zeros(1)}, "key")
    (file,) = tmp_path.iterdir()
    np.savez(file, a=np.array([object()], object))
    assert store.get("key") is None


def test_a_file_in_which_any_bit_is_another_counts_as_none(tmp_path):
    store = Store(tmp_path)
    store.put({"a": np.arange(3.0)}, "key")
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    for bit in range(8 * len(data)):
        torn = bytearray(data)
        torn[bit // 8] ^= 1 << bit % 8
        file.write_bytes(torn)
        assert store.get("key") is None
    file.write_bytes(data)
    assert store.get("key") is not None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", hashlib.sha256(b"x").digest()])
def test_what_is_something_else_counts_as_none_and_is_replaced(tmp_path, content):
    store = Store(tmp_path)
    store._path(("key",)).write_bytes(content)
    assert store.get("key") is None
    store.put({"a": np.arange(3.0)}, "key")
    assert store.get("key")["a"].tolist() == [0, 1, 2]


def test_nothing_is_left_beside_what_is_kept(tmp_path):
    Store(tmp_path).put({"a": np.zeros(1)}, "key")
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_what_cannot_be_kept_says_so_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="File name too long"):
        LongNames(tmp_path).put({"a": np.zeros(1)}, "key")
    (tmp_path / "0.npz").mkdir()
    with pytest.raises(IsADirectoryError):
        Taken(tmp_path).put({"a": np.zeros(1)}, "key")
    assert [path.name for path in tmp_path.iterdir()] == ["0.npz"]


class LongNames(Store):
    def _path(self, key):
        return self._folder / ("x" * 300)


class Taken(Store):
    def _path(self, key):
        return self._folder / "0.npz"


def test_a_file_that_takes_too_long_to_read_has_no_hash(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(300 * 10**9)
    with pytest.raises(TimeoutError, match=r"0\.1 s were not enough to read its bytes"):
        hash_of(tmp_path / "sparse", 0.1)


def test_the_hash_of_a_file_is_of_its_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert hash_of(path) == hashlib.sha256(b"abc").hexdigest()


def test_the_hash_of_code_tells_modules_apart():
    assert hash_of_code(math_like := np.linalg) != hash_of_code(np.random)
    assert hash_of_code(math_like) == hash_of_code(np.linalg)
