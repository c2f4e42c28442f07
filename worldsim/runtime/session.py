"""A live world: what is made next depends on the keys held now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from worldsim.cache.sight import Sight
from worldsim.controls import Controls, Keys
from worldsim.decoding.video import VideoState
from worldsim.errors import ConfigError, NotReproduced, PoolFull, SessionClosed, SessionPaused, SpillError, shown, whole
from worldsim.files import path_of
from worldsim.interrupts import undivided
from worldsim.models.protocol import Codec
from worldsim.runtime.batching import step_together
from worldsim.runtime.busy import Busy
from worldsim.runtime.chunk import Chunk, Frames
from worldsim.runtime.history import Histories, History, Moment
from worldsim.runtime.journal import Journal
from worldsim.runtime.land import Colours, Land, land_of
from worldsim.runtime.mark import Mark, kept_beside
from worldsim.runtime.notebook import SHOWN_S, Recent, film_html, note_html
from worldsim.runtime.recording import Recording
from worldsim.runtime.snapshot import Keep, Snapshot, check_keep, write_snapshot
from worldsim.runtime.subtitles import held_text
from worldsim.runtime.voice import kept_prompt
from worldsim.session.log import Opening, Record, SessionLog, Step, Trail, detour
from worldsim.session.prompt import Coming, Told, check_over


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Home:
    """What all sessions of a world share.

    begin: the moment that an opening describes.
    longest: blocks that a session can go back at once.
    size: (height, width) of a frame in pixels.
    fps: frames in one second of world time.
    hear: what a block hears of what its session is told; None if the world is told nothing.
    """

    codec: Codec[Any]
    controls: Controls
    begin: Callable[[Opening], Moment]
    longest: int
    size: tuple[int, int]
    fps: int
    hear: Callable[[Told, int], Tensor] | None = None
    histories: Histories = field(default_factory=Histories)
    colours: Colours = field(default_factory=Colours)


class Session:
    """One world being lived in. Made by World.open; a context manager.

    Equal worlds, seeds, starts and keys give equal frames, bit for bit, on one machine and number of threads.
    One thread at a time uses it; another is refused.

    coming: what it was told and no block has heard yet; None if there is nothing of that.
    """

    def __init__(
        self, home: Home, moment: Moment, opening: Opening, journal: Journal | None, coming: Coming | None = None
    ) -> None:
        self.coming = coming
        self._home = home
        self._moment = moment
        self._beside: VideoState | None = None
        self._opening = opening
        self._journal = journal
        self._history: History = home.histories.open(home.longest)
        self._recent = Recent(SHOWN_S * home.fps)
        self._recordings: list[Recording] = []
        self._line = object()
        self._busy = Busy()
        self._paused = False
        self._closed = False

    @property
    def block(self) -> int:
        """How many blocks have been made, which is the number of the next."""
        return self._moment.block

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages of the pool that it holds, what it remembers included, each once for every reference."""
        return (*self._moment.decoder.context.pages, *self._history.pages)

    @property
    def paused(self) -> bool:
        """Whether it was paused."""
        return self._paused

    @property
    def log(self) -> SessionLog:
        """What it began from and every block since; what was rewound is left out."""
        trail = self._moment.trail
        return SessionLog(opening=self._opening, steps=trail.steps() if trail else ())

    @property
    def remembered(self) -> int:
        """How many blocks it can go back at once; what lies further back has to be lived again."""
        return len(self._history)

    @property
    def seen(self) -> Sight:
        """What its newest block saw of the past; nothing before the first block and of a session that was restored.

        Frames are numbered from the first that it made, which is 0; those below 0 are what it began from.
        """
        decoder = self._moment.decoder
        made = decoder.blocks * decoder.plan.frames_per_block
        return decoder.sight.counted_from(decoder.context.next_frame - made) if made else Sight()

    @property
    def latest(self) -> Step | None:
        """What the log says of the newest block."""
        return None if self._moment.trail is None else self._moment.trail.step

    def step(self, keys: Iterable[str] = ()) -> Chunk:
        """Make the next block with these keys held.

        Args:
            keys: W3C `event.code` names, of those in World.keys; none means wait.

        Raises:
            UnknownName: a key that the world does not understand; nothing was made.
            ConfigError: what is given are no keys; nothing was made.
            PoolFull: no memory for another block under this policy; nothing was made.
            SessionBusy: another thread is using the session; nothing was made.
            SessionPaused: the session is paused.
            SessionClosed: the session was closed.
            LogError: somebody else has deleted or changed the log; nothing was made.
            OSError: the log could not be written; nothing was made.
        """
        return step_together([self], [keys])[0].result()

    def _check(self, keys: Iterable[str]) -> Keys:
        """The keys, if a step under them can be made; errors as for `step`."""
        held = self._home.controls.check(keys)
        self._check_open()
        if self._paused:
            raise SessionPaused("this session is paused; resume it before the next step")
        self._come_back()
        return held

    def _adopt(self, after: Moment, before: Moment) -> None:
        """Go on from the moment after a step that was logged, and remember the one before it."""
        self._moment = after
        self._history.add(before)

    def _show(self, step: Step, frames: Frames) -> None:
        """Hand on the frames of a block that was just made; whatever comes of them, the block stays."""
        self._recent.add(step, frames)
        for recording in self._recordings:
            recording.take(frames, step.keys)

    def _take(self, moment: Moment) -> None:
        """Go on from another moment."""
        self._moment.decoder.close()
        self._moment = moment
        self._beside = None

    def _come_back(self) -> None:
        """Hold the present in the pool again if a rewind that failed left it beside; PoolFull if there is no room."""
        while self._beside is not None:
            try:
                self._moment.decoder.resume(self._beside)
                self._beside = None
            except PoolFull:
                if not self._home.histories.make_room():
                    raise

    def look(self) -> Frames:
        """What the world looks like now: the newest frame, uint8 [H, W, 3]."""
        self._check_open()
        return self._moment.shown.copy()

    def land(self) -> Land | None:
        """The places that it remembers, seen from above; None if its world remembers no places."""
        self._check_open()
        chart = self._moment.decoder.chart()
        return None if chart is None else land_of(chart, self._home.codec, self._home.colours)

    def mark(self) -> Mark:
        """This moment, to rewind to, with a prompt that no block has heard yet. No key or value is copied."""
        with self._busy:
            self._check_open()
            self._come_back()
            return Mark(self._line, self._moment.fork(), self._home.histories, self.coming)

    def rewind(self, to: Mark | int) -> None:
        """Go back to a moment of this session, or over to one of a session that forks connect with it.

        A mark of a fork, of what this was forked from or of another fork of that may lie in a future that this session
        never had: it then goes on from there, and its log says so. The same keys make the same frames again as after
        the mark was set, and a mark can be used again. A prompt that no block had heard then is still to be heard, and
        one that was set later is forgotten; going back some blocks leaves it alone.

        Args:
            to: a mark, or how many blocks to go back. The blocks of the last 60 s of world time are remembered while
                the pool has room; what lies further back is lived again from the beginning, which takes as long as
                it took then. So is what was lost on disk.

        Raises:
            ConfigError: the mark is of a session that no fork connects with this one, so many blocks have not been
                made, or it is neither a mark nor a number of blocks.
            SessionClosed: the mark or the session was closed.
            PoolFull: the mark's memory had to leave the pool, and there is no room for it to come back; nothing has
                changed. If the present finds no room any more either, it waits beside the pool, and whatever needs it
                there raises PoolFull until there is some.
            SpillError: no room could be made, since pages cannot be moved to disk; as for PoolFull.
            NotReproduced: a moment that had to be lived again did not come out the same; nothing has changed.
        """
        self._check_open()
        with self._busy, ExitStack() as undo:
            moment = self._marked(to, undo) if isinstance(to, Mark) else self._back(to)
            with undivided():
                self._write(*detour(self._moment.trail, moment.trail))
                undo.pop_all()
                self._history.keep_before(moment)
                self._take(moment)
                self.coming = to._coming if isinstance(to, Mark) else self.coming
                self._recent.back_to(self.latest)

    def forget(self) -> None:
        """Give up the memory of what it can go back to at once; from now on that has to be lived again."""
        self._check_open()
        self._history.clear()

    def fork(self, *, log: Path | str | None = None) -> Session:
        """A second session that begins with this one's past, remembers as much of it and goes its own way.

        It hears a prompt that no block has heard yet, as this one does.

        Args:
            log: a new file for its log, as for World.open.
        """
        with self._busy:
            self._check_open()
            self._come_back()
            journal = None if log is None else Journal.begin(log, self.log)
            twin = Session(self._home, self._moment.fork(), self._opening, journal, self.coming)
            twin._line = self._line
            twin._history = self._home.histories.fork(self._history)
            twin._recent = self._recent.copy()
            return twin

    def save(self, path: Path | str, *, keep: Keep = "pages") -> None:
        """Write it to a file that `worldsim.restore` reads; the file saved before stays beside it.

        Args:
            path: of the file.
            keep: as for `snapshot`.

        Raises:
            ConfigError: no such keep, a codec whose state cannot be written, or it is no path, or of no file.
            SessionClosed: the session was closed.
            OSError: it could not be written; what was there stays.
        """
        write_snapshot(path, self.snapshot(keep=keep))

    def snapshot(self, *, keep: Keep = "pages") -> Snapshot:
        """All that `save` writes, copied, so that another thread can write it.

        Args:
            keep: "log" (small; restoring lives it again), "latents" (restoring goes on at once, and about the same) or
                "pages" (large; restoring goes on at once, bit for bit).

        Raises:
            ConfigError: no such keep.
            SessionClosed: the session was closed.
        """
        with self._busy:
            return self._snapshot(keep, self.log)

    def outline(self) -> tuple[Snapshot, int]:
        """As `snapshot`, but without the steps of its log: those are the first so many bytes of its log file.

        It takes as long for a long life as for a short one.

        Raises:
            ConfigError: it writes no log file.
            SessionClosed: the session was closed.
        """
        self._check_open()
        if self._journal is None:
            raise ConfigError("this session writes no log file; take a snapshot, or open it with log=...")
        return self._snapshot("pages", SessionLog(opening=self._opening, steps=())), self._journal.size

    def _snapshot(self, keep: Keep, log: SessionLog) -> Snapshot:
        self._check_open()
        check_keep(keep)
        state = None if keep == "log" else self._beside or self._moment.decoder.state(pages=keep == "pages")
        if state is not None and keep == "latents":
            state = state.without_pages()
        codec_state, shown = (None, None) if keep == "log" else (self._moment.codec_state, self._moment.shown)
        return Snapshot(keep=keep, log=log, state=state, codec_state=codec_state, shown=shown, coming=self.coming)

    def record(self, path: Path | str) -> Recording:
        """Write what it shows from the next block on to an MP4 file, with the keys held as subtitles.

        The recording ends when it is closed or the session is. After a rewind it goes on with what is shown next. A
        file that cannot be written any more ends the recording and not the session: what is in the file plays, and
        whichever of the two is closed first raises what went wrong. Encoding is part of the step: some milliseconds.

        Args:
            path: of the file, ending in .mp4; missing folders are made, a file that exists is replaced.

        Raises:
            ConfigError: another name, the log of a session, or it is being recorded to that file already.
            MissingDependency: this build of PyAV cannot encode H.264.
            VideoError: the file cannot be opened.
            SessionClosed: the session was closed.
        """
        self._check_open()
        path = path_of(path, "path")
        self._recordings = [recording for recording in self._recordings if not recording.over]
        if any(os.path.realpath(recording.path) == os.path.realpath(path) for recording in self._recordings):
            raise ConfigError(f"this session is being recorded to {path} already; close that recording first")
        recording = Recording(path, size=self._home.size, fps=self._home.fps)
        self._recordings.append(recording)
        return recording

    @property
    def prompt(self) -> str | None:
        """What its next block is told to show; None if its world is steered by keys alone."""
        told = self._moment.told
        return self.coming[0] if self.coming else None if told is None else told.text

    def set_prompt(self, text: str, *, over: int = 1) -> None:
        """Tell the world something in words, from the next block on; the log says so as soon as that is made.

        Until then marks, forks and what is saved have it, and a log alone does not. What becomes of the past is up to
        `load(on_prompt=...)`.

        Args:
            text: what is to be shown; of more than 4,000 characters the end is left out, and that is logged.
            over: blocks until it is heard alone; until then each hears a mean of both, with more and more of it.

        Raises:
            ConfigError: the world is steered by keys alone, as the bundled ones are; or it is no text.
            SessionClosed: the session was closed.
        """
        self._check_open()
        if self._home.hear is None:
            world = self._opening.world
            raise ConfigError(f"{world} is steered by keys alone and has no prompt to set to {shown(text)}")
        self.coming = (kept_prompt(text), check_over(over))

    def pause(self) -> None:
        """Make no block until it is resumed. Pausing twice is fine."""
        self._check_open()
        self._paused = True

    def resume(self) -> None:
        """Go on after a pause."""
        self._check_open()
        self._paused = False

    def close(self) -> None:
        """Give the memory back and end its recordings. Closing twice is fine.

        Raises:
            VideoError: a recording could not be written to its end; the session is closed.
        """
        with ExitStack() as ends:
            for recording in self._recordings:
                ends.callback(recording.close)
            self._closed = True
            self._moment.decoder.close()
            self._beside = None
            self._history.clear()
            self._recent.clear()
            if self._journal is not None:
                self._journal.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "paused" if self._paused else "open"
        return f"<Session of {self._opening.world}: seed {self._opening.seed}, next block {self.block}, {state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: its last seconds, or the present alone where no more is known."""
        if self._closed:
            return note_html(f"a session of {self._opening.world}, closed after {self.block} blocks; open another")
        held = held_text(self.latest.keys if self.latest else ()) or "none"
        caption = f"{self._opening.world}, seed {self._opening.seed}, {self.block} blocks, keys held last: {held}"
        frames = self._recent.frames
        return film_html(self.look()[None] if frames is None else frames, fps=self._home.fps, caption=caption)

    def _marked(self, mark: Mark, undo: ExitStack) -> Moment:
        """The marked moment; what was done for it is undone unless the session goes on from there."""
        if mark._owner is not self._line:
            raise ConfigError(
                "that mark is of another session, which no fork connects with this one; rewind the session that made "
                "it, one that was forked from that, or the one that it was forked from"
            )
        if mark._lost or mark._moment.lost:
            return self._lived_again(mark._moment.trail)
        while True:
            try:
                return mark._again()
            except PoolFull:
                if self._home.histories.make_room():
                    continue
                if self._beside is not None:
                    raise
                return self._changed_places(mark, undo)

    def _changed_places(self, mark: Mark, undo: ExitStack) -> Moment:
        """The marked moment in the pages of the present, which comes back, as soon as it can, if they are too few."""
        self._beside = kept_beside(self._moment.decoder)
        undo.callback(self._come_back_if_there_is_room)
        self._moment.decoder.close()
        moment = mark._again()
        undo.callback(moment.decoder.close)
        return moment

    def _come_back_if_there_is_room(self) -> None:
        with suppress(PoolFull, SpillError):
            self._come_back()

    def _lived_again(self, trail: Trail | None) -> Moment:
        """The moment that a trail of this line leads to, made again from the beginning; errors as for `relive`."""
        steps = trail.steps() if trail else ()
        log = SessionLog(opening=self._opening, steps=steps)
        return replace(relive(self._home, log, len(steps)), trail=trail)

    def _back(self, to: int) -> Moment:
        blocks = whole(to, "a session is rewound to a mark, or by a number of blocks")
        if not 0 <= blocks <= self.block:
            raise ConfigError(
                f"{self.block} blocks have been made; go back 0 to {self.block} of them, not {shown(blocks)}"
            )
        wanted = self.block - blocks
        if not blocks:
            self._come_back()
        remembered = self._moment if not blocks else self._history.at(wanted)
        if remembered is not None and not remembered.lost:
            return remembered.fork()
        return relive(self._home, self.log, wanted)

    def _write(self, *records: Record) -> None:
        if self._journal is not None and records:
            self._journal.append(*records)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("this session was closed; open another")


def relive(
    home: Home,
    log: SessionLog,
    blocks: int,
    *,
    verify: bool = True,
    on_chunk: Callable[[Chunk], None] | None = None,
) -> Moment:
    """The moment at which so many blocks of a log had been made, by making them again.

    Args:
        home: of the world it was of.
        log: what happened.
        blocks: how many of them to make.
        verify: compare each with what was recorded of it.
        on_chunk: told of every block.

    Raises:
        NotReproduced: a block came out otherwise than it was recorded.
    """
    session = Session(replace(home, longest=0), home.begin(log.opening), log.opening, None)
    with ExitStack() as undo:
        undo.callback(session.close)
        for recorded in log.steps[:blocks]:
            if recorded.prompt is not None:
                session.set_prompt(recorded.prompt, over=recorded.over)
            chunk = session.step(recorded.keys)
            if verify and cast(Trail, session._moment.trail).step != recorded:
                raise NotReproduced(
                    f"block {recorded.block} came out otherwise than it was recorded on {dict(log.opening.machine)}; "
                    "live it again on such a machine, with that library and as many threads; what was made beside "
                    "other sessions was rounded together with them and comes out otherwise alone"
                )
            if on_chunk is not None:
                on_chunk(chunk)
        undo.pop_all()
    return session._moment
