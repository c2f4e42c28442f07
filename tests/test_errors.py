"""The error tree: what is drawn is what is there, and what each error can be caught as."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from worldsim import errors
from worldsim.errors import ConfigError, UnknownName, WorldSimError, counted, installing, shown, whole


def drawn_parents() -> dict[str, str]:
    """The parent of every error in the drawing that opens worldsim/errors.py."""
    parents: dict[str, str] = {}
    path = [WorldSimError.__name__]
    for indent, name in re.findall(r"^([│ ]*)[├└]── (\w+)", errors.__doc__ or "", flags=re.MULTILINE):
        depth = len(indent) // 4 + 1
        path[depth:] = [name]
        parents[name] = path[depth - 1]
    return parents


def test_the_drawn_tree_is_the_tree() -> None:
    classes = [found for _, found in inspect.getmembers(errors, inspect.isclass) if found.__module__ == errors.__name__]
    actual = {found.__name__: found.__bases__[0].__name__ for found in classes if found is not WorldSimError}
    assert drawn_parents() == actual


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("UnknownName", ValueError),
        ("ShapeError", ValueError),
        ("ActionsError", ValueError),
        ("PoolFull", MemoryError),
        ("SpillError", OSError),
        ("VideoError", OSError),
        ("MissingDependency", ImportError),
    ],
)
def test_an_error_is_also_the_builtin_that_callers_expect(name: str, builtin: type[Exception]) -> None:
    error = getattr(errors, name)
    assert issubclass(error, WorldSimError)
    assert issubclass(error, builtin)


def test_an_unknown_name_says_what_was_given_and_what_is_known() -> None:
    error = UnknownName("world", "mars", ["maze", "crafter"])
    assert isinstance(error, ConfigError)
    assert str(error) == "there is no world 'mars'; known: crafter, maze"


def test_an_unknown_name_points_at_the_nearest_one() -> None:
    assert str(UnknownName("world", "craftr", ["maze", "crafter"])).endswith("; did you mean 'crafter'?")


def test_an_unknown_name_need_not_be_text() -> None:
    assert str(UnknownName("key", 7, ["KeyW"])) == "there is no key 7; known: KeyW"


@pytest.mark.parametrize("given", ["x" * 5_000, ["x"] * 5_000, "\x1b[31m" * 900])
def test_what_was_given_is_repeated_in_few_characters_that_steer_no_terminal(given: object) -> None:
    text = shown(given)
    assert len(text) == 80
    assert text.isprintable()
    assert text.endswith("...")
    assert len(str(UnknownName("world", given, ["maze"]))) < 120


def test_what_is_short_is_repeated_whole_and_a_number_without_end_is_none() -> None:
    assert shown("é\n") == "'é\\n'"
    assert shown(10**5_000) == "a number of more digits than can be written"


def test_an_unknown_name_may_belong_to_something() -> None:
    error = UnknownName("option", "foo", ["frames"], of="policy 'window'")
    assert str(error) == "there is no option 'foo' of policy 'window'; known: frames"


def test_one_is_counted_as_one() -> None:
    assert [counted(number, "frame") for number in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


def test_an_extra_is_installed_from_the_folder_and_not_from_a_package_of_that_name_elsewhere() -> None:
    assert installing("wan") == ".venv/bin/pip install --constraint constraints.txt --editable '.[wan]'"


class Unwritable:
    """Something that was not made to its end, and so cannot say what it is."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


@pytest.mark.parametrize("error", [ValueError, AttributeError, TypeError, RecursionError])
def test_what_cannot_be_written_is_repeated_as_that(error: type[Exception]) -> None:
    assert "cannot be written" in shown(Unwritable(error)) or "than can be written" in shown(Unwritable(error))
    assert shown([10**5_000, -(10**5_000)]) == "a number of more digits than can be written"
    assert str(UnknownName("key", 10**5_000, ["KeyW"])).endswith("known: KeyW")


def test_what_has_several_lines_is_repeated_in_one() -> None:
    assert "\n" not in shown(np.zeros((2, 2)))


def test_a_whole_number_is_one_whatever_made_it() -> None:
    assert [whole(number, "a count") for number in (7, np.int64(7), np.uint8(7))] == [7, 7, 7]
    for wrong in (7.0, True, "7", None, np.float32(7)):
        with pytest.raises(ConfigError, match=r"^a count, got "):
            whole(wrong, "a count")
