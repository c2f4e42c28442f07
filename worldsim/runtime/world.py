"""A world that is loaded: weights, codec and memory, from which sessions are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.cache.policies import policy_text
from worldsim.cache.pool import PagePool
from worldsim.cache.quant import storage_text
from worldsim.controls import Controls, Keys
from worldsim.decoding.noise_plan import noise_text
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import prompt_change_text
from worldsim.decoding.rolling import rolling_text
from worldsim.decoding.video import VideoDecoder, VideoState
from worldsim.errors import ConfigError, LogError, PoolFull, ShapeError, SnapshotError, shown, whole
from worldsim.models.protocol import Backbone, Codec
from worldsim.runtime.chunk import Chunk, Frames
from worldsim.runtime.history import Moment
from worldsim.runtime.journal import Journal, read_log
from worldsim.runtime.reality import Reality
from worldsim.runtime.session import Home, Session, relive
from worldsim.runtime.snapshot import Snapshot
from worldsim.runtime.starts import Starts
from worldsim.runtime.voice import Eye, Voice, kept_prompt
from worldsim.session.log import Given, Opening, SessionLog, Step, Trail, check_lived
from worldsim.session.prompt import Coming, Told, first_told
from worldsim.simulators.protocol import Simulator

REMEMBERED_S = 60
"""World time that a session can go back at once, while the pool has room."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Origin:
    """Where a world comes from.

    name: what it is called.
    weights: SHA-256 of its weights file.
    controls: what can be done in it, and the keys for it.
    fps: frames in one second of world time.
    size: (height, width) of a frame in pixels.
    starts: the starting places that come with it.
    simulator: makes the real engine it was learned from; None if it was learned from none.
    chosen: what was chosen of its parts beside its plan, as logs tell it; nothing where nothing can be.
    """

    name: str
    weights: str
    controls: Controls
    fps: int
    size: tuple[int, int]
    starts: Starts
    simulator: Callable[[], Simulator] | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def learned_from(cls, simulator: Callable[[], Simulator], *, name: str, weights: str, starts: Starts) -> Origin:
        """That of a world whose keys, speed and size are those of an engine."""
        engine = simulator()
        return cls(
            name=name,
            weights=weights,
            controls=engine.controls,
            fps=engine.fps,
            size=engine.size,
            starts=starts,
            simulator=simulator,
        )


class World:
    """Made by worldsim.load; see there.

    Args:
        origin: where it comes from.
        backbone: its network, on its device.
        codec: its codec.
        plan: how blocks are made.
        pool: where all its sessions keep their past.
        hears: what a PromptedBackbone hears: of what a session is told in words, or of the picture that it begins
            from; None if it is told nothing.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        backbone: Backbone,
        codec: Codec[Any],
        plan: VideoPlan,
        pool: PagePool,
        hears: Voice | Eye | None = None,
    ) -> None:
        self.origin = origin
        self.backbone = backbone
        self.plan = plan
        self.pool = pool
        self._begun: dict[int, tuple[VideoState, Any, Frames]] = {}
        self._sees = hears if isinstance(hears, Eye) else None
        self._voice = hears if isinstance(hears, Voice) else None
        self._home = Home(
            codec=codec,
            controls=origin.controls,
            begin=self._begin,
            longest=-(-REMEMBERED_S * origin.fps // (plan.frames_per_block * codec.group)),
            size=origin.size,
            fps=origin.fps,
            hear=self._voice,
        )

    def __repr__(self) -> str:
        height, width = self.size
        return f"<World {self.origin.name}: {width} x {height}, {self.fps} fps, blocks of {self.frames_per_block}>"

    @property
    def controls(self) -> Controls:
        """What can be done in it, and the keys for it."""
        return self.origin.controls

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it understands, W3C `event.code` names."""
        return self.controls.keys

    @property
    def fps(self) -> int:
        """Frames in one second of world time."""
        return self.origin.fps

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame in pixels."""
        return self.origin.size

    @property
    def frames_per_block(self) -> int:
        """Frames in every chunk; where a latent frame stands for several, the first chunk from nothing has fewer."""
        return self.plan.frames_per_block * self._home.codec.group

    @property
    def calls_per_block(self) -> int:
        """Backbone calls that one block takes, the clean pass included."""
        return (1 if self.plan.rolling else len(self.plan.sigmas)) + self.plan.clean_pass

    @property
    def remembered_frames(self) -> int:
        """Frames that a session can go back at once, while the pool has room."""
        return self._home.longest * self.frames_per_block

    @property
    def is_told(self) -> bool:
        """Whether it is told in words what to show."""
        return self._home.hear is not None

    def left_out(self, prompt: str) -> int:
        """How many tokens at the end of a prompt are not heard, because it is too long; 0 where none is heard."""
        return 0 if self._voice is None else self._voice.left_out(prompt)

    @property
    def needs_picture(self) -> bool:
        """Whether every session begins from a picture of its own, which the backbone is shown."""
        return self._sees is not None

    def open(
        self,
        *,
        seed: int = 0,
        start: int | None = None,
        frames: NDArray[np.uint8] | None = None,
        keys: Sequence[Iterable[str]] | None = None,
        hour: int | None = None,
        prompt: str | None = None,
        log: Path | str | None = None,
    ) -> Session:
        """Begin to live in it.

        Args:
            seed: of everything that is left to chance, in [0, 2**64); it also picks the starting place if nothing
                else does.
            start: number of a starting place that comes with the world.
            frames: begin from these frames instead, uint8 [F, H, W, 3], the last being the present. A world that
                needs a picture begins from one, see `needs_picture`.
            keys: the keys held at each of those frames; none held if left out.
            hour: the frame of the world's day that the last of them shows, 0 to Controls.day - 1; not known if left
                out.
            prompt: what it shows, in a world that is told; nothing in particular if left out.
            log: a new file to which every block is added before the next is begun, so that a process that is killed
                loses the block in flight and no more.

        Raises:
            ConfigError: a start, a seed or an hour that is none or outside the range, both start and frames, keys or
                an hour without frames, a prompt for a world that is steered by keys alone, no picture where one is
                needed, noise of other levels where there is no past, or a log file that exists.
            UnknownName: a key that the world does not understand.
            ShapeError: frames of another size or dtype, or another number of keys.
            PoolFull: no memory for another session; nothing was opened.
        """
        if frames is not None and start is not None:
            raise ConfigError("begin from a start or from frames, not from both; leave one out")
        if frames is None and (keys is not None or hour is not None):
            raise ConfigError("keys and hour are of given frames; pass the frames too, or leave them out")
        seed = checked_seed(seed)
        start = None if start is None else whole(start, "a starting place is given by its number")
        if prompt is not None and not self.is_told:
            raise ConfigError(f"{self.origin.name} is steered by keys alone; leave the prompt out")
        given = None if frames is None else self._given(frames, keys, hour)
        self._check_picture(given)
        self._check_noise(given)
        opening = Opening(
            world=self.origin.name,
            weights=self.origin.weights,
            plan=self._plan(),
            machine=self._machine(),
            seed=seed,
            start=start if given or start is not None or self._begins_from_nothing else self.origin.starts.pick(seed),
            given=given,
            prompt=kept_prompt("" if prompt is None else prompt) if self.is_told else None,
        )
        return self._session(self._begin(opening), SessionLog(opening=opening, steps=()), log, None)

    def go_on(self, log: Path | str) -> Session:
        """The session of a log file, as it was when its last whole record was written; it goes on with that file.

        Raises:
            LogError: the file is no log, or of another world, other weights or another plan, or another session
                writes to it.
            NotReproduced: a block came out otherwise than it was recorded.
        """
        journal = Journal.go_on(log)
        with ExitStack() as undo:
            undo.callback(journal.close)
            read = read_log(journal.path)
            session = Session(self._home, self._live(read), read.opening, journal)
            undo.pop_all()
        return session

    def replay(self, log: SessionLog, *, verify: bool = True, on_chunk: Callable[[Chunk], None] | None = None) -> None:
        """Make every block of a log again.

        Args:
            log: of a session of this world.
            verify: compare each with what was recorded of it.
            on_chunk: told of every block.

        Raises:
            ConfigError: it is no SessionLog.
            LogError: it is of another world, other weights or another plan.
            NotReproduced: a block came out otherwise than it was recorded.
        """
        if not isinstance(log, SessionLog):
            raise ConfigError(
                f"a SessionLog is replayed, as session.log is one, got {shown(log)}; worldsim.runtime.journal.read_log "
                "reads one from a file"
            )
        self._check(log.opening)
        relive(self._home, log, len(log.steps), verify=verify, on_chunk=on_chunk).decoder.close()

    def restore(self, snapshot: Snapshot, *, log: Path | str | None = None) -> Session:
        """The session that a snapshot was taken of; see worldsim.restore.

        Args:
            snapshot: of a session of this world.
            log: a new file for its log, as for `open`.

        Raises:
            ConfigError: it is no Snapshot.
        """
        if not isinstance(snapshot, Snapshot):
            raise ConfigError(
                f"a World restores a Snapshot, as session.snapshot() gives it, got {shown(snapshot)}; "
                "worldsim.restore(path, world=...) goes on with a file"
            )
        opening, steps = snapshot.log.opening, snapshot.log.steps
        if snapshot.state is None or snapshot.shown is None:
            moment = self._live(snapshot.log)
        else:
            self._check(opening)
            told = self._told(opening, steps)
            heard = self._heard(opening, told, snapshot.state.blocks)
            try:
                decoder = self._filled(opening.seed, lambda new: new.resume(snapshot.state_for(self.size)), heard)
            except (ConfigError, ShapeError) as error:
                raise SnapshotError(f"no session of this world was in the state that was saved: {error}") from error
            trail: Trail | None = None
            for step in steps:
                trail = Trail(step, trail)
            moment = Moment(decoder, snapshot.codec_state, trail, snapshot.shown, told)
        return self._session(moment, snapshot.log, log, snapshot.coming)

    def reality(self, *, seed: int = 0) -> Reality:
        """The real engine, on the episode of that seed, in chunks of the same length.

        Raises:
            ConfigError: it was learned from no engine, or the seed is none.
        """
        if self.origin.simulator is None:
            raise ConfigError(f"{self.origin.name} was learned from no engine; there is no reality to compare it with")
        return Reality(self.origin.simulator(), seed=checked_seed(seed), frames_per_block=self.frames_per_block)

    def _begin(self, opening: Opening) -> Moment:
        """The moment that an opening describes; what a starting place comes to is computed once and kept."""
        told = self._told(opening, ())
        heard = self._heard(opening, told)
        if self.needs_picture or (opening.start is None and opening.given is None):
            decoder = self._filled(opening.seed, lambda _: None, heard)
            shown = self._past(opening)[0][-1].numpy() if opening.given else np.zeros((*self.size, 3), np.uint8)
            return Moment(decoder, self._home.codec.open(), None, shown, told)
        if opening.start in self._begun:
            state, codec_state, shown = self._begun[opening.start]
            decoder = self._filled(opening.seed, lambda decoder: decoder.resume(state), heard)
            return Moment(decoder, codec_state, None, shown, told)
        pixels, controls = (part.to(self.pool.device) for part in self._past(opening))
        shown = pixels[-1].cpu().numpy().copy()
        latents, _ = self._home.codec.encode(pixels, self._home.codec.open())
        # What encoding left behind may say nothing to decoding, which goes on behind these frames.
        _, codec_state = self._home.codec.decode(latents, self._home.codec.open())
        controls = controls[:: self._home.codec.group]
        decoder = self._filled(opening.seed, lambda decoder: decoder.prefill(latents[None], controls[None]), heard)
        if opening.start is not None:
            self._begun[opening.start] = decoder.state(), codec_state, shown
        return Moment(decoder, codec_state, None, shown, told)

    @property
    def _begins_from_nothing(self) -> bool:
        return self.plan.from_nothing and not len(self.origin.starts)

    def _told(self, opening: Opening, steps: Sequence[Step]) -> Told | None:
        """What a session of this world was told after those steps; None in a world that is told nothing."""
        if self._home.hear is None:
            return None
        told = first_told(opening.prompt or "")
        for step in steps:
            if step.prompt is not None:
                told = Told(text=step.prompt, before=told.text, since=step.block, over=step.over)
        return told

    def _past(self, opening: Opening) -> tuple[Tensor, Tensor]:
        """The frames that an opening begins from, uint8 [F, H, W, 3], and what steered them, [F, A]."""
        if opening.given is None:
            assert opening.start is not None
            return self.origin.starts.get(opening.start)
        array = np.frombuffer(opening.given.pixels, dtype=np.uint8).reshape(opening.given.shape)
        return torch.from_numpy(array.copy()), torch.tensor(self._steering(opening.given))

    def _heard(self, opening: Opening, told: Told | None, blocks: int = 0) -> Tensor | None:
        """What the last of so many blocks heard: of what it is told, or of the picture it began from; None of nothing.

        Raises:
            LogError: there is no such picture.
        """
        if self._sees is not None:
            if opening.given is None:
                raise LogError(f"that session of {opening.world} tells of no picture that it began from; it is damaged")
            return self._sees(opening.given)
        return None if told is None or self._home.hear is None else self._home.hear(told, max(0, blocks - 1))

    def _filled(self, seed: int, fill: Callable[[VideoDecoder], None], heard: Tensor | None) -> VideoDecoder:
        """A decoder that is given a past, and hears that.

        What sessions remember is forgotten for it where it has to be.
        """
        while True:
            decoder = VideoDecoder(self.backbone, self.pool, self.plan, seed)
            decoder.heard = heard
            try:
                fill(decoder)
                return decoder
            except PoolFull:
                decoder.close()
                if not self._home.histories.make_room():
                    raise

    def _live(self, log: SessionLog) -> Moment:
        self._check(log.opening)
        return relive(self._home, log, len(log.steps))

    def _check(self, opening: Opening) -> None:
        """Raise LogError unless sessions of this world are made as that one was."""
        check_lived(
            {"world": opening.world, "weights": opening.weights, **opening.plan},
            {"world": self.origin.name, "weights": self.origin.weights, **self._plan()},
        )

    def _session(self, moment: Moment, log: SessionLog, path: Path | str | None, coming: Coming | None) -> Session:
        """A session at that moment, with that log in a new file if there is a path; it holds nothing if that fails."""
        with ExitStack() as undo:
            undo.callback(moment.decoder.close)
            journal = None if path is None else Journal.begin(path, log)
            undo.pop_all()
        return Session(self._home, moment, log.opening, journal, coming)

    def _plan(self) -> dict[str, Any]:
        plan, storage = self.plan, self.pool.storage
        return {
            "frames_per_block": plan.frames_per_block,
            "sigmas": list(plan.sigmas),
            "sampler": getattr(plan.sampler, "__name__", repr(plan.sampler)),
            "policy": policy_text(plan.policy),
            "draw": plan.draw,
            "recall": plan.recall,
            # Left out of a log where they are as they were before there was a choice.
            **({"kv": storage_text(storage)} if storage else {}),
            **({} if plan.noise.is_plain else {"noise": noise_text(plan.noise)}),
            **({} if plan.clean_pass else {"clean_pass": False}),
            **({"on_prompt": prompt_change_text(plan.on_prompt)} if self.is_told else {}),
            **({"size": list(self.size)} if self.is_told or self.needs_picture else {}),
            **({"rolling": rolling_text(plan.rolling)} if plan.rolling else {}),
            **self.origin.chosen,
        }

    def _machine(self) -> dict[str, Any]:
        return {
            "torch": torch.__version__,
            "device": self.pool.device.type,
            "dtype": str(self.pool.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def _steering(self, given: Given) -> list[tuple[float, ...]]:
        """The numbers that steered given frames: at hours that lead up to that of the last."""
        if given.hour is None or self.controls.day is None:
            return [self.controls.vector(held) for held in given.keys]
        first = given.hour - len(given.keys) + 1
        return [self.controls.vector(held, (first + at) % self.controls.day) for at, held in enumerate(given.keys)]

    def _given(self, frames: NDArray[np.uint8], keys: Sequence[Iterable[str]] | None, hour: int | None) -> Given:
        height, width = self.size
        try:
            array = np.asarray(frames)
        except (ValueError, TypeError, RuntimeError) as error:  # ragged, or a tensor that numpy cannot look at
            raise ShapeError(
                f"frames are one array uint8 [F, {height}, {width}, 3], got {shown(frames)}; make one of a tensor with "
                ".detach().cpu().numpy()"
            ) from error
        if array.dtype != np.uint8 or array.ndim != 4 or not len(array) or array.shape[1:] != (height, width, 3):
            raise ShapeError(
                f"expected frames uint8 [F, {height}, {width}, 3] with F at least 1, "
                f"got {array.dtype} {list(array.shape)}; resize them, and cast levels of 0 to 255 to uint8"
            )
        held = [frozenset[str]()] * len(array) if keys is None else self._held(keys)
        if len(held) != len(array):
            raise ShapeError(f"{len(array)} frames need the keys held at each, got keys for {len(held)}; () is none")
        shape = (len(array), height, width, 3)
        if hour is not None:
            hour = self.controls.check_hour(whole(hour, "an hour is a frame of the day, a whole number"))
        return Given(pixels=np.ascontiguousarray(array).tobytes(), shape=shape, keys=tuple(held), hour=hour)

    def _check_picture(self, given: Given | None) -> None:
        """Raise ConfigError unless a world that needs a picture is given one, and nothing that was held at it."""
        if self.needs_picture and (given is None or len(given.keys) > 1 or given.keys[0]):
            height, width = self.size
            found = "nothing" if given is None else f"{len(given.keys)} frames and what was held at them"
            raise ConfigError(
                f"{self.origin.name} begins from one picture, before anything is held: pass it as frames=..., uint8 "
                f"[1, {height}, {width}, 3], which worldsim.published.fit_picture makes of a file, or as --image on "
                f"the command line; got {found}"
            )

    def _check_noise(self, given: Given | None) -> None:
        """Raise ConfigError if a first block would begin from a frame, and there is none."""
        if given is None and self._begins_from_nothing and not self.plan.noise.is_level:
            raise ConfigError(
                f"noise {noise_text(self.plan.noise)} begins a block from the frame before it, and a session that "
                "begins from nothing has none; begin from a picture, as frames=... or --image on the command line, or "
                "choose noise that is plain or shuffled"
            )

    def _held(self, keys: Sequence[Iterable[str]]) -> list[Keys]:
        """The keys held at each of some frames; errors as for `open`."""
        wanted = "keys of given frames are a set of names for each frame"
        try:
            held = list(keys)
        except TypeError as error:
            raise ConfigError(f"{wanted}, got {shown(keys)}") from error
        if not all(isinstance(now, Iterable) for now in held):
            raise ConfigError(f"{wanted}, got {shown(held)}")
        return [self.controls.check(now) for now in held]


def checked_seed(given: object) -> int:
    """The seed that was given; ConfigError with the range if it is none."""
    wanted = "a seed is a whole number from 0 to 2**64 - 1"
    seed = whole(given, wanted)
    if not 0 <= seed < 2**64:
        raise ConfigError(f"{wanted}, got {shown(seed)}")
    return seed
