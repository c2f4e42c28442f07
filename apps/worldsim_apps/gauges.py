"""What a server measures of itself, in the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)


class Gauges:
    """The figures of one server; no session is told apart from another."""

    def __init__(self, pages_in_use: Callable[[], int], sessions: Callable[[str], int]) -> None:
        self._registry = CollectorRegistry()
        self.block = Histogram(
            "worldsim_block_seconds",
            "What a block takes, by stage: wait (for its turn), denoise, decode, commit, encode.",
            ["stage"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.action = Histogram(
            "worldsim_action_to_frame_seconds",
            "From hearing an action to having encoded the first frame that was made under it.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.sent = Counter("worldsim_frames_sent", "Frames given to the network.", registry=self._registry)
        self.dropped = Counter(
            "worldsim_frames_dropped", "Frames that a viewer missed, by reason.", ["reason"], registry=self._registry
        )
        self.refused = Counter(
            "worldsim_refused", "Connections and messages turned down, by reason.", ["reason"], registry=self._registry
        )
        self.failed = Counter("worldsim_blocks_failed", "Blocks that were taken back.", registry=self._registry)
        states = Gauge("worldsim_sessions", "Sessions by state.", ["state"], registry=self._registry)
        for state in ("live", "paused", "waiting"):
            states.labels(state).set_function(lambda state=state: sessions(state))  # type: ignore[misc]
        Gauge("worldsim_pages_in_use", "Pages of keys and values that are held.", registry=self._registry).set_function(
            pages_in_use
        )

    def text(self) -> bytes:
        """All figures, in the text format of Prometheus."""
        return generate_latest(self._registry)
