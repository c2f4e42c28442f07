"""Likeness to a real video is that of the textbooks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lvbench import reference
from lvbench.errors import VideoRefused
from lvbench.reference import fingerprint, flow_agreement, likeness, psnr, squared_error, ssim
from lvbench.store import Arrays
from lvbench.video import Limits, open_video
from lvbench.weights import Networks
from tests.lvbench.films import drifting, film
from tests.lvbench.random_weights import lpips_in


def liken(one: Path, other: Path, networks: Networks | None = None) -> Arrays:
    with open_video(one, Limits()) as ours, open_video(other, Limits()) as real:
        return reference.liken(ours, real, networks)


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    one = np.random.default_rng(seed).integers(0, 255, (23, 31), dtype=np.uint8)
    return one, np.clip(one + np.random.default_rng(seed + 1).normal(0, 20, one.shape), 0, 255).astype(np.uint8)


def test_psnr_is_ten_times_the_logarithm_of_peak_by_error():
    one, other = pictures()
    error = np.mean((one.astype(float) - other) ** 2)
    assert squared_error(one, other) == pytest.approx(error)
    assert psnr(error) == pytest.approx(10 * np.log10(255**2 / error))
    assert psnr(0.0) == psnr(1e-9) == psnr(0.065) == pytest.approx(60)
    assert psnr(1 / 12) == pytest.approx(58.92, abs=0.01)  # of rounding


def test_ssim_is_the_formula_under_a_gaussian_window():
    one, other = (picture.astype(float) for picture in pictures())
    reach = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(reach, reach) / reach.sum() ** 2
    found = []
    for y in range(23 - 10):
        for x in range(31 - 10):
            a, b = one[y : y + 11, x : x + 11], other[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            both = (window * a * b).sum() - mean_a * mean_b
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            found.append(
                (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    assert ssim(*pictures()) == pytest.approx(np.mean(found), abs=1e-9)
    assert ssim(pictures()[0], pictures()[0]) == pytest.approx(1)


def test_flows_agree_if_they_are_the_same_and_not_if_they_are_opposite():
    flow = np.full((4, 5, 2), 3.0, np.float32)
    assert flow_agreement(flow, flow) == 1
    assert flow_agreement(flow, -flow) == 0
    assert flow_agreement(flow, np.zeros_like(flow)) == 0
    assert flow_agreement(np.zeros_like(flow), np.zeros_like(flow)) == 1
    assert flow_agreement(flow, flow * 0.5) == pytest.approx(2 / 3)


def test_a_video_is_wholly_like_itself(tmp_path):
    path = film(tmp_path / "a.mkv", drifting(20))
    found = likeness(liken(path, path), 4)
    assert found.chunks["ssim"] == pytest.approx([1.0] * 4)
    assert found.chunks["flow_agreement"] == [1.0] * 4
    assert found.scores["psnr"].value == pytest.approx(60)
    assert "lpips" not in found.chunks
    assert "it needs alexnet-owt-7be5be79.pth (from https://" in found.scores["lpips"].reason


def test_what_lpips_says_is_told_where_it_is_and_changes_the_fingerprint(tmp_path):
    networks = lpips_in(tmp_path / "weights")
    one, other = (film(tmp_path / f"{at}.mkv", drifting(9 + at)[at:]) for at in (0, 1))
    tracks = liken(one, other, networks)
    found = likeness(tracks, 3)
    assert tracks["lpips"].shape == (9,)
    assert found.chunks["lpips"] == pytest.approx([tracks["lpips"][at : at + 3].mean() for at in (0, 3, 6)])
    assert found.scores["lpips"].value == pytest.approx(tracks["lpips"].mean())
    assert not liken(one, one, networks)["lpips"].any()
    assert len({fingerprint(), fingerprint(networks), fingerprint(Networks(weights={}))}) == 3


def test_a_video_that_leaves_the_real_one_gets_less_like_it(tmp_path):
    frames = drifting(40)
    noise = np.random.default_rng(0).normal(0, 1, (40, 48, 64, 3))
    worse = [np.clip(f + at * noise[at], 0, 255).astype(np.uint8) for at, f in enumerate(frames)]
    paths = [film(tmp_path / f"{at}.mkv", shown, "ffv1", fmt="bgr0") for at, shown in enumerate((worse, frames))]
    found = likeness(liken(*paths), 4)
    for name in ("psnr", "ssim", "flow_agreement"):
        assert list(found.chunks[name]) == sorted(found.chunks[name], reverse=True)
        assert found.chunks[name][0] > found.chunks[name][-1]


def test_the_shorter_video_ends_the_comparison(tmp_path):
    long, short = film(tmp_path / "a.mkv", drifting(20)), film(tmp_path / "b.mkv", drifting(12))
    assert len(liken(long, short)["ssim"]) == 12
    with pytest.raises(VideoRefused, match="12 frames are too few for 5 chunks"):
        likeness(liken(long, short), 5)


def test_videos_of_different_size_or_rate_are_not_compared(tmp_path):
    one = film(tmp_path / "a.mkv", drifting(9))
    wide = film(tmp_path / "b.mkv", [frame.repeat(2, axis=1) for frame in drifting(9)])
    with pytest.raises(VideoRefused, match=r"64 x 48 at 16 .* its reference 128 x 48 at 16"):
        liken(one, wide)
    with pytest.raises(VideoRefused, match=r"at 16 .* at 30"):
        liken(one, film(tmp_path / "c.mkv", drifting(9), fps=30))
