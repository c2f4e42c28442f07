"""A session on its way to a video file."""

from __future__ import annotations

from pathlib import Path

import av

from worldsim.controls import Keys
from worldsim.files import path_of
from worldsim.runtime.chunk import Frames
from worldsim.runtime.video import VideoWriter, shown_scale


class Recording:
    """What a session shows, in an MP4 file with the keys held as subtitles. Made by Session.record; a context manager.

    It begins with the next block. After a rewind it goes on with what is shown next: it tells what was seen, and the
    log what was lived.

    A world is never lost to its recording: where the file cannot be written any more, such as on a full disk, the
    session goes on, the recording ends, what is in the file plays, and `close` raises what went wrong.

    Args:
        path: of the file, ending in .mp4; one that exists is replaced.
        size: (height, width) of a frame in pixels.
        fps: frames in one second of world time.

    Raises:
        ConfigError, MissingDependency, VideoError: as for VideoWriter.
    """

    def __init__(self, path: Path | str, *, size: tuple[int, int], fps: int) -> None:
        self.path = path_of(path, "path")
        self._video = VideoWriter(self.path, size=size, fps=fps, scale=shown_scale(size))
        self._error: OSError | av.FFmpegError | None = None
        self._ended = False

    @property
    def frames(self) -> int:
        """How many frames it was given; all of them are in the file once it is closed without an error."""
        return self._video.frames

    @property
    def error(self) -> OSError | av.FFmpegError | None:
        """What ended it, if something went wrong that `close` has not raised yet."""
        return self._error

    @property
    def over(self) -> bool:
        """Whether it takes no more frames and has nothing left to say."""
        return self._ended and self._error is None

    def take(self, frames: Frames, keys: Keys) -> None:
        """Go on with these frames, uint8 [F, H, W, 3], made under those keys; what goes wrong is kept for `close`."""
        if self._ended:
            return
        try:
            self._video.write(frames, keys)
        except (OSError, av.FFmpegError) as error:
            self._error = error
            self._ended = True

    def close(self) -> None:
        """End it and complete the file. Closing twice is fine.

        Raises:
            VideoError: the disk is full, or was before; its text says how much is safe. Raised once.
        """
        error, self._error = self._error, None
        self._ended = True
        try:
            self._video.close()
        finally:
            if error is not None:
                raise error

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
