"""How large the networks of the published extractor are; apart from them, so that knowing it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSize:
    """Of the part of CLIP that sees: squares of `patch` pixels, `layers` of `width`, and features of `out`."""

    patch: int
    width: int
    layers: int
    heads: int
    out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoSize:
    """Of DINO's vision transformer, ViT-B/16."""

    width: int = 768
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MusiqSize:
    """Of MUSIQ's transformer."""

    width: int = 384
    hidden: int = 1152
    layers: int = 14
    heads: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of all that have a size; AMT-S and RAFT are small as they are.

    flow_rounds: how often RAFT mends its flow.
    """

    aesthetic: ClipSize = field(
        default_factory=lambda: ClipSize(patch=14, width=1024, layers=24, heads=16, out=768)  # ViT-L/14
    )
    background: ClipSize = field(
        default_factory=lambda: ClipSize(patch=32, width=768, layers=12, heads=12, out=512)  # ViT-B/32
    )
    subject: DinoSize = field(default_factory=DinoSize)
    clarity: MusiqSize = field(default_factory=MusiqSize)
    flow_rounds: int = 20
