"""What others have published, to stand beside a report for orientation; measured on other videos by other networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SOURCE = "WorldAttention, 2026 (arXiv:2609.34606), table 12: InterVBench (LV-Bench), 200 videos of over 50 s"
CAVEAT = (
    "Published numbers, for orientation only: other videos, other prompts, scored by the published networks and summed "
    "over 10 chunks with linear weights. No intervals were published. Numbers of the light extractor do not compare "
    "with them, nor do any on other videos."
)
COLUMNS: Sequence[str] = (
    "vde_linear.subject",
    "vde_linear.background",
    "vde_linear.motion",
    "vde_linear.aesthetic",
    "vde_linear.clarity",
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "aesthetic_quality",
    "imaging_quality",
)
ROWS: Mapping[str, Sequence[float]] = {
    "MAGI-1": (0.3090, 0.5000, 0.0243, 3.8286, 2.7225, 0.8992, 0.9078, 0.9947, 0.6508, 0.6662),
    "Self Forcing": (0.3716, 1.6108, 0.1549, 3.4683, 3.0798, 0.8481, 0.8203, 0.9947, 0.6283, 0.6805),
    "PA-VDM": (1.8292, 0.9323, 0.0461, 2.8957, 1.9503, 0.8640, 0.8924, 0.9926, 0.5267, 0.6567),
    "FramePack": (4.3984, 5.9421, 0.0387, 1.4751, 4.2513, 0.9001, 0.8791, 0.9949, 0.6043, 0.6972),
    "SkyReels-V2-DF-1.3B": (0.1085, 0.3179, 0.0195, 1.2083, 0.9365, 0.9418, 0.9579, 0.9931, 0.6035, 0.6835),
    "LongLive": (0.0825, 0.3016, 0.0104, 1.1452, 0.8529, 0.9610, 0.9552, 0.9968, 0.6595, 0.6960),
    "BlockVid": (0.0844, 0.2945, 0.0119, 0.9618, 0.7551, 0.9597, 0.9588, 0.9956, 0.6047, 0.6852),
    "WorldAttention": (0.0792, 0.2850, 0.0095, 0.9462, 0.7390, 0.9668, 0.9614, 0.9972, 0.6397, 0.6965),
}
