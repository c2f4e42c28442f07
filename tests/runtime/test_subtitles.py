"""Text goes into a fragmented MP4 without changing a byte of its pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from worldsim.runtime.subtitles import held_text, with_text, with_text_track
from worldsim.runtime.video import VideoWriter

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf"}


def boxes(data: bytes, inside: str = "") -> Iterator[tuple[str, bytes]]:
    """Path and content of each box, those that hold others too."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at, "a box reaches over the end of what holds it"
        content, path = data[at + 8 : at + size], f"{inside}/{kind.decode()}"
        yield path, content
        if kind in CONTAINERS:
            yield from boxes(content, path)
        at += size


@pytest.fixture
def film(tmp_path: Path) -> list[tuple[str, bytes]]:
    """The boxes of a film of 19 frames, eight a second, under keys that change once."""
    with VideoWriter(tmp_path / "a.mp4", size=(8, 12), fps=8, scale=2) as writer:
        writer.write(np.zeros((11, 8, 12, 3), np.uint8), {"KeyA"})
        writer.write(np.zeros((8, 8, 12, 3), np.uint8))
    return [*boxes((tmp_path / "a.mp4").read_bytes())]


def all_of(film: list[tuple[str, bytes]], path: str) -> list[bytes]:
    return [content for at, content in film if at == path]


def test_keys_are_written_in_one_order():
    assert held_text({"Space", "KeyD"}) == held_text(["KeyD", "Space"]) == "KeyD + Space"
    assert held_text(()) == ""


def test_the_head_announces_both_tracks_and_the_number_of_the_next(film):
    assert [struct.unpack_from(">I", head, 12)[0] for head in all_of(film, "/moov/trak/tkhd")] == [1, 2]
    assert [struct.unpack_from(">I", trex, 4)[0] for trex in all_of(film, "/moov/mvex/trex")] == [1, 2]
    assert struct.unpack(">I", all_of(film, "/moov/mvhd")[0][-4:]) == (3,)
    assert [head[8:12] for head in all_of(film, "/moov/trak/mdia/hdlr")] == [b"vide", b"sbtl"]


def test_fragments_are_numbered_and_every_one_of_pictures_follows_one_of_text(film):
    numbers = [struct.unpack_from(">I", head, 4)[0] for head in all_of(film, "/moof/mfhd")]
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert [struct.unpack_from(">I", head, 4)[0] for head in all_of(film, "/moof/traf/tfhd")] == [2, 1] * 3


def test_text_begins_where_its_fragment_does_and_lasts_as_long(film):
    begins = [struct.unpack_from(">Q", head, 4)[0] for head in all_of(film, "/moof/traf/tfdt")[::2]]
    tables = [struct.iter_unpack(">II", run[12:]) for run in all_of(film, "/moof/traf/trun")[::2]]
    assert begins == [0, 8, 16]
    assert [[*table] for table in tables] == [[(8, 6)], [(3, 6), (5, 2)], [(3, 2)]]


def test_text_is_found_where_its_fragment_says(tmp_path):
    fragment = b"".join((struct.pack(">I4s", 24, b"moof"), struct.pack(">I4s8x", 16, b"mfhd")))
    made = with_text(fragment, ["KeyA"] * 2 + [""], number=4, first=40)
    run = dict(boxes(made))["/moof/traf/trun"]
    offset = struct.unpack_from(">i", run, 8)[0]
    assert made[offset : offset + 8] == b"\x00\x04KeyA\x00\x00"
    assert made.endswith(struct.pack(">II", 0, 10)), "the fragment itself, with its new number"


def test_what_else_is_in_the_head_stays_as_it_is():
    film = b"".join(struct.pack(">I4s", 8 + len(inner), kind) + inner for kind, inner in [(b"ftyp", b"isom")])
    assert with_text_track(film, size=(8, 12), fps=8) == film
