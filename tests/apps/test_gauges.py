"""What a server tells of itself: every figure, in the text that Prometheus reads, and nothing of any one session."""

from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from worldsim_apps.gauges import SECONDS, Gauges

KINDS = {
    "worldsim_block_seconds": "histogram",
    "worldsim_action_to_frame_seconds": "histogram",
    "worldsim_frames_sent": "counter",
    "worldsim_frames_dropped": "counter",
    "worldsim_refused": "counter",
    "worldsim_blocks_failed": "counter",
    "worldsim_sessions": "gauge",
    "worldsim_pages_in_use": "gauge",
}
SESSIONS = {"live": 3, "paused": 2, "waiting": 1}


@pytest.fixture
def gauges():
    return Gauges(lambda: 17, SESSIONS.__getitem__)


def families(gauges: Gauges) -> list[Metric]:
    """What the text says, without the moments at which counting began."""
    found = text_string_to_metric_families(gauges.text().decode())
    return [family for family in found if not family.name.endswith("_created")]


def figures(gauges: Gauges) -> dict[str, float]:
    """Every figure by its name and labels, as they stand in the text."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in families(gauges)
        for sample in family.samples
    }


def use_all(gauges: Gauges) -> None:
    gauges.block.labels("make").observe(0.03)
    gauges.block.labels("encode").observe(0.0005)
    gauges.action.observe(0.1)
    gauges.sent.inc()
    gauges.dropped.labels("slow").inc(4)
    gauges.refused.labels("origin").inc()
    gauges.failed.inc()


def test_the_text_has_every_figure_and_what_it_is(gauges):
    assert {family.name: family.type for family in families(gauges)} == KINDS
    assert all(family.documentation.endswith(".") for family in families(gauges))


def test_counters_begin_at_nothing_and_count(gauges):
    plain = ("worldsim_frames_sent_total", "worldsim_blocks_failed_total")
    assert [figures(gauges)[name] for name in plain] == [0, 0]
    gauges.sent.inc()
    gauges.sent.inc()
    gauges.failed.inc()
    assert [figures(gauges)[name] for name in plain] == [2, 1]


def test_what_was_refused_and_dropped_is_counted_by_its_reason(gauges):
    for reason in ("origin", "host", "origin"):
        gauges.refused.labels(reason).inc()
    gauges.dropped.labels("slow").inc(5)
    found = figures(gauges)
    assert found["worldsim_refused_total reason=origin"] == 2
    assert found["worldsim_refused_total reason=host"] == 1
    assert found["worldsim_frames_dropped_total reason=slow"] == 5


def test_times_are_told_by_how_many_were_no_longer(gauges):
    for seconds in (0.0005, 0.03, 0.03, 9.0):
        gauges.block.labels("make").observe(seconds)
        gauges.action.observe(seconds)
    found = figures(gauges)
    for name, label in (("worldsim_block_seconds", " stage=make"), ("worldsim_action_to_frame_seconds", "")):
        counts = [found[f"{name}_bucket le={edge}{label}"] for edge in (*SECONDS, "+Inf")]
        assert counts == [1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 4]
        assert found[f"{name}_count{label}"] == 4
        assert found[f"{name}_sum{label}"] == pytest.approx(9.0605)


def test_the_stages_of_a_block_are_told_apart(gauges):
    gauges.block.labels("make").observe(0.03)
    gauges.block.labels("encode").observe(0.002)
    found = figures(gauges)
    assert found["worldsim_block_seconds_sum stage=make"] == 0.03
    assert found["worldsim_block_seconds_sum stage=encode"] == 0.002


def test_sessions_are_told_by_their_state_and_pages_as_they_are_now():
    pages, counts = [0], dict.fromkeys(SESSIONS, 0)
    gauges = Gauges(lambda: pages[0], counts.__getitem__)
    for now in range(3):
        pages[0] = 7 * now
        counts.update({state: now * count for state, count in SESSIONS.items()})
        found = figures(gauges)
        assert found["worldsim_pages_in_use"] == 7 * now
        for state, count in counts.items():
            assert found[f"worldsim_sessions state={state}"] == count


def test_two_servers_in_one_process_count_apart(gauges):
    other = Gauges(lambda: 0, lambda _: 0)
    gauges.sent.inc()
    assert figures(gauges)["worldsim_frames_sent_total"] == 1
    assert figures(other)["worldsim_frames_sent_total"] == 0


def test_no_session_is_told_apart_from_another(gauges):
    use_all(gauges)
    labels = {
        (key, value)
        for family in families(gauges)
        for sample in family.samples
        for key, value in sample.labels.items()
        if key != "le"
    }
    assert labels == {
        ("stage", "make"),
        ("stage", "encode"),
        ("reason", "slow"),
        ("reason", "origin"),
        ("state", "live"),
        ("state", "paused"),
        ("state", "waiting"),
    }


def test_the_text_is_that_of_prometheus(gauges):
    use_all(gauges)
    lines = gauges.text().decode().splitlines()
    assert "# TYPE worldsim_frames_sent_total counter" in lines
    assert "# HELP worldsim_pages_in_use Pages of keys and values that are held." in lines
    assert 'worldsim_sessions{state="live"} 3.0' in lines
    assert "worldsim_pages_in_use 17.0" in lines
