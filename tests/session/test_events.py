"""What a client says: read as plain values, or refused with a reason where it does not fit."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worldsim.errors import ProtocolError
from worldsim.session.events import (
    MESSAGES,
    MOST_PROMPT,
    MOST_TEXT,
    NAME,
    SUBPROTOCOL,
    Ack,
    Act,
    Bye,
    Control,
    Hello,
    Message,
    Ping,
    Prompt,
    Start,
    Tell,
    read_message,
    type_of,
    write_message,
)

KINDS = {kind: name for name, kind in MESSAGES.items()}
MOST_NUMBER = 2**64 - 1
MOST_SEQ = 2**32 - 1
KEYS = "action: keys is a list of at most 32, each text of at most 64"


def refused(text: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        read_message(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"type":"hello"}',
            Hello(role="player", codecs=("jpeg",), token="", session="", resume="", epoch=0, blocks=0),
        ),
        ('{"type":"start"}', Start(seed=0, start=None, image="", prompt="", pace=1.0)),
        ('{"type":"action","seq":1}', Act(seq=1, keys=())),
        ('{"type":"prompt","text":"rain"}', Prompt(text="rain", over=1)),
        (
            '{"type":"control","op":"step"}',
            Control(op="step", blocks=1, mark=None, world="", seed=0, start=None, prompt=None),
        ),
        ('{"type":"tell"}', Tell(seen=False)),
        ('{"type":"ack","epoch":0,"blocks":1}', Ack(epoch=0, blocks=1)),
        ('{"type":"ping"}', Ping(t=0.0)),
        ('{"type":"bye"}', Bye()),
    ],
)
def test_what_a_client_leaves_out_has_the_value_that_the_protocol_says(text, message):
    assert read_message(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"type":"hello","role":"spectator","codecs":["h264","jpeg","raw"],"token":"t","session":"s","resume":"r",'
            '"epoch":3,"blocks":7}',
            Hello(
                role="spectator",
                codecs=("h264", "jpeg", "raw"),
                token="t",
                session="s",
                resume="r",
                epoch=3,
                blocks=7,
            ),
        ),
        (
            '{"type":"start","seed":18446744073709551615,"start":2,"image":"aGk=","prompt":"rain","pace":0.5}',
            Start(seed=MOST_NUMBER, start=2, image="aGk=", prompt="rain", pace=0.5),
        ),
        (
            '{"type":"action","seq":4294967295,"keys":["KeyA","Space"]}',
            Act(seq=MOST_SEQ, keys=("KeyA", "Space")),
        ),
        ('{"type":"prompt","text":"\\u96e8","over":1000000}', Prompt(text="\u96e8", over=10**6)),
        (
            '{"type":"control","op":"reset","blocks":1000000,"mark":4,"world":"w","seed":9,"start":1,"prompt":""}',
            Control(op="reset", blocks=10**6, mark=4, world="w", seed=9, start=1, prompt=""),
        ),
        ('{"type":"tell","seen":true}', Tell(seen=True)),
        ('{"type":"ack","epoch":2,"blocks":18446744073709551615}', Ack(epoch=2, blocks=MOST_NUMBER)),
        ('{"type":"ping","t":12.5}', Ping(t=12.5)),
    ],
)
def test_every_field_is_read(text, message):
    assert read_message(text) == message


@pytest.mark.parametrize("op", ["pause", "resume", "step", "mark", "rewind", "fork", "save", "load", "reset", "map"])
def test_every_verb_is_read(op):
    assert read_message(write_message("control", op=op)) == Control(op=op)


@pytest.mark.parametrize("pace", [0, 16, 1.0, 0.0, 15.75])
def test_a_whole_number_is_a_number_too(pace):
    start = read_message(json.dumps({"type": "start", "pace": pace}))
    assert start == Start(pace=float(pace))
    assert isinstance(start.pace, float)


@pytest.mark.parametrize("text", ['{"type":"start","start":null}', '{"type":"control","op":"rewind","mark":null}'])
def test_null_is_as_good_as_leaving_a_number_out(text):
    assert read_message(text) in (Start(), Control(op="rewind"))


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=MESSAGES)
def test_fields_that_nobody_knows_are_ignored(kind):
    known = {"seq": 1, "text": "", "op": "mark", "epoch": 0, "blocks": 0}
    wanted = {one.name: known[one.name] for one in fields(kind) if one.name in known}
    later = {"mouse": [1, {"x": None}], "Type": "bye", "__class__": "Bye", "self": 1, "": 0}
    assert read_message(json.dumps({"type": KINDS[kind], **wanted, **later})) == kind(**wanted)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hello",
        "{",
        '{"type":"bye"',
        '{"type":"bye"} {"type":"bye"}',
        "{'type':'bye'}",
        '\ufeff{"type":"bye"}',
        '{"type":"ping","t":NaN}',
        '{"type":"ping","t":Infinity}',
        '{"type":"ping","t":-Infinity}',
        '{"type":"ping","t":01}',
        '{"type":"ping","t":0x1}',
        '{"type":"ping","later":NaN}',
        '{"type":"start","seed":' + "9" * 4_500 + "}",
        '{"type":"start","seed":-' + "9" * 4_500 + "}",
        '{"type":"prompt","text":"\x00"}',
        '{"type":"prompt","text":"\\ud8"}',
        "[" * 60_000,
        "[" * 60_000 + "]" * 60_000,
        '{"type":"hello","codecs":' + "[" * 60_000 + "]" * 60_000 + "}",
        '{"a":' * 60_000 + "0" + "}" * 60_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_json_ends_the_connection(text):
    error = refused(text)
    assert (error.code, error.close) == ("not_json", 4400)
    assert str(error).startswith("a control message is a JSON object, got no JSON: ")
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "null",
        "true",
        '"hello"',
        "[]",
        '[{"type":"bye"}]',
        '["type","bye"]',
        "{}",
        '{"Type":"bye"}',
        '{"type":null}',
        '{"type":7}',
        '{"type":true}',
        '{"type":["bye"]}',
        '{"type":{"bye":1}}',
    ],
)
def test_what_is_no_object_with_a_type_ends_the_connection(text):
    error = refused(text)
    assert (error.code, error.close) == ("no_type", 4400)
    assert str(error) == 'a control message is a JSON object with a "type"'


@pytest.mark.parametrize("name", ["", "Hello", "hello ", "welcome", "act", "__init__", "\ud800", "x" * 60_000, "a\n"])
def test_a_type_that_nobody_knows_is_named_and_the_connection_stays(name):
    error = refused(json.dumps({"type": name}))
    assert (error.code, error.close) == ("unknown_type", None)
    assert str(error).startswith(f"no message is called {name[:40]!r}; known: hello, start, action, prompt, control,")
    assert "\n" not in str(error)
    str(error).encode()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"type": "hello", "role": "god"}, 'hello: role is one of player, spectator, got "god"'),
        ({"type": "hello", "role": None}, "hello: role is one of player, spectator, got null"),
        ({"type": "hello", "role": ["player"]}, 'hello: role is one of player, spectator, got ["player"]'),
        ({"type": "hello", "codecs": "jpeg"}, "hello: codecs is a list of at most 8, each text of at most 64, "),
        ({"type": "hello", "codecs": ["png", 1]}, "hello: codecs is a list"),
        ({"type": "hello", "codecs": [["jpeg"]]}, "hello: codecs is a list"),
        ({"type": "hello", "codecs": ["jpeg"] * 9}, "hello: codecs is a list of .* got 9 of them"),
        ({"type": "hello", "codecs": {"jpeg": 1}}, "hello: codecs is a list"),
        ({"type": "hello", "token": 1}, "hello: token is text of at most 256, got 1"),
        ({"type": "hello", "token": "x" * 257}, "hello: token is text of at most 256, "),
        ({"type": "hello", "session": "0" * 33}, "hello: session is text of at most 32, "),
        ({"type": "hello", "resume": "0" * 65}, "hello: resume is text of at most 64, "),
        ({"type": "hello", "epoch": -1}, "hello: epoch is a whole number from 0, got -1"),
        ({"type": "hello", "blocks": 1.0}, "hello: blocks is a whole number from 0, got 1.0"),
        ({"type": "start", "seed": -1}, "start: seed is a whole number from 0, got -1"),
        (
            {"type": "start", "seed": 2**64},
            "start: seed is a whole number from 0 of at most 18446744073709551615, got 18446744073709551616",
        ),
        (
            {"type": "start", "seed": 10**4_000},
            "start: seed is a whole number from 0 of at most 18446744073709551615, ",
        ),
        ({"type": "start", "seed": True}, "start: seed is a whole number from 0, got true"),
        ({"type": "start", "seed": None}, "start: seed is a whole number from 0, got null"),
        ({"type": "start", "seed": "7"}, 'start: seed is a whole number from 0, got "7"'),
        ({"type": "start", "start": False}, "start: start is a whole number from 0 or null, got false"),
        ({"type": "start", "start": -1}, "start: start is a whole number from 0 or null, got -1"),
        ({"type": "start", "image": "x" * (MOST_TEXT + 1)}, "start: image is text of at most 65536, "),
        ({"type": "start", "pace": 16.001}, "start: pace is a number from 0 of at most 16, got 16.001"),
        ({"type": "start", "pace": -0.001}, "start: pace is a number from 0 of at most 16, got -0.001"),
        ({"type": "start", "pace": True}, "start: pace is a number from 0 of at most 16, got true"),
        ({"type": "start", "pace": None}, "start: pace is a number from 0 of at most 16, got null"),
        ({"type": "start", "pace": "1"}, 'start: pace is a number from 0 of at most 16, got "1"'),
        ({"type": "start", "pace": 10**4_000}, "start: pace is a number from 0 of at most 16, got 1000"),
        ({"type": "action", "seq": 2**32}, "action: seq is a whole number from 0 of at most 4294967295, "),
        ({"type": "action", "seq": -1}, "action: seq is a whole number from 0 of at most 4294967295, got -1"),
        ({"type": "action", "seq": 1.0}, "action: seq is a whole number from 0 of at most 4294967295, got 1.0"),
        ({"type": "action", "seq": False}, "action: seq is a whole number from 0 of at most 4294967295, got false"),
        ({"type": "action", "seq": 1, "keys": "KeyA"}, f'{KEYS}, got "KeyA"'),
        ({"type": "action", "seq": 1, "keys": [7]}, f"{KEYS}, got [7]"),
        ({"type": "action", "seq": 1, "keys": ["KeyA"] * 33}, f"{KEYS}, got 33 of them"),
        ({"type": "action", "seq": 1, "keys": ["KeyA", "a" * 65]}, f"{KEYS}, got one of 65 characters"),
        ({"type": "action", "seq": 1, "keys": ["a" * 60_000]}, f"{KEYS}, got one of 60,000 characters"),
        ({"type": "action", "seq": 1, "keys": "a" * 60_000}, f'{KEYS}, got "aaa'),
        ({"type": "action", "seq": 1, "keys": None}, f"{KEYS}, got null"),
        ({"type": "prompt", "text": "x" * 4_001}, "prompt: text is text of at most 4000, "),
        ({"type": "prompt", "text": None}, "prompt: text is text of at most 4000, got null"),
        ({"type": "control", "op": "jump"}, "control: op is one of pause, resume, step, mark, rewind, fork, save, "),
        ({"type": "control", "op": "step", "blocks": 10**6 + 1}, "control: blocks is a whole number from 0 of at "),
        ({"type": "control", "op": "rewind", "mark": -1}, "control: mark is a whole number from 0 or null, got -1"),
        ({"type": "control", "op": "load", "world": "0" * 33}, "control: world is text of at most 32, "),
        ({"type": "ack", "epoch": 0, "blocks": -1}, "ack: blocks is a whole number from 0, got -1"),
        ({"type": "ack", "epoch": [0], "blocks": 0}, "ack: epoch is a whole number from 0, got [0]"),
        ({"type": "ping", "t": [[]]}, "ping: t is a number from 0, got [[]]"),
        ({"type": "ping", "t": -1}, "ping: t is a number from 0, got -1"),
        ({"type": "ping", "t": "\ud800"}, 'ping: t is a number from 0, got "\\ud800"'),
        ({"type": "action"}, "action: a field is missing: seq"),
        ({"type": "action", "keys": ["KeyA"]}, "action: a field is missing: seq"),
        ({"type": "prompt"}, "prompt: a field is missing: text"),
        ({"type": "control", "blocks": 1}, "control: a field is missing: op"),
        ({"type": "ack"}, "ack: a field is missing: epoch, blocks"),
        ({"type": "ack", "epoch": 0}, "ack: a field is missing: blocks"),
    ],
    ids=lambda given: json.dumps(given)[:60] if isinstance(given, dict) else "",
)
def test_a_field_that_does_not_fit_is_named_and_the_connection_stays(given, says):
    error = refused(json.dumps(given))
    assert (error.code, error.close) == ("bad_field", None)
    head, _, tail = says.partition(".*")
    assert str(error).startswith(head)
    assert str(error).endswith(tail)
    assert len(str(error)) < 250
    str(error).encode()


def test_a_number_too_large_for_any_float_is_no_number_to_begin_with():
    error = refused('{"type":"ping","t":1e400}')
    assert (error.code, error.close, str(error)) == (
        "bad_field",
        None,
        "ping: t is a number from 0 of at most 18446744073709551615, got Infinity",
    )


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_nesting_is_refused_at_every_depth_up_to_where_it_cannot_be_read(opening, closing):
    nests = (opening * depth + "0" + closing * depth for depth in range(1, 1_100))
    codes = [refused('{"type":"hello","token":' + nest + "}").code for nest in nests]
    shallow = codes.index("not_json")
    assert codes == ["bad_field"] * shallow + ["not_json"] * (len(codes) - shallow)


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_that_is_just_short_enough_to_be_read_is_refused_by_its_size(sign):
    error = refused('{"type":"start","seed":' + sign + "9" * 4_300 + "}")
    assert (error.code, error.close) == ("bad_field", None)
    assert len(str(error)) < 150


def test_text_with_half_a_character_is_read_as_it_is():
    assert read_message('{"type":"hello","token":"\\ud800"}') == Hello(token="\ud800")
    assert read_message('{"type":"prompt","text":"\\udfff!"}') == Prompt(text="\udfff!")


def test_of_a_field_that_is_said_twice_the_last_counts():
    assert read_message('{"type":"ping","type":"ack","epoch":1,"epoch":2,"blocks":0}') == Ack(epoch=2, blocks=0)


WHOLE = st.integers(0, MOST_NUMBER)
BUILT = st.one_of(
    st.builds(
        Hello,
        role=st.sampled_from(["player", "spectator"]),
        codecs=st.lists(st.sampled_from(["jpeg", "h264", "raw"]), max_size=8).map(tuple),
        token=st.text(max_size=256),
        session=st.text(max_size=32),
        resume=st.text(max_size=64),
        epoch=WHOLE,
        blocks=WHOLE,
    ),
    st.builds(Start, seed=WHOLE, start=st.none() | WHOLE, image=st.text(), prompt=st.text(), pace=st.floats(0, 16)),
    st.builds(Act, seq=st.integers(0, MOST_SEQ), keys=st.lists(st.text(max_size=64), max_size=32).map(tuple)),
    st.builds(Prompt, text=st.text(max_size=MOST_PROMPT), over=st.integers(0, 10**6)),
    st.builds(
        Control,
        op=st.sampled_from(["pause", "resume", "step", "mark", "rewind", "fork", "save", "load", "reset"]),
        blocks=st.integers(0, 10**6),
        mark=st.none() | WHOLE,
        world=st.text(max_size=32),
        seed=WHOLE,
        start=st.none() | WHOLE,
        prompt=st.none() | st.text(max_size=MOST_PROMPT),
    ),
    st.builds(Tell, seen=st.booleans()),
    st.builds(Ack, epoch=WHOLE, blocks=WHOLE),
    st.builds(Ping, t=st.floats(0, 2**63)),
    st.just(Bye()),
)


@given(BUILT)
def test_what_is_written_is_read_back(message):
    assert read_message(write_message(KINDS[type(message)], **asdict(message))) == message


def test_a_message_is_written_without_spaces_and_in_plain_letters():
    assert write_message("pong", t=0.5) == '{"type":"pong","t":0.5}'
    assert write_message("prompt", text="\u00e9\ud800") == '{"type":"prompt","text":"\\u00e9\\ud800"}'


def answer(text: str) -> Message | ProtocolError:
    try:
        return read_message(text)
    except ProtocolError as error:
        return error


def reads_or_refuses(text: str) -> None:
    match answer(text):
        case ProtocolError() as error:
            assert error.close in (None, 4400)
            assert error.code in {"not_json", "no_type", "unknown_type", "bad_field"}
            str(error).encode()
        case message:
            assert isinstance(message, Message)
            hash(message)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=200))
@example("\ud800")
@example('{"type":"\ud800"}')
@example('{"type":"ping","t":"\udcff"}')
def test_no_text_does_more_than_be_refused(text):
    reads_or_refuses(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**64)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["player", "jpeg", "raw", "load", "0" * 32, 0, 1, 2**32, 2**64, -1, 1.5]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)
FIELDS = sorted({one.name for kind in MESSAGES.values() for one in fields(kind)})
NEARLY = st.builds(
    lambda kind, values: {**values, "type": kind},
    st.sampled_from(list(MESSAGES)) | JSON,
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
)


@settings(max_examples=600, deadline=None)
@given(JSON | NEARLY)
def test_no_json_does_more_than_be_refused(value):
    reads_or_refuses(json.dumps(value))


@settings(max_examples=300, deadline=None)
@given(BUILT, st.data())
def test_a_message_that_was_garbled_on_its_way_does_no_more_than_be_refused(message, data):
    text = write_message(KINDS[type(message)], **asdict(message))[:300]
    start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    reads_or_refuses(text[:start] + data.draw(st.text(st.characters(), max_size=5)) + text[end:])


@pytest.mark.parametrize("name", ["0" * 32, "deadbeef" * 4])
def test_a_name_is_32_small_hexadecimal_digits(name):
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n", "g" * 32, "\u0660" * 32])
def test_nothing_else_is_a_name(name):
    assert not NAME.fullmatch(name)


def test_the_protocol_has_its_name():
    assert SUBPROTOCOL == "worldsim.v1"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ('{"type":"start","seed":-1}', "start"),
        ('{"type":"dance"}', None),
        ('{"type":7}', None),
        ("{", None),
        ("[1]", None),
        ("7", None),
        (b"\xff\x00", None),
        ("[" * 60_000, None),
    ],
)
def test_the_type_of_a_message_is_told_where_it_can_be_made_out(message, kind):
    assert type_of(message) == kind
