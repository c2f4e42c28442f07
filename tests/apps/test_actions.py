"""An actions file holds a state until its next line, and says which line it cannot read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Thread

import pytest

from lvbench.cli import main
from worldsim.controls import Action, Controls
from worldsim.errors import ActionsError
from worldsim_apps.actions import Actions, Pace, read_actions, read_prompts, unread

CONTROLS = Controls(
    exclusive=False,
    actions=(Action(name="forward", keys=("KeyW", "ArrowUp")), Action(name="left", keys=("KeyA", "ArrowLeft"))),
)
PACE = Pace(fps=8, frames=1)
PUBLISHED = Pace(fps=16, frames=12, lacking=3)
"""That of most published models: 9 frames, then always 12."""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "walk.jsonl"

    def read(content: str | bytes) -> Actions:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_actions(path, CONTROLS, PACE)

    return read


def test_a_state_holds_until_the_next_line_and_nothing_is_held_before_the_first(script):
    actions = script(
        '{"block": 2, "keys": ["KeyW", "ArrowLeft"]}\n\n   \n{"keys": [], "block": 5}\r\n{"block": 6, "keys": ["KeyA"]}'
    )
    held = [actions.keys_at(block) for block in range(9)]
    both = {"KeyW", "ArrowLeft"}
    assert held == [set(), set(), both, both, both, set(), {"KeyA"}, {"KeyA"}, {"KeyA"}]
    assert actions.keys_at(10**9) == {"KeyA"}


def test_a_line_at_block_0_holds_from_the_start(script):
    assert script('{"block": 0, "keys": ["KeyW"]}').keys_at(0) == {"KeyW"}


def test_a_file_without_lines_holds_nothing(script):
    assert script("\n").keys_at(3) == frozenset()


def test_a_byte_order_mark_is_no_mistake(script):
    assert script(b'\xef\xbb\xbf{"block": 0, "keys": ["KeyW"]}').keys_at(0) == {"KeyW"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("KeyW", r"not JSON \(.*\): KeyW; write \{"),
        ("[" * 100_000, r"not JSON .*\[\.\.\.; write \{"),
        ('{"block": ' + "9" * 5_000 + ', "keys": []}', "not JSON"),
        ("7", "a line has the field keys and either block or seconds.* got 7"),
        ('{"block": 1}', "a line has the field keys and either block or seconds"),
        ('{"keys": []}', "a line has the field keys and either block or seconds"),
        ('{"seconds": 1}', "a line has the field keys and either block or seconds"),
        ('{"block": 1, "seconds": 1, "keys": []}', r'.*either block or seconds, such as \{.*\} or "seconds": 2\.5'),
        ('{"block": 1, "keys": [], "over": 2}', "a line has the field keys .* in place of its block; got"),
        ('{"seconds": true, "keys": []}', "seconds is a number from 0 to 1,000,000,000, got .*true"),
        ('{"seconds": -0.1, "keys": []}', r"seconds is a number from 0 to 1,000,000,000, got .*-0\.1"),
        ('{"seconds": 1e999, "keys": []}', "seconds is a number from 0 to 1,000,000,000, got .*1e999"),
        ('{"seconds": NaN, "keys": []}', "seconds is a number from 0 to 1,000,000,000, got .*NaN"),
        ('{"seconds": ' + "9" * 4_000 + ', "keys": []}', "seconds is a number from 0 to 1,000,000,000"),
        ('{"seconds": "2", "keys": []}', 'seconds is a number from 0 to 1,000,000,000, got .*"2"'),
        ('{"seconds": 0, "keys": []}', r"block 0 \(the first from 0 s on\) comes after block 0; blocks ascend"),
        ('{"block": 1, "keys": [], "mouse": 2}', "a line has the field keys and either block or seconds"),
        ('{"block": 1.0, "keys": []}', r"block is a whole number from 0, got .*1\.0"),
        ('{"block": true, "keys": []}', "block is a whole number from 0, got .*true"),
        ('{"block": -1, "keys": []}', "block is a whole number from 0, got .*-1"),
        ('{"block": "1", "keys": []}', 'block is a whole number from 0, got .*"1"'),
        ('{"block": 1, "keys": "KeyW"}', 'keys is a list of names .* got .*: "KeyW"'),
        ('{"block": 1, "keys": [7]}', r"keys is a list of names .* got .*: \[7\]"),
        ('{"block": 1, "keys": null}', "keys is a list of names .* got .*null"),
        ('{"block": 1, "keys": ["keyw"]}', "there is no key 'keyw'; known: ArrowLeft, ArrowUp, KeyA, KeyW"),
        ('{"block": 0, "keys": []}', "block 0 comes after block 0; blocks ascend"),
    ],
    ids=lambda text: text[:40],
)
def test_a_line_that_cannot_be_read_is_named_with_what_would_fit(script, line, says):
    with pytest.raises(ActionsError, match=rf"walk\.jsonl, line 3: {says}") as refused:
        script('{"block": 0, "keys": []}\n\n' + line + '\n{"block": 9, "keys": []}')
    assert len(str(refused.value)) < 600
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ActionsError, match=r"cannot read the actions file .*none\.jsonl: No such file"):
        read_actions(tmp_path / "none.jsonl", CONTROLS, PACE)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(ActionsError, match="Is a directory"):
        read_actions(tmp_path, CONTROLS, PACE)


def test_bytes_that_are_not_text_are_refused(script):
    with pytest.raises(ActionsError, match=r"walk\.jsonl is not UTF-8 text \(byte 2\)"):
        script(b'{"\xff')


def test_a_prompt_is_told_from_its_block_on(tmp_path):
    path = tmp_path / "words.jsonl"
    path.write_text(
        '{"block": 0, "prompt": "a lake"}\n\n{"prompt": "ein \\"größerer\\"\\nSee", "block": 12}\r\n', "utf-8"
    )
    assert read_prompts(path, PACE) == {0: ("a lake", 1), 12: ('ein "größerer"\nSee', 1)}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a lake", r"not JSON \(.*\): a lake; write \{\"block\": 12, \"prompt\""),
        (
            '{"block": 1, "keys": []}',
            r"a line has the field prompt and either block or seconds, such as \{\"block\": 12, \"prompt\"",
        ),
        ('{"prompt": "x", "over": 2}', "a line has the field prompt and either block or seconds"),
        ('{"block": 1, "seconds": 2, "prompt": "x"}', 'a line has the field prompt .*, and may have "over" besides'),
        ('{"block": 1, "prompt": "x", "over": 0}', "a prompt takes effect over 1 block or more, .* got 0, in"),
        ('{"block": 1, "prompt": "x", "over": 2.0}', r"a prompt takes effect over 1 block or more, .* got 2\.0"),
        ('{"block": 1, "prompt": "x", "keys": []}', "a line has the field prompt and either block or seconds"),
        ('{"block": -1, "prompt": "x"}', "block is a whole number from 0"),
        ('{"block": 0, "prompt": "x"}', "block 0 comes after block 0; blocks ascend"),
        ('{"block": 1, "prompt": " "}', "prompt is a text such as"),
        ('{"block": 1, "prompt": 7}', "prompt is a text such as .* got .*: 7"),
        ('{"block": 1, "prompt": "\\ud800"}', "prompt is a text such as"),
    ],
    ids=lambda text: text[:40],
)
def test_a_prompt_that_cannot_be_read_is_named_with_its_line(tmp_path, line, says):
    path = tmp_path / "words.jsonl"
    path.write_text(f'{{"block": 0, "prompt": "a lake"}}\n\n{line}\n')
    with pytest.raises(ActionsError, match=rf"words\.jsonl, line 3: {says}") as refused:
        read_prompts(path, PACE)
    assert len(str(refused.value)) < 600


def test_a_line_is_of_the_first_block_that_begins_at_its_time_or_after_it(tmp_path, script):
    told = tmp_path / "told.jsonl"
    times = (0, 0.5625, 0.5626, 1.3126, 9)
    told.write_text("".join(json.dumps({"seconds": time, "prompt": f"{time}"}) + "\n" for time in times))
    # Blocks begin after 0, 9, 21, 33, ... frames, of which 16 are a second.
    assert [*read_prompts(told, PUBLISHED)] == [0, 1, 2, 3, 13]
    actions = script('{"seconds": 0.5, "keys": ["KeyW"]}\n{"block": 6, "keys": []}\n{"seconds": 1, "keys": ["KeyA"]}')
    assert actions.blocks == (4, 6, 8)


def test_a_time_is_the_decimals_that_were_written():
    assert 0.28 * 25 > 7
    assert Pace(fps=25, frames=1).block_at(0.28) == 7


def test_so_many_blocks_have_begun_before_so_many_frames_are_made():
    assert [PUBLISHED.blocks(frames) for frames in (0, 1, 9, 10, 21, 84)] == [0, 1, 1, 2, 2, 8]


def test_a_prompt_takes_effect_over_as_many_blocks_as_its_line_says(tmp_path):
    told = tmp_path / "told.jsonl"
    told.write_text('{"block": 0, "prompt": "a", "over": 1}\n{"seconds": 2, "prompt": "b", "over": 3}\n')
    assert read_prompts(told, PUBLISHED) == {0: ("a", 1), 3: ("b", 3)}
    told.write_text('{"seconds": 0, "prompt": "a", "over": 2}\n')
    with pytest.raises(ActionsError, match=r"told\.jsonl, line 1: before block 0 nothing is told .*; leave over out"):
        read_prompts(told, PUBLISHED)


def test_a_prompt_of_too_many_characters_is_cut_and_that_is_said(tmp_path, capsys):
    path = tmp_path / "words.jsonl"
    path.write_text(
        json.dumps({"block": 0, "prompt": "雨" * 4_000}) + "\n\n" + json.dumps({"block": 1, "prompt": "x" * 9_001})
    )
    assert read_prompts(path, PACE) == {0: ("雨" * 4_000, 1), 1: ("x" * 4_000, 1)}
    assert capsys.readouterr().err == (
        f"worldsim: {path}, line 3: the last 5,001 of the 9,001 characters of its prompt are left out, being too many\n"
    )


def test_a_prompts_file_that_is_none_is_called_one(tmp_path):
    with pytest.raises(ActionsError, match=r"cannot read the prompts file .*none\.jsonl: No such file"):
        read_prompts(tmp_path / "none.jsonl", PACE)
    (tmp_path / "words.jsonl").write_bytes(b'{"\xff')
    with pytest.raises(ActionsError, match=r'is not UTF-8 text \(byte 2\); write lines such as .*"prompt"'):
        read_prompts(tmp_path / "words.jsonl", PACE)


def test_what_annotations_of_lvbench_are_exported_to_is_read_block_for_block(tmp_path, capsys):
    texts = ["a lake", 'ein "größerer"\nSee', "a hill \u2028 \x85 by night", "x" * 4_000]
    segments = [{"start": 2.5 * at, "end": 2.5 * (at + 1), "caption": text} for at, text in enumerate(texts)]
    (tmp_path / "told.json").write_text(json.dumps({"video_id": "walk", "fps": 16, "segments": segments}))
    out = str(tmp_path / "out")
    assert main(["prompts", str(tmp_path / "told.json"), "--block-seconds", "0.75", "-o", out]) == 0
    assert capsys.readouterr().out == f"{out}: prompts of 1 video\n"
    assert read_prompts(tmp_path / "out" / "walk.jsonl", PACE) == {
        block: (text, 1) for block, text in zip((0, 3, 7, 10), texts, strict=True)
    }


@pytest.mark.parametrize(
    ("begins", "blocks", "says"),
    [
        ([], 5, "it has no line, so it changes nothing"),
        ([0, 4], 5, ""),
        ([0, 5, 9], 5, "the walk has blocks 0 to 4, so its line of block 5 and all after it change nothing"),
    ],
)
def test_what_of_a_script_changes_nothing_is_known(begins, blocks, says):
    assert unread(begins, blocks) == says


@pytest.mark.parametrize(
    "line",
    [
        '{"block": 1, "block": 2, "keys": ["KeyW"]}',
        '{"block": 1, "keys": ["KeyW"], "keys": []}',
        '{"block": 1, "keys": [], "keys": []}',
    ],
)
def test_a_field_that_is_there_twice_is_refused(script, line):
    with pytest.raises(ActionsError, match=r"walk\.jsonl, line 1: .*a field is there twice"):
        script(line.encode())


@pytest.mark.parametrize("read", [lambda path, pace: read_actions(path, CONTROLS, pace), read_prompts])
def test_a_device_is_no_script_and_a_pipe_is_one(tmp_path, read):
    with pytest.raises(ActionsError, match="file /dev/zero: it is a device or a pipe and no file"):
        read(Path("/dev/zero"), PACE)
    os.mkfifo(tmp_path / "pipe")
    writer = Thread(target=(tmp_path / "pipe").write_bytes, args=(b"\n",))
    writer.start()
    read(tmp_path / "pipe", PACE)
    writer.join()


def test_lines_end_as_they_do_on_any_system(script):
    assert script('{"block": 0, "keys": []}\r{"block": 1, "keys": []}\r\n{"block": 2, "keys": []}').blocks == (0, 1, 2)
