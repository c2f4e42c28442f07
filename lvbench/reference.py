"""How like a real video of the same walk a video is, frame by frame: for simulators that can play the same actions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lvbench import motion
from lvbench.errors import VideoRefused
from lvbench.measures import chunks_of
from lvbench.score import Result, Score, Unscored
from lvbench.store import Arrays, hash_of_code
from lvbench.video import Facts, Frame, Video
from lvbench.weights import LPIPS, Networks

FLATTEST = 255**2 / 10**6
"""Squared error of levels of 255 that counts as none, so that the signal-to-noise ratio ends at 60 dB, as libvmaf's:
rounding to whole levels alone leaves 59 dB, and what is far above would rule any mean."""
WINDOW, SIGMA = (11, 11), 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
STILL_PX = 0.05
"""Mean length of a flow below which nothing moves."""
LIKENESSES: Mapping[str, str] = {
    "psnr": "signal-to-noise ratio (PSNR), dB",
    "ssim": "structural similarity (SSIM)",
    "lpips": "difference in looks, LPIPS",
    "flow_agreement": "agreement of motion",
}

LPIPS_LACKS = "it needs {} in --weights, or where other programs keep them".format(
    " and ".join(f"{source.names[0]} (from {source.address})" for source in LPIPS.values())
)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like its real one a video is.

    chunks: by name in LIKENESSES, the value of each chunk.
    scores: by the same name, over the whole video.
    """

    chunks: Mapping[str, Sequence[float]]
    scores: Mapping[str, Result]


def fingerprint(lpips: Networks | None = None) -> str:
    """A hash of the code, libraries and weights that compare."""
    code = hash_of_code(motion, sys.modules[__name__])
    if lpips is None:
        return code
    from lvbench.networks import loading

    weights = {name: each.sha256 for name, each in sorted(lpips.weights.items())}
    return f"{code} {hash_of_code(loading, *loading.CODE)} {weights} {loading.machine()}"


def likeness(tracks: Arrays, chunks: int) -> Likeness:
    """What liken measured, in numbers. Raises VideoRefused if what was compared is too short for so many chunks."""
    frames = len(tracks["squared_error"])
    parts = [{name: track[part] for name, track in tracks.items()} for part in chunks_of(frames, chunks)]
    measures = {name: measure for name, measure in MEASURES.items() if name != "lpips" or name in tracks}
    lacking = {} if "lpips" in measures else {"lpips": Unscored(LPIPS_LACKS)}
    return Likeness(
        chunks={name: [measure(part) for part in parts] for name, measure in measures.items()},
        scores={**{name: Score(measure(tracks), frames) for name, measure in measures.items()}, **lacking},
    )


def liken(video: Video, reference: Video, lpips: Networks | None = None) -> Arrays:
    """Compare an opened video with the real one, frame by frame, up to the end of the shorter.

    Returns:
        squared_error: mean over pixels and colours, 0 to 65,025, [F].
        ssim: of the grey pictures, -1 to 1, [F].
        flow_agreement: of the motion to the next frame, 0 to 1, [F]; NaN at the last.
        lpips: how different they look, 0 for equal frames, [F]; left out without its networks.

    Raises:
        VideoRefused: one of them cannot be read, or they differ in size or rate.
    """
    _check(video.facts, reference.facts)
    mover, distance = motion.Mover(), _distance(lpips)
    squared, similar, agreed, different = [], [], [], []
    last: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    for ours, real in zip(video.frames(), reference.frames(), strict=False):
        squared.append(squared_error(ours, real))
        if distance is not None:
            different.append(distance(ours, real))
        grey = (_grey(ours), _grey(real))
        similar.append(ssim(*grey))
        if last is not None:
            agreed.append(flow_agreement(mover.flow(last[0], grey[0]), mover.flow(last[1], grey[1])))
        last = grey
    return {
        "squared_error": np.array(squared, np.float64),
        "ssim": np.array(similar, np.float64),
        "flow_agreement": np.array([*agreed, np.nan], np.float64),
        **({"lpips": np.array(different, np.float64)} if distance else {}),
    }


def squared_error(ours: Frame, real: Frame) -> float:
    """Mean squared difference of two frames [H, W, 3], of levels of 255."""
    return float(np.mean(np.square(ours.astype(np.float32) - real), dtype=np.float64))


def psnr(squared: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared difference of levels of 255, at most 60.

    Equal frames have 60 dB, and so have those that differ by less than rounding does.
    """
    return 10 * math.log10(255**2 / max(squared, FLATTEST))


def ssim(ours: NDArray[np.uint8], real: NDArray[np.uint8]) -> float:
    """Structural similarity of two grey pictures [H, W], 1 for equal ones.

    Source: Wang et al. 2004 (IEEE TIP 13.4): a Gaussian window of 11 x 11 pixels with sigma 1.5, inside the picture.
    """

    def blur(picture: NDArray[np.float64]) -> NDArray[np.float64]:
        edge = WINDOW[0] // 2
        return np.asarray(cv2.GaussianBlur(picture, WINDOW, SIGMA), np.float64)[edge:-edge, edge:-edge]

    x, y = ours.astype(np.float64), real.astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    parts = (2 * mean_x * mean_y + C1) * (2 * both + C2) / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))
    return float(parts.mean())


def flow_agreement(ours: motion.Flow, real: motion.Flow) -> float:
    """How far two flows [H, W, 2] are the same: 1 minus their mean distance by the sum of their mean lengths.

    1 for equal flows and where neither moves, 0 for opposite ones and where one moves and the other does not.
    """
    lengths = [float(np.linalg.norm(flow, axis=-1).mean(dtype=np.float64)) for flow in (ours, real, ours - real)]
    return 1.0 if max(lengths[:2]) < STILL_PX else max(0.0, 1 - lengths[2] / (lengths[0] + lengths[1]))


def _finite_mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


MEASURES: Mapping[str, Callable[[Arrays], float]] = {
    "psnr": lambda tracks: psnr(_finite_mean(tracks["squared_error"])),
    "ssim": lambda tracks: _finite_mean(tracks["ssim"]),
    "flow_agreement": lambda tracks: _finite_mean(tracks["flow_agreement"]),
    "lpips": lambda tracks: _finite_mean(tracks["lpips"]),
}


def _distance(lpips: Networks | None) -> Callable[[Frame, Frame], float] | None:
    if lpips is None:
        return None
    from lvbench.networks.loading import distance_of  # torch takes its time to import, and nothing else here needs it

    return distance_of(lpips)


def _check(ours: Facts, real: Facts) -> None:
    if ours.size != real.size or abs(ours.fps - real.fps) > 0.01 * real.fps:
        raise VideoRefused(
            f"it is {ours.size[1]} x {ours.size[0]} at {ours.fps:g} frames a second and its reference {real.size[1]} x "
            f"{real.size[0]} at {real.fps:g}; encode both alike"
        )


def _grey(frame: Frame) -> NDArray[np.uint8]:
    grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.pad(grey, [(0, max(0, motion.SMALLEST_PX - side)) for side in grey.shape], mode="edge")
