"""One frame on its way to a viewer: a binary message of 40 bytes or more that say what it is, and then its picture.

    offset  0  u8   opcode, 1: a frame
            1  u8   length of the header in units of 4 bytes; a reader skips what it does not know
            2  u16  flags: 1 can be shown without any frame before it; 2 first of its block; 4 last of it;
                    8 sent again after a connection was lost; 16 what the world looks like now, and no block
            4  u32  epoch, which rises when time jumps (a rewind, a load, a reset)
            8  u32  number of the block
           12  u16  number of the frame in its block
           14  u16  frames in the block
           16  u64  microseconds of world time since the session began
           24  u32  number of the message on this connection, from 0
           28  u32  seq of the newest action in the block; 0 is none
           32  u8   codec: 0 raw (RGB, a byte each), 1 JPEG, 4 H.264 (an access unit, Annex B)
           33  u8   0
           34  u16  width
           36  u16  height
           38  u16  how many runs of frames follow, that its block saw of the past; 0 for who did not ask to be told
           40  for each run, ascending: i32 its first frame, u32 how many frames, and 2^31 more where they were
               retrieved; frames are numbered from the first of the session, which is 0, and those below 0 are what
               it began from

A film comes in pieces, each a binary message of 24 bytes that say where it belongs, and its bytes behind them.

    offset  0  u8   opcode, 2: a piece of a film
            1  u8   length of the header in units of 4 bytes
            2  u16  flags: 4 last
            4  u32  0
            8  u64  where in the film it begins
           16  u64  bytes of the whole film

All numbers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag

from worldsim.errors import ProtocolError

HEADER = struct.Struct("<BBHIIHHQIIBBHHH")
RUN = struct.Struct("<iI")
RETRIEVED = 1 << 31
"""What is added to the number of frames of a run that was retrieved."""
MOST_RUNS = (4 * 255 - HEADER.size) // RUN.size
"""As many as a header has room for; of more the newest are told."""
FRAME = 1
PIECE_HEADER = struct.Struct("<BBHIQQ")
PIECE = 2
CODECS = {"raw": 0, "jpeg": 1, "h264": 4}
NAMES = {number: name for name, number in CODECS.items()}


class Flag(IntFlag):
    """See the module."""

    KEY = 1
    FIRST = 2
    LAST = 4
    AGAIN = 8
    STILL = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """One frame with what is known of it. The fields are those of the header; see the module.

    seen: runs of frames, and of each whether it was retrieved.
    """

    flags: Flag
    epoch: int
    block: int
    frame: int
    frames: int
    time_us: int
    number: int
    action: int
    codec: str
    width: int
    height: int
    payload: bytes
    seen: tuple[tuple[range, bool], ...] = ()

    def encode(self) -> bytes:
        """The message."""
        runs = self.seen[-MOST_RUNS:]
        return (
            HEADER.pack(
                FRAME,
                (HEADER.size + RUN.size * len(runs)) // 4,
                self.flags,
                self.epoch,
                self.block,
                self.frame,
                self.frames,
                self.time_us,
                self.number,
                self.action,
                CODECS[self.codec],
                0,
                self.width,
                self.height,
                len(runs),
            )
            + b"".join(_packed(*run) for run in runs)
            + self.payload
        )

    @classmethod
    def decode(cls, message: bytes) -> Media:
        """Read what `encode` wrote, or a later version of it with a longer header.

        Raises:
            ProtocolError: it is no frame, or cut short.
        """
        if len(message) < HEADER.size or message[0] != FRAME or not HEADER.size <= 4 * message[1] <= len(message):
            raise ProtocolError(
                "bad_media", f"a frame has {HEADER.size} bytes of header or more, got {message[:8].hex()}"
            )
        _, length, flags, epoch, block, frame, frames, time_us, number, action, codec, _, width, height, runs = (
            HEADER.unpack_from(message)
        )
        told = HEADER.size + RUN.size * runs
        if told > 4 * length:
            raise ProtocolError("bad_media", f"a header of {4 * length} bytes has no room for {runs} runs of frames")
        if codec not in NAMES:
            raise ProtocolError("bad_media", f"no codec has the number {codec}; known: {NAMES}")
        return cls(
            flags=Flag(flags),
            epoch=epoch,
            block=block,
            frame=frame,
            frames=frames,
            time_us=time_us,
            number=number,
            action=action,
            codec=NAMES[codec],
            width=width,
            height=height,
            payload=bytes(message[4 * length :]),
            seen=tuple(_unpacked(*run) for run in RUN.iter_unpack(message[HEADER.size : told])),
        )


def _packed(frames: range, retrieved: bool) -> bytes:
    return RUN.pack(frames.start, len(frames) + RETRIEVED * retrieved)


def _unpacked(first: int, told: int) -> tuple[range, bool]:
    return range(first, first + told % RETRIEVED), told >= RETRIEVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a film: where it begins, and of how many bytes in all."""

    offset: int
    total: int
    payload: bytes

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.offset + len(self.payload) >= self.total

    def encode(self) -> bytes:
        """The message."""
        flags = Flag.LAST if self.is_last else Flag(0)
        return PIECE_HEADER.pack(PIECE, PIECE_HEADER.size // 4, flags, 0, self.offset, self.total) + self.payload

    @classmethod
    def decode(cls, message: bytes) -> Piece:
        """Read what `encode` wrote, or a later version of it with a longer header.

        Raises:
            ProtocolError: it is no piece, or cut short.
        """
        if len(message) < PIECE_HEADER.size or message[0] != PIECE or not 24 <= 4 * message[1] <= len(message):
            raise ProtocolError("bad_media", f"a piece has 24 bytes of header or more, got {message[:8].hex()}")
        _, length, _, _, offset, total = PIECE_HEADER.unpack_from(message)
        return cls(offset=offset, total=total, payload=bytes(message[4 * length :]))
