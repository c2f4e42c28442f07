"""Several episodes of one world that make their blocks together, as a gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn, Unpack

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from worldsim.controls import Keys
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
from worldsim.runtime.batching import step_together
from worldsim.runtime.chunk import Chunk, Frames
from worldsim.runtime.world import World, checked_seed
from worldsim.simulators.protocol import Frame

Step = tuple[Frames, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]
"""Observations [N, H, W, 3], rewards, terminations and truncations [N], and what else is known of each."""


class VectorWorldEnv(VectorEnv[Frames, NDArray[np.int64], NDArray[Any]]):
    """Several environments over one world, whose blocks are made together by shared backbone calls.

    Each plays the same as a WorldEnv that was reset with its seed, up to rounding: what is made together is rounded
    together. Episodes that have been truncated begin anew at the next step, which heeds no action.

    Args:
        world: one that is loaded, or the name of one to load.
        num_envs: how many there are, at least 1.
        score: what a step pays, from the frame that it leads to; every step pays 0.0 if None.
        render_mode: "rgb_array", or None.
        max_episode_steps: blocks after which an episode is truncated, at least 1; never if None.
        loading: as for worldsim.load, where a name is given.

    Raises:
        ConfigError: a number that cannot be, or a world that is loaded is to be loaded in another way.
        UnknownName: no such render mode; and as for worldsim.load.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # gymnasium's own, set anew for each
        "render_modes": list(RENDER_MODES),
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        world: World | str,
        *,
        num_envs: int = 1,
        score: Score | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        if num_envs < 1 or (max_episode_steps is not None and max_episode_steps < 1):
            raise ConfigError(
                "there is at least 1 environment, and an episode has at least 1 step; "
                f"got num_envs={num_envs}, max_episode_steps={max_episode_steps}"
            )
        self.render_mode = check_render_mode(render_mode)
        self.world = loaded(world, loading)
        self.metadata = {**self.metadata, **world_metadata(self.world)}
        self.num_envs = num_envs
        self.single_action_space = action_space(self.world.controls)
        self.single_observation_space = frame_space(self.world)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._score = score
        self._longest = max_episode_steps
        self._series = [seeding.np_random()[0] for _ in range(num_envs)]
        self._episodes: list[Episode] = []

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each action does, by its number."""
        return action_names(self.world.controls)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frames, dict[str, Any]]:
        """Begin every episode anew.

        Args:
            seed: of the first, that of each other being one more, or one for each; as for WorldEnv.reset.
            options: for all of them, as for WorldEnv.reset.

        Returns:
            The frames that they begin from, uint8 [N, H, W, 3], and {"seed": of each}.

        Raises:
            ConfigError: another number of seeds than of environments; and as for WorldEnv.reset. All go on as before.
        """
        each = self._each(seed)
        series = [
            own if given is None else seeding.np_random(given)[0] for own, given in zip(self._series, each, strict=True)
        ]
        seeds = [_draw(own) if given is None else given for own, given in zip(series, each, strict=True)]
        begun = self._begin(seeds, options)
        self._end()
        self._series, self._episodes, self.closed = series, begun, False
        return self._frames(), self._seeds()

    def step(self, actions: NDArray[np.int64] | Sequence[int]) -> Step:
        """Make the next block of every episode together, or begin all anew after the last of an episode.

        Args:
            actions: one for each, [N].

        Returns:
            For each: its newest frame, what that pays, False, whether it has been truncated, and what WorldEnv.step
            (or, where they begin anew, WorldEnv.reset) tells of it.

        Raises:
            ConfigError: no such action, another number of them, or no episode has begun; nothing was made.
            WorldSimError: what went wrong with one of them, with a note that says which; nothing was made in any.
        """
        keys = self._keys(actions)
        if self._are_over():
            return self._next_episodes()
        chunks = self._advance(keys)
        for episode, chunk in zip(self._episodes, chunks, strict=True):
            episode.frame = chunk.frames[-1].copy()
        pays = self._score or (lambda _: 0.0)
        rewards = np.array([pays(episode.frame.copy()) for episode in self._episodes], np.float64)
        truncated = np.full(self.num_envs, self._are_over())
        if self._are_over():
            self._end()
        infos = self._infos([{"block": chunk.block, "frames": chunk.frames} for chunk in chunks])
        return self._frames(), rewards, np.zeros(self.num_envs, np.bool_), truncated, infos

    def render(self) -> tuple[Frame, ...] | None:
        """The newest frame of each, uint8 [H, W, 3]; None without a render mode."""
        return None if self.render_mode is None else tuple(self._frames())

    def __reduce_ex__(self, _: object) -> NoReturn:
        """Copies and pickles would share pages that nobody counts."""
        raise ConfigError(
            "environments are neither copied nor pickled; to try out what might be done, take a WorldEnv, its "
            "clone_state() and its restore_state()"
        )

    def close_extras(self, **_: Any) -> None:
        """Give all memory back."""
        self._end()
        self._episodes = []

    def _each(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        """The seed of each; errors as for `reset`."""
        if seed is None:
            return [None] * self.num_envs
        given = _listed(seed)
        if given is None:
            first = checked_seed(seed)
            super().reset(seed=first)
            given = [first + number for number in range(self.num_envs)]
        if len(given) != self.num_envs:
            raise ConfigError(f"{self.num_envs} environments need a seed each, got {len(given)}")
        return [None if one is None else checked_seed(one) for one in given]

    def _begin(self, seeds: Sequence[int], options: Mapping[str, Any] | None) -> list[Episode]:
        """An episode of each of those seeds; none if one of them cannot be begun."""
        with ExitStack() as undo:
            begun = []
            for seed in seeds:
                begun.append(begin(self.world, seed=seed, options=options))
                undo.callback(begun[-1].session.close)
            undo.pop_all()
        return begun

    def _next_episodes(self) -> Step:
        """What the step after the last of an episode gives: all begin anew."""
        self._episodes = self._begin([_draw(own) for own in self._series], None)
        none = np.zeros(self.num_envs, np.bool_)
        return self._frames(), np.zeros(self.num_envs), none, none.copy(), self._seeds()

    def _advance(self, keys: Sequence[Keys]) -> list[Chunk]:
        """The next block of every episode under those keys, or of none."""
        sessions = [episode.session for episode in self._episodes]
        marks = [session.mark() for session in sessions]
        outcomes = step_together(sessions, keys)
        errors = [outcome.exception() for outcome in outcomes]
        for session, mark in zip(sessions, marks, strict=True):
            if any(errors):
                session.rewind(mark)
            mark.close()
        for number, error in enumerate(errors):
            if error is not None:
                error.add_note(f"this happened in environment {number} of {self.num_envs}; no block was made in any")
                raise error
        return [outcome.result() for outcome in outcomes]

    def _keys(self, actions: NDArray[np.int64] | Sequence[int]) -> list[Keys]:
        if not self._episodes:
            raise ConfigError("no episode has begun; call reset() first")
        given = _listed(actions)
        if given is None or len(given) != self.num_envs:
            got = repr(actions) if given is None else len(given)
            raise ConfigError(f"{self.num_envs} environments need an action each, got {got}")
        return [action_keys(self.world.controls, action) for action in given]

    def _are_over(self) -> bool:
        """Whether the episodes have been truncated, which are all of one length."""
        return self._longest is not None and self._episodes[0].session.block >= self._longest

    def _end(self) -> None:
        for episode in self._episodes:
            episode.session.close()

    def _frames(self) -> Frames:
        return np.stack([episode.frame for episode in self._episodes])

    def _seeds(self) -> dict[str, Any]:
        return self._infos([{"seed": np.uint64(episode.seed)} for episode in self._episodes])

    def _infos(self, told: Sequence[dict[str, Any]]) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for number, info in enumerate(told):
            infos = self._add_info(infos, info, number)
        return infos


def _listed(given: Any) -> list[Any] | None:
    """All that are given, None where it is not several: a number, or an array without a dimension."""
    try:
        return list(given)
    except TypeError:
        return None


def _draw(series: np.random.Generator) -> int:
    """The next seed of a series, as WorldEnv.reset draws it."""
    return int(series.integers(2**63))
