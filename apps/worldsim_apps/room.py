"""One session that is played over connections: its player, its spectators, and the task that makes its blocks."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import deque
from contextlib import suppress
from dataclasses import asdict, replace
from time import monotonic
from typing import Any

from worldsim.errors import ProtocolError, WorldSimError
from worldsim.runtime.chunk import Chunk
from worldsim.session.events import Ack, Act, Codec, Control, Hello, Prompt
from worldsim.session.machine import Play, Sample
from worldsim.session.wire import Flag, Media
from worldsim_apps.encoding import ENCODERS, Encoder
from worldsim_apps.hall import Hall
from worldsim_apps.kept import size_of
from worldsim_apps.packing import pack
from worldsim_apps.stage import Stage, refusal_of, words_of
from worldsim_apps.viewer import Viewer

MOST_VERBS = 64
MOST_WAITING = 8
"""Frames that may wait for one who looks."""
KEPT_EVERY_S = 30
"""World time after which a session is saved again; what is newer has to be lived again after the server was killed."""
KEPT_GAP_S = 20
"""Real time between two such savings of a world that runs faster."""
LATE_S = 10.0
"""World time for which all blocks come late before that is logged."""
log = logging.getLogger(__name__)


class Room:
    """See the module. All methods run on the thread of the connections.

    Args:
        hall: which server.
        stage: the session.
        codec: what its player is sent.
        pace: world time for a second, 0 for as fast as it is acknowledged.
        awaited: whether it has a past that its first player knows, so that it is kept as if that had been seen here.
    """

    def __init__(self, hall: Hall, stage: Stage, codec: Codec, pace: float, *, awaited: bool = False) -> None:
        world = hall.engine.world
        self.name = secrets.token_hex(16)
        self.codec = codec
        self.waits_since: float | None = monotonic()
        self._hall = hall
        self._stage = stage
        self._world = world
        self._pace = pace
        self._awaited = awaited
        self._play = Play(world.frames_per_block / world.fps / pace if pace else 0.0, monotonic(), stage.block)
        self._play.connected = False
        self._first = self._play.acked
        self._tokens: list[str] = []
        self._player: Viewer | None = None
        self._spectators: set[Viewer] = set()
        self._encoders: dict[Codec, Encoder] = {}
        self._unacked: deque[tuple[int, list[Media]]] = deque()
        self._verbs: deque[tuple[Viewer, Control | Prompt]] = deque()
        self._lookers: set[Viewer] = set()
        self._acted: dict[int, float] = {}
        self._seq = self._late = 0
        self._failed = ""
        self._changed = asyncio.Event()
        self._over = False
        self._obeys = False
        self._ending: asyncio.Task[None] | None = None
        self._farewell = (4410, "ended")
        self._keeping: asyncio.Task[None] | None = None
        self._kept_at = -float(KEPT_GAP_S)
        stage.wanted = self._lives_again
        self._expiry = asyncio.get_running_loop().call_later(hall.resume_s, self._expire)
        hall.rooms[self.name] = self
        self._drive = asyncio.create_task(self._run())
        self._drive.add_done_callback(self._ended)

    @property
    def state(self) -> str:
        """What the session does: "live", "paused", or "waiting" for a player who was lost."""
        return "waiting" if self._player is None else "paused" if self._play.paused else "live"

    @property
    def may_end(self) -> bool:
        """Whether it only waits for a player who was lost, so that another may have its place."""
        return self.waits_since is not None and not self._obeys and not self.is_ending

    @property
    def is_ending(self) -> bool:
        """Whether nobody can enter any more."""
        return self._ending is not None

    def enter(self, viewer: Viewer) -> None:
        """The first player, or another who was let in by a token."""
        if self._player is not None:
            self._player.close(4409, "replaced")
        self._player, self.waits_since = viewer, None
        self._expiry.cancel()
        self._play.connected = True
        self._play.hear(monotonic())
        viewer.tell("started", session=self.name, resume=self.new_token(), seq=self._seq, **self._situation())
        self._tell_spectators()
        self._changed.set()

    @property
    def _was_seen(self) -> bool:
        """Whether a player has shown that frames arrive, so that there is something to come back to."""
        return self._awaited or self._has_news

    @property
    def _has_news(self) -> bool:
        """Whether anything has happened in it that a player knows of; what it began from is kept already."""
        return self._play.epoch > 0 or self._play.acked > self._first

    def _is_token(self, given: str) -> bool:
        return any(hmac.compare_digest(_bytes(given), _bytes(token)) for token in self._tokens)

    def new_token(self) -> str:
        """The token that the next connection of its player needs."""
        self._tokens.append(secrets.token_urlsafe(32))
        return self._tokens[-1]

    def come_back(self, viewer: Viewer, hello: Hello) -> None:
        """A player whose connection was lost goes on, from the first block that has not arrived.

        Raises:
            ProtocolError: the token is not the one that was given last, or what has arrived cannot have.
        """
        if not self._is_token(hello.resume):
            raise ProtocolError("bad_token", "that token does not resume this session; it is good for once", close=3000)
        self._tokens = [hello.resume]
        if self.codec not in hello.codecs:
            raise ProtocolError("no_codec", f"this session is sent as {self.codec}; say so in codecs", close=4400)
        if hello.epoch == self._play.epoch:
            self._play.ack(Ack(epoch=hello.epoch, blocks=hello.blocks))
            self._prune()
        self.enter(viewer)
        self._tell_failed()
        self._tell_film(viewer)
        for _, block in self._unacked:
            viewer.show([replace(media, flags=media.flags | Flag.AGAIN) for media in block])

    def watch(self, viewer: Viewer) -> None:
        """One more spectator."""
        self._spectators.add(viewer)
        viewer.tell("watching", session=self.name, **self._situation())

    def leave(self, viewer: Viewer, *, said_bye: bool = False) -> bool:
        """That connection is gone; returns whether it was the player's.

        A player is waited for if it has ever shown that frames arrive and did not say that it is done.
        """
        self._spectators.discard(viewer)
        if viewer is not self._player:
            return False
        self._player, self.waits_since = None, monotonic()
        self._play.connected = False
        if not said_bye:
            self._tell_spectators()
        if not self.is_ending:
            wait = self._hall.resume_s if self._was_seen else 0.0
            self._expiry = asyncio.get_running_loop().call_later(wait, self._expire)
        return True

    def act(self, action: Act) -> None:
        """The player holds other keys; UnknownName for a key that the world does not understand."""
        self._play.act(action, self._world.controls.check(action.keys))
        self._seq = max(self._seq, action.seq)
        if len(self._acted) < MOST_VERBS:
            self._acted[action.seq] = monotonic()

    def hear(self, ack: Ack | None = None) -> None:
        """The player said something, perhaps that blocks have arrived."""
        self._play.hear(monotonic())
        self._tokens = self._tokens[-1:]  # the newest has arrived; those before it were only good until then
        if ack is not None:
            self._play.ack(ack)
            self._prune()
            self._changed.set()

    def ask(self, viewer: Viewer, verb: Control | Prompt) -> None:
        """Do that between two blocks."""
        if _is_look(verb):
            if viewer in self._lookers or viewer.waiting > MOST_WAITING:
                raise ProtocolError("too_fast", "one look at a time; wait for its answer")
            self._lookers.add(viewer)
        elif sum(not _is_look(one) for _, one in self._verbs) >= MOST_VERBS:
            raise ProtocolError("too_fast", f"{MOST_VERBS} verbs wait to be done; wait for their answers", close=4429)
        self._verbs.append((viewer, verb))
        self._changed.set()

    async def end(self, *, save: bool = True) -> None:
        """Stop after the block that is being made; keep the world if that is wanted, and give its place back."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(save=save))
        await asyncio.shield(self._ending)

    async def _end(self, *, save: bool) -> None:
        self._over = True
        self._changed.set()
        self._expiry.cancel()
        await asyncio.wait([self._drive])
        for viewer in self._everybody():
            viewer.close(*self._farewell)
        try:
            if self._keeping is not None:
                await asyncio.wait([self._keeping])
            if save and (self._has_news or self._awaited):
                await self._put_away()
        finally:
            await self._leave_stage()

    async def _leave_stage(self) -> None:
        """Give the place back, whatever goes wrong with the files."""
        try:
            await (self._stage.close() if self._was_seen else self._stage.forget())
        except (WorldSimError, OSError):
            log.exception("%s did not end as it should", self._stage.world)
        finally:
            self._hall.rooms.pop(self.name, None)
            self._hall.ended.append(self.name)

    async def drain(self) -> None:
        """Keep the world and send everybody away, since the server stops."""
        player, self._player = self._player, None
        self._farewell = (1012, "restart")
        try:
            await self.end()
        finally:
            if player is not None:
                self._tell_film(player)
                if self._was_seen and self._hall.kept.holds(self._stage.world):
                    player.tell("drain", world=self._stage.world)
                player.close(1012, "restart")
                await player.done()

    def _everybody(self) -> list[Viewer]:
        return [*self._spectators, *([self._player] if self._player else [])]

    def _expire(self) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(save=True))

    def _ended(self, drive: asyncio.Task[None]) -> None:
        """Whatever ends the task, the session does not stay behind."""
        if not drive.cancelled() and (error := drive.exception()) is not None:
            log.error("session stopped", exc_info=error)
            if self._player is not None:
                self._player.close(1011, "defect")
            self._expire()

    def _situation(self) -> dict[str, Any]:
        play = self._play
        return {
            "epoch": play.epoch,
            "blocks": play.made,
            "paused": play.paused,
            "waiting": self._player is None,
            "world": self._stage.world,
            "exact": self._stage.exact,
            "recording": self._stage.recording,
            "film": self._stage.film,
            "prompt": self._stage.prompt,
            "left_out": self._hall.engine.world.left_out(self._stage.prompt or ""),
            **({"damage": self._stage.damage} if self._stage.damage else {}),
        }

    async def _run(self) -> None:
        while not self._over:
            self._changed.clear()
            while self._verbs and not self._over:
                await self._obey(*self._verbs.popleft())
            wait = self._play.due_in(monotonic())
            if wait == 0.0 and not self._over:
                await self._block()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    async def _block(self) -> None:
        began = monotonic()
        sample = self._play.begin(began)
        made = asyncio.ensure_future(self._stage.step(sample.keys))
        await asyncio.wait([made])
        if made.cancelled() or (error := made.exception()) is not None:
            self._fail("no block" if made.cancelled() else words_of(error))
            return
        ready = monotonic()
        shown = asyncio.ensure_future(self._hall.encode(lambda: self._encode(made.result(), sample)))
        await asyncio.wait([shown])
        if (error := shown.exception()) is not None:
            self._encoders.clear()
            await self._stage.take_back()
            self._fail(words_of(error))
            return
        self._play.finish()
        self._note_late(monotonic() - began)
        stages = {**made.result().seconds, "encode": monotonic() - ready}
        stages["wait"] = max(0.0, monotonic() - began - sum(stages.values()))
        for stage, seconds in stages.items():
            self._hall.gauges.block.labels(stage).observe(seconds)
        self._publish(shown.result(), made.result().block, sample)
        self._tell_film(self._player)

    def _note_late(self, took_s: float) -> None:
        """Log once for a server that blocks of worlds that keep real time take longer than they show."""
        period_s = self._play.period
        self._late = self._late + 1 if self._pace <= 1 and took_s > period_s > 0 else 0
        if self._late * period_s > LATE_S and not self._hall.late.is_set():
            self._hall.late.set()
            log.warning(
                "blocks of %.0f ms take %.0f: this machine cannot keep %d worlds in real time, so they run slower; "
                "bound how many are played with --max-sessions",
                1000 * period_s,
                1000 * took_s,
                len(self._hall.rooms),
            )

    def _publish(self, shown: dict[Codec, list[Media]], block: int, sample: Sample) -> None:
        self._failed = ""
        self._unacked.append((block, shown[self.codec]))
        for viewer in self._everybody():
            if viewer.codec in shown:
                viewer.show(shown[viewer.codec])
        self._keep(block + 1)
        for seq in [seq for seq in self._acted if seq <= sample.action]:
            heard = self._acted.pop(seq)
            if seq == sample.action:
                self._hall.gauges.action.observe(monotonic() - heard)

    def _keep(self, blocks: int) -> None:
        """Save the session now and then while it goes on."""
        every = max(1, KEPT_EVERY_S * self._world.fps // self._world.frames_per_block)
        is_free = self._keeping is None or self._keeping.done()
        if blocks % every == 0 and is_free and self._was_seen and monotonic() - self._kept_at >= KEPT_GAP_S:
            self._kept_at = monotonic()
            self._keeping = asyncio.create_task(self._put_away())

    async def _put_away(self) -> None:
        try:
            await self._stage.put_away()
        except (WorldSimError, OSError):
            log.exception("%s could not be saved; its log is all that is kept of it", self._stage.world)

    def _lives_again(self, done: int, of: int) -> bool:
        if self._player is not None:
            self._player.tell_progress(done, of)
        return not self._over

    def _encode(self, chunk: Chunk, sample: Sample) -> dict[Codec, list[Media]]:
        codecs = {self.codec, *(viewer.codec for viewer in tuple(self._spectators))}
        return {codec: self._pack(self._encoder(codec), chunk, sample) for codec in codecs}

    def _encoder(self, codec: Codec) -> Encoder:
        if codec not in self._encoders:
            self._encoders[codec] = ENCODERS[codec](self._world.size, self._world.fps)
        return self._encoders[codec]

    async def _look(self, viewer: Viewer) -> None:
        """Show one viewer what the world looks like now, beside its blocks."""
        now = Chunk(frames=(await self._stage.look())[None], block=max(0, self._stage.block - 1), keys=frozenset())
        encoder, sample = self._encoder(viewer.codec), Sample(frozenset(), 0)
        (media,) = await self._hall.encode(lambda: self._pack(encoder, now, sample))
        viewer.show([replace(media, flags=media.flags | Flag.STILL)])

    def _pack(self, encoder: Encoder, chunk: Chunk, sample: Sample) -> list[Media]:
        return pack(encoder, chunk, self._world, epoch=self._play.epoch, action=sample.action)

    def _fail(self, why: str) -> None:
        """The block was taken back; the world stands still until the player says to go on."""
        self._hall.gauges.failed.inc()
        self._play.pause()
        self._failed = why
        self._tell_failed()
        self._tell_spectators()

    def _tell_failed(self) -> None:
        """Tell the player that the next block failed, if it did, even while nobody was there."""
        if self._failed and self._player is not None:
            self._player.tell("error", code="block_failed", message=self._failed, retryable=True, **self._situation())

    def _prune(self) -> None:
        while self._unacked and self._unacked[0][0] < self._play.acked:
            self._unacked.popleft()

    async def _obey(self, viewer: Viewer, verb: Control | Prompt) -> None:
        self._obeys = True
        try:
            kind, values = await (self._do(viewer, verb) if isinstance(verb, Control) else self._hear_of(verb))
            viewer.tell(kind, **values)
            if kind == "state" and viewer.role == "player" and self._player not in (None, viewer):
                self._player.tell(kind, **values)  # the player was replaced while the verb was done
        except ProtocolError as error:
            error.close = None  # the session is as it was, such as one that is full for a fork
            viewer.refuse(error, _type_of(verb))
        except (WorldSimError, OSError) as error:
            viewer.refuse(refusal_of(error), _type_of(verb))
        finally:
            self._obeys = False
            self._lookers.discard(viewer)
        self._tell_film(self._player)

    def _tell_film(self, viewer: Viewer | None) -> None:
        """Tell the player, if there is one, of a film that ended by itself."""
        if (film := self._stage.ended_film) is not None and viewer is not None:
            self._stage.ended_film = None
            viewer.tell("film", **asdict(film))

    async def _hear_of(self, prompt: Prompt) -> tuple[str, dict[str, Any]]:
        """Tell the world, from the next block on; gives the type and the fields of the answer."""
        self._hall.check_told()
        await self._stage.tell(prompt.text, prompt.over)
        self._tell_spectators()
        return "state", self._situation()

    async def _do(self, viewer: Viewer, verb: Control) -> tuple[str, dict[str, Any]]:
        """Do it and give the type and the fields of the answer."""
        stage, play = self._stage, self._play
        match verb.op:
            case "pause":
                play.pause()
                self._tell_spectators()
            case "resume":
                play.resume(monotonic())
                self._tell_spectators()
            case "step" if not play.paused:
                raise ProtocolError("not_paused", "a world is stepped while it is paused; say pause first")
            case "step":
                play.allow(verb.blocks)
            case "look":
                await self._look(viewer)
            case "map":
                return "map", await stage.map()
            case "mark":
                return "marked", {"mark": await stage.mark(), "block": stage.block}
            case "record" if verb.on:
                return "recording", {"film": await stage.record()}
            case "record":
                return "recorded", asdict(await stage.end_film())
            case "film":
                path = self._hall.kept.film(verb.world)
                is_made = any(room._stage.recording == verb.world for room in self._hall.rooms.values())
                if is_made or not viewer.send(path):
                    raise ProtocolError("no_film", f"there is no whole film {verb.world!r}; `recorded` named it")
                return "sending", {"name": verb.world, "bytes": size_of(path)}
            case "save":
                block = stage.block
                return "saved", {"world": await stage.save(), "block": block}
            case "fork":
                branch = await stage.fork()
                twin = Room(self._hall, branch, self.codec, self._pace, awaited=branch.block > 0)
                return "forked", {"session": twin.name, "resume": twin.new_token(), "world": branch.world}
            case "rewind":
                await (stage.rewind(verb.blocks) if verb.mark is None else stage.go_to(verb.mark))
                self._jump()
            case "load":
                await stage.become(await Stage.load(self._hall, verb.world, instead=True, wanted=stage.wanted))
                self._jump()
            case "reset":
                self._hall.check_start(verb.start)
                anew = {"seed": verb.seed, "start": verb.start, **await stage.again(verb.prompt, verb.image)}
                await stage.become(await Stage.open(self._hall, stage.owner, instead=True, **anew))
                self._jump()
        return "state", self._situation()

    def _jump(self) -> None:
        """Nothing that was sent or waits counts any more."""
        self._failed = ""
        self._play.jump(self._stage.block)
        self._unacked.clear()
        for viewer in self._everybody():
            viewer.forget()
        self._tell_spectators()

    def _tell_spectators(self) -> None:
        for spectator in self._spectators:
            spectator.tell("state", **self._situation())


def _is_look(verb: Control | Prompt) -> bool:
    return isinstance(verb, Control) and verb.op == "look"


def _type_of(verb: Control | Prompt) -> str:
    """What messages are called that ask for it."""
    return "control" if isinstance(verb, Control) else "prompt"


def _bytes(token: str) -> bytes:
    return token.encode(errors="surrogatepass")
