"""The bars of live worlds are held against what was measured."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import live, record

GOOD: dict[str, dict[str, Any]] = {
    "scripts": {"scripts": 9, "equal": 9},
    "kills": {"kills": 9, "restored": 9, "most_blocks_lost": 1},
    "cuts": {"cuts": 9, "equal": 9, "resume_ms": {"p95": 500.0}},
    "deaths": {
        "pages_left": 0.0,
        "sessions_left": 0.0,
        "descriptors_left": 0,
        "threads_left": 0,
        "next_session_plays": True,
    },
    "stall": {"resident_mb_more": 8.0, "slower": 1.1},
    "crowd": {"asked": 8, "refused": 8, "refused_ms": {"p95": 100.0}, "slower": 1.05},
    "transport": {"transport_ms": {"p99": 5.0}},
    "encoding": {"jpeg_ms": {"p95": 3.0}},
    "bombs": {"refused": 2, "longest_ms": 99.0, "memory_mb": 49.0},
    "actions": {"overhead_ms": {"p99": 20.0}},
}
WORSE: list[tuple[str, dict[str, Any]]] = [
    ("scripts", {"equal": 8}),
    ("kills", {"restored": 8}),
    ("kills", {"most_blocks_lost": 2}),
    ("cuts", {"equal": 8}),
    ("cuts", {"resume_ms": {"p95": 501.0}}),
    ("deaths", {"pages_left": 1.0}),
    ("deaths", {"sessions_left": 1.0}),
    ("deaths", {"descriptors_left": 1}),
    ("deaths", {"threads_left": 1}),
    ("deaths", {"next_session_plays": False}),
    ("stall", {"resident_mb_more": 8.1}),
    ("stall", {"slower": 1.11}),
    ("crowd", {"refused": 7}),
    ("crowd", {"refused_ms": {"p95": 101.0}}),
    ("crowd", {"slower": 1.06}),
    ("transport", {"transport_ms": {"p99": 5.1}}),
    ("encoding", {"jpeg_ms": {"p95": 3.1}}),
    ("bombs", {"refused": 1}),
    ("bombs", {"longest_ms": 101.0}),
    ("bombs", {"memory_mb": 51.0}),
    ("actions", {"overhead_ms": {"p99": 21.0}}),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command on given figures; the exit code and what was written."""

    def running(figures):
        monkeypatch.setattr(live, "measure", lambda *_given, **_named: json.loads(json.dumps(figures)))
        monkeypatch.setattr(live, "write", lambda name, found: record.write(name, found, folder=tmp_path))
        done = CliRunner().invoke(live_app(), ["--name", "tried", "--share", "0.5"])
        return done.exit_code, json.loads((tmp_path / "tried.json").read_text())

    return running


def live_app():
    import typer

    app = typer.Typer()
    app.command()(live.main)
    return app


def test_figures_that_reach_every_bar_are_written_with_where_they_come_from(run) -> None:
    code, written = run(GOOD)
    assert code == 0
    assert written["share"] == 0.5
    assert "commit" in written["provenance"]
    assert all(all(written[what]["bars"].values()) for what in GOOD)


@pytest.mark.parametrize(("what", "worse"), WORSE)
def test_every_bar_that_is_missed_is_told(run, what, worse) -> None:
    code, written = run(GOOD | {what: GOOD[what] | worse})
    assert code == 1
    assert list(written[what]["bars"].values()).count(False) == 1


def test_every_figure_has_a_bar() -> None:
    assert set(live.BARS) == set(GOOD)
