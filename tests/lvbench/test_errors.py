"""An error says what was given, what fits, and is caught as one of the tree."""

from __future__ import annotations

from lvbench.errors import ConfigError, LvbenchError, UnknownName, VideoRefused


def test_a_mistyped_name_is_told_with_the_one_that_was_meant():
    error = UnknownName("dimension", "clarty", ["motion", "clarity"])
    assert str(error) == "there is no dimension 'clarty'; known: clarity, motion; did you mean 'clarity'?"


def test_every_error_is_caught_by_the_root_of_the_tree():
    assert all(issubclass(error, LvbenchError) for error in (ConfigError, UnknownName, VideoRefused))
