"""A world as a gymnasium environment that can be cloned and restored."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NoReturn, Unpack
from weakref import WeakSet

import gymnasium
import numpy as np

from worldsim.envs.episode import (
    RENDER_MODES,
    Episode,
    Loading,
    Score,
    action_keys,
    action_names,
    action_space,
    begin,
    check_render_mode,
    frame_space,
    loaded,
    world_metadata,
)
from worldsim.errors import ConfigError
from worldsim.runtime.mark import Mark
from worldsim.runtime.session import Session
from worldsim.runtime.world import World, checked_seed
from worldsim.simulators.protocol import Frame


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, weakref_slot=True)
class EnvState:
    """A moment of an environment to come back to. Made by WorldEnv.clone_state.

    It keeps that moment's memory, shared with whatever else was made from there, until it is closed or dropped.

    world: that it is of.
    line: the beginning that it shares with all states of its episode.
    mark: the moment.
    seed: of its episode.
    frame: the newest of that moment, uint8 [H, W, 3].
    """

    world: World
    line: Session
    mark: Mark
    seed: int
    frame: Frame

    @property
    def block(self) -> int:
        """How many blocks had been made."""
        return self.mark.block

    def close(self) -> None:
        """Give its memory back; it can no longer be restored. Closing twice is fine."""
        self.mark.close()

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise ConfigError("a state is not copied; restore it as often as wanted, in any environment over its world")


class WorldEnv(gymnasium.Env[Frame, np.int64]):
    """A world as a gymnasium environment: a step is a block, an observation its last frame, uint8 [H, W, 3].

    Actions are numbers: 0 waits, then come the world's actions in their order (`action_names`). A world has no goal, so
    an episode neither ends nor pays; a `score` pays, and gymnasium's TimeLimit ends (`max_episode_steps`).

    Args:
        world: one that is loaded, or the name of one to load.
        score: what a step pays, from the frame that it leads to; every step pays 0.0 if None.
        render_mode: "rgb_array", or None.
        loading: as for worldsim.load, where a name is given.

    Raises:
        ConfigError: a world that is loaded is to be loaded in another way.
        UnknownName: no such render mode; and as for worldsim.load.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES)}  # noqa: RUF012  # gymnasium's own, set anew for each

    def __init__(
        self,
        world: World | str,
        *,
        score: Score | None = None,
        render_mode: str | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self.world = loaded(world, loading)
        self.metadata = world_metadata(self.world)
        self.action_space = action_space(self.world.controls)
        self.observation_space = frame_space(self.world)
        self._score = score
        self._episode: Episode | None = None
        self._line: Session | None = None
        self._states: WeakSet[EnvState] = WeakSet()

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each action does, by its number."""
        return action_names(self.world.controls)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin an episode; returns the frame it begins from, and {"seed": of the world}.

        Args:
            seed: of the world, from which the same actions then make the same frames; it also begins the series from
                which the seeds of later episodes are drawn. The next of that series if None.
            options: {"start": number} for a starting place of the world, or {"frames": ..., "keys": ..., "hour": ...}
                to begin from frames; see World.open.

        Raises:
            UnknownName: no such option; and as for World.open. The episode before goes on.
        """
        given = None if seed is None else checked_seed(seed)
        super().reset(seed=given)
        drawn = int(self.np_random.integers(2**63)) if given is None else given
        self._go_on(begin(self.world, seed=drawn, options=options), None)
        return self._now().frame.copy(), {"seed": drawn}

    def step(self, action: int | np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Make the next block under the keys of an action.

        Returns:
            Its last frame, what that pays, False, False, and {"block": its number from 0, "frames": all of its frames,
            uint8 [F, H, W, 3]}.

        Raises:
            ConfigError: no such action, or no episode has begun; nothing was made.
            PoolFull: no memory for another block; nothing was made.
        """
        episode = self._now()
        chunk = episode.session.step(action_keys(self.world.controls, action))
        episode.frame = chunk.frames[-1].copy()
        reward = 0.0 if self._score is None else float(self._score(episode.frame.copy()))
        return episode.frame.copy(), reward, False, False, {"block": chunk.block, "frames": chunk.frames}

    def render(self) -> Frame | None:
        """The newest frame, uint8 [H, W, 3]; None without a render mode."""
        return None if self.render_mode is None else self._now().frame.copy()

    def clone_state(self) -> EnvState:
        """This moment, to restore as often as wanted, in this or a later episode. No key or value is copied.

        Another environment over the same World object may restore it too, until this one is closed. What wrappers know
        (a TimeLimit's count) and the series of seeds are no part of it.
        """
        episode = self._now()
        if self._line is None:
            self._line = episode.session.fork()
        mark = episode.session.mark()
        state = EnvState(world=self.world, line=self._line, mark=mark, seed=episode.seed, frame=episode.frame)
        self._states.add(state)
        return state

    def restore_state(self, state: EnvState) -> None:
        """Go back to a moment: the same actions then make the same frames, bit for bit.

        Raises:
            ConfigError: it is a moment of another world, or none.
            SessionClosed: it was closed, or the environment that it was made by.
            PoolFull: its memory had to leave the pool, and there is no room for it to come back.
        """
        if not isinstance(state, EnvState):
            raise ConfigError(f"what is restored is a state that clone_state returned, got {state!r}")
        if state.world is not self.world:
            raise ConfigError("that state is of another world; restore it in an environment over the World it is of")
        here = self._episode is not None and self._line is state.line
        with ExitStack() as undo:
            session = self._now().session if here else undo.enter_context(state.line.fork())
            session.rewind(state.mark)
            undo.pop_all()
        line = state.line if state in self._states else None  # what others made, others close
        self._go_on(Episode(session=session, seed=state.seed, frame=state.frame), line)

    def close(self) -> None:
        """Give all memory back, that of all states too, which can then no longer be restored. Closing twice is fine."""
        for state in list(self._states):
            state.close()
            state.line.close()
        if self._episode is not None:
            self._episode.session.close()
        self._episode = self._line = None

    def __reduce_ex__(self, _: object) -> NoReturn:
        """Copies and pickles would share pages that nobody counts."""
        raise ConfigError(
            "an environment is neither copied nor pickled; keep a moment with clone_state() and go on from it with "
            "restore_state(), here or in another WorldEnv over the same world"
        )

    def _now(self) -> Episode:
        if self._episode is None:
            raise ConfigError("no episode has begun; call reset() first")
        return self._episode

    def _go_on(self, episode: Episode, line: Session | None) -> None:
        """Leave the episode that is played for another, or for another moment of it."""
        before, self._episode, self._line = self._episode, episode, line
        if before is not None and before.session is not episode.session:
            before.session.close()
