"""Annotations are read strictly and become prompts of blocks; a mistake is named by file, video and segment."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from lvbench.annotation import Annotation, Segment, prompts_of, read_annotations, write_prompts
from lvbench.errors import AnnotationError, ConfigError, ReportError

LAKE = {"video_id": "a", "fps": 24, "segments": [{"start": 0, "end": 2.5, "caption": "a lake"}]}
HILL = {"video_id": "b", "segments": [{"start": 1, "end": 2, "caption": "a hill"}]}


@pytest.fixture
def told(tmp_path):
    """The path of a file of annotations with this content."""
    path = tmp_path / "told.json"

    def write(content):
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def annotation(*segments: tuple[float, float], video_id: str = "a") -> Annotation:
    """Of a video whose segments are told by their number."""
    return Annotation(
        video_id=video_id,
        segments=tuple(Segment(start=start, end=end, caption=str(at)) for at, (start, end) in enumerate(segments)),
    )


@pytest.mark.parametrize(
    "content",
    [
        [LAKE, HILL],
        json.dumps([LAKE, HILL], indent=2),
        f"{json.dumps(LAKE)}\n\n{json.dumps(HILL)}\r\n",
        b"\xef\xbb\xbf" + json.dumps([LAKE, HILL]).encode(),
    ],
    ids=["list", "indented list", "lines", "byte order mark"],
)
def test_a_list_and_lines_are_read_in_their_order(told, content):
    found = read_annotations(told(content))
    assert [(one.video_id, one.fps) for one in found] == [("a", 24.0), ("b", None)]
    assert found[0].segments == (Segment(start=0, end=2.5, caption="a lake"),)


@pytest.mark.parametrize("content", [LAKE, json.dumps(LAKE, indent=1), json.dumps({**LAKE, "split": "eval"})])
def test_one_object_is_one_video(told, content):
    assert [one.video_id for one in read_annotations(told(content))] == ["a"]


def test_texts_without_times_are_shown_for_equally_long(told):
    content = '{"prompts": ["a", "b"]}\n{"prompts": ["c"]}\n{"video": "x", "captions": ["d", "e"], "fps": 16}\n'
    first, second, named = read_annotations(told(content), 10)
    assert [one.video_id for one in (first, second, named)] == ["0001", "0002", "x"]
    assert first.segments == (Segment(start=0, end=10, caption="a"), Segment(start=10, end=20, caption="b"))
    assert named.fps == 16


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"segments": []}, "'b': segments is a list of at least one"),
        ({"segments": {"start": 0}}, "'b': segments is a list of at least one"),
        ({"segments": [7]}, "'b': segment 1 is an object such as"),
        ({"start": -1}, r"'b': segment 2: start is a number from 0, got -1"),
        ({"start": "1"}, r"'b': segment 2: start is a number from 0, got \"1\""),
        ({"start": None}, r"'b': segment 2: start is a number from 0, got null"),
        ({"start": True}, r"'b': segment 2: start is a number from 0, got true"),
        ({"end": float("nan")}, r"'b': segment 2: end is a number from 0, got NaN"),
        ({"end": float("inf")}, r"'b': segment 2: end is a number from 0, got Infinity"),
        ({"start": 1.9}, r"'b': segment 2 begins at 1.9 s, before segment 1 ends, at 2; times ascend without overlap"),
        ({"end": 2.5}, r"'b': segment 2 ends at 2.5 s, not after it begins at 2.5"),
        ({"caption": " \n"}, "'b': segment 2 has no caption"),
        ({"caption": 7}, "'b': segment 2 has no caption"),
        ({"caption": "\ud800"}, "'b': segment 2 has no caption"),
        ({"caption": "x" * 4001}, "'b': segment 2 has a caption of 4,001 characters; it may have 4,000"),
        ({"fps": 0}, "'b': fps is above 0"),
        ({"fps": "24"}, "'b': fps is a number from 0"),
        ({"video_id": ""}, "it has no video_id"),
        ({"video_id": 7}, "number 2: it has no video_id"),
        ({"video_id": "a"}, "video 'a' is there twice"),
    ],
)
def test_what_cannot_be_is_named_by_file_video_and_segment(told, change, says):
    segment = {"start": 2.5, "end": 3, "caption": "a hill"}
    segment.update({name: value for name, value in change.items() if name in segment})
    video = {"video_id": "b", "segments": [{"start": 0, "end": 2, "caption": "a lake"}, segment]}
    video.update({name: value for name, value in change.items() if name not in segment})
    with pytest.raises(AnnotationError, match=rf"told\.json.*{says}") as refused:
        read_annotations(told([LAKE, video]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "tells of no video"),
        ("[]", "tells of no video"),
        ("hello", r"not JSON \(.*\); write"),
        ("{\n", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        (f"{json.dumps(LAKE)}\n{{]\n", "line 2: not JSON"),
        ("7", "number 1: a video is an object such as"),
        ({"video_id": "a"}, "'a': it has no segments, such as in .*, and no list of captions or prompts"),
        ({"video_id": "a", "captions": []}, "'a': it has no segments"),
        ({"videos": [LAKE]}, r'number 1: the videos are inside {"videos": \[...\]}; write that list alone'),
        ({"captions": ["a"]}, "number 1: it has no video_id"),
        (b'{"\xff', r"is not UTF-8 text \(byte 2\)"),
    ],
    ids=lambda content: str(content)[:20],
)
def test_what_is_no_annotation_is_refused(told, content, says):
    with pytest.raises(AnnotationError, match=says):
        read_annotations(told(content))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"cannot read the annotations .*none\.json: No such file"):
        read_annotations(tmp_path / "none.json")


def test_how_long_texts_hold_is_asked_where_it_is_missing_and_only_there(told):
    with pytest.raises(ConfigError, match="texts without times; --segment-seconds says"):
        read_annotations(told({"prompts": ["a"]}))
    with pytest.raises(ConfigError, match="times of its own; leave --segment-seconds out"):
        read_annotations(told(LAKE), 10)
    for length in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="above 0 s"):
            read_annotations(told({"prompts": ["a"]}), length)


@pytest.mark.parametrize(
    ("segments", "wanted"),
    [
        ([(0, 2), (2, 4)], {0: "0", 2: "1"}),
        ([(0, 2.4), (2.4, 4)], {0: "0", 2: "1"}),
        ([(0, 2.6), (2.6, 4)], {0: "0", 3: "1"}),
        ([(0, 2.5), (2.5, 4)], {0: "0", 3: "1"}),
        ([(0, 2.4), (2.4, 2.6), (2.6, 4)], {0: "0", 3: "2"}),
        ([(0, 2.1), (2.1, 2.9), (2.9, 4)], {0: "0", 2: "1", 3: "2"}),
        ([(5, 6), (8, 9)], {0: "0", 8: "1"}),
        ([(0, 0.4), (0.4, 4)], {0: "0", 1: "1"}),
        ([(0.2, 0.4)], {0: "0"}),
        ([(0, 60)], {0: "0"}),
    ],
)
def test_a_block_is_told_the_segment_that_covers_most_of_it_and_the_first_block_the_first(segments, wanted):
    assert prompts_of(annotation(*segments), 1) == wanted


@pytest.mark.parametrize("block_s", [0.125, 0.3, 0.75, 7])
def test_the_rule_is_that_of_every_block_looked_at_by_itself(block_s):
    cuts = [0.0, 0.4, 2.5, 3.1, 3.2, 5.9, 8.0, 8.1, 12.6]
    one = annotation(*pairwise(cuts))
    told, holds = {}, None
    for block in range(int(cuts[-1] / block_s) + 1):
        begins, ends = block * block_s, (block + 1) * block_s
        covered = [min(part.end, ends) - max(part.start, begins) for part in one.segments]
        at = covered.index(max(covered)) if block else 0
        if at != holds:
            told[block], holds = str(at), at
    assert prompts_of(one, block_s) == told


@pytest.mark.parametrize("block_s", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_a_block_has_a_length(block_s):
    with pytest.raises(ConfigError, match="a block is longer than 0 s, and a video has up to 1,000,000,000"):
        prompts_of(annotation((0, 2)), block_s)


def test_each_video_has_a_file_that_stays_in_its_folder(tmp_path):
    folder = tmp_path / "out"
    names = ["../up", "a/b", ".hidden", "n\nl", "größer", "con sol", "a\0"]
    assert write_prompts([annotation((0, 2), (2, 2.1), (2.1, 4), video_id=name) for name in names], folder, 1) == 7
    files = {path.name for path in folder.iterdir()}
    assert files == {
        *(
            "%2E.%2Fup.jsonl",
            "a%2Fb.jsonl",
            "%2Ehidden.jsonl",
            "n%0Al.jsonl",
            "gr%C3%B6%C3%9Fer.jsonl",
            "con sol.jsonl",
        ),
        "a%00.jsonl",
    }
    assert (folder / "a%2Fb.jsonl").read_text() == '{"block": 0, "prompt": "0"}\n{"block": 2, "prompt": "2"}\n'


def test_captions_of_any_language_stay_readable(tmp_path):
    one = Annotation(video_id="a", segments=(Segment(start=0, end=1, caption='ein "größerer"\nSee'),))
    write_prompts([one], tmp_path, 1)
    assert (tmp_path / "a.jsonl").read_text("utf-8") == '{"block": 0, "prompt": "ein \\"größerer\\"\\nSee"}\n'


def test_nothing_is_written_where_one_cannot_be(tmp_path):
    with pytest.raises(ConfigError, match=r"xxx'\.\.\. has too long a name"):
        write_prompts([annotation((0, 1)), annotation((0, 1), video_id="x" * 300)], tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ReportError, match=r"a\.jsonl cannot be written"):
        write_prompts([annotation((0, 1))], tmp_path, 1)
