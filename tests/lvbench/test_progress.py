"""A bar is shown to somebody who watches, and to nobody else."""

from __future__ import annotations

import pytest

from lvbench.progress import progress


@pytest.mark.parametrize(("is_watched", "quiet"), [(False, False), (True, True)])
def test_nothing_is_shown_where_nobody_watches(capsys, monkeypatch, is_watched, quiet):
    if is_watched:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("score", 10, quiet=quiet) as advance:
        advance()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_how_many_are_done_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("score", 10) as advance:
        for _ in range(4):
            advance()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "4/10" in shown.err
