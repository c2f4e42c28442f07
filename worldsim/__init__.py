"""Worlds that are generated while somebody is inside them."""

from __future__ import annotations

from worldsim.errors import WorldSimError
from worldsim.presets import load, restore
from worldsim.runtime.chunk import Chunk
from worldsim.runtime.mark import Mark
from worldsim.runtime.reality import Reality
from worldsim.runtime.session import Session
from worldsim.runtime.world import World

__all__ = ["Chunk", "Mark", "Reality", "Session", "World", "WorldSimError", "load", "restore"]
__version__ = "0.1.0"
