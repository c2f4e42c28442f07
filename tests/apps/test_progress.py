"""A bar is shown to somebody who watches, and to nobody else."""

from __future__ import annotations

from worldsim_apps.progress import progress


def test_nothing_is_shown_where_nobody_watches(capsys):
    with progress("generate", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_label_and_share_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("generate", 10) as bar:
        bar.advance(4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "generate" in shown.err
    assert "40%" in shown.err


def test_a_quiet_run_shows_nothing_on_a_terminal_either(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("generate", 10, quiet=True) as bar:
        bar.advance(4)
    assert capsys.readouterr() == ("", "")


def test_work_that_knows_how_far_it_is_says_so_with_a_note(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("train", 10) as bar:
        bar.advance(1)
        bar.reach(7, "loss 0.25")
    shown = capsys.readouterr().err
    assert "train, loss 0.25" in shown
    assert "70%" in shown
