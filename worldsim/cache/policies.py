"""The policies by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from worldsim.cache.options import parse_options
from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.retrieval import DIGITS, Retrieval
from worldsim.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Named:
    """A kind of policy, with what is settled by its name, and what that name gives unless it is said otherwise."""

    kind: Callable[..., Policy]
    settled: Mapping[str, Any]
    usual: Mapping[str, Any]

    @property
    def options(self) -> tuple[str, ...]:
        """What may be said beside the name."""
        return tuple(name for name in inspect.signature(self.kind).parameters if name not in self.settled)

    def text(self, policy: Policy) -> str | None:
        """The options of a policy that goes by this name; None if it does not."""
        if type(policy) is not self.kind or any(getattr(policy, name) != it for name, it in self.settled.items()):
            return None
        return ",".join(f"{name}={_number(getattr(policy, name))}" for name in self.options)


POLICIES: dict[str, Named] = {
    "full": Named(Full, {}, {}),
    "window": Named(Window, {"anew": False}, {}),
    "recompute": Named(Window, {"anew": True}, {}),
    "sink": Named(SinkWindow, {"near": True}, {}),
    "far-sink": Named(SinkWindow, {"near": False}, {}),
    "adaptive": Named(
        Retrieval,
        {"pick": "first", "tau": 1.0, "within": 0},
        {"recent": 20, "top": 1, "run": 4, "bank": 16, "like": 0.9},
    ),
    "blockvid": Named(Retrieval, {"pick": "likest", "within": 0, "like": 0.0}, {"tau": 0.98}),
    "pages": Named(Retrieval, {"pick": "likest", "tau": 1.0, "like": 0.0}, {"within": 64}),
    "random": Named(Retrieval, {"pick": "random", "within": 0, "like": 0.0}, {}),
    "mismatched": Named(Retrieval, {"pick": "unlikest", "within": 0, "like": 0.0}, {}),
}


_ROPE = "infinity-rope is a published world, of the policy sink:sink=1,window=2; its flush and cut are for --on-prompt"
_LONGLIVE = "longlive is a published world, of the policy far-sink:sink=3,window=6; its re-cache is for --on-prompt"
_ROLLING = "a window that rolls is how the published world rolling-forcing makes its blocks, and no policy"
ELSEWHERE = {
    **dict.fromkeys(("infinity-rope", "flush", "cut"), _ROPE),
    **dict.fromkeys(("longlive", "recache", "re-cache"), _LONGLIVE),
    **dict.fromkeys(("rolling", "rolling-forcing"), _ROLLING),
    "krea": "what Krea does is the policy recompute",
    **dict.fromkeys(("streaming", "streamdiffusionv2"), "the sink of StreamDiffusionV2 is the policy adaptive"),
}
"""Where what is asked for as a policy is found, by names that papers have for it."""


def parse_policy(text: str) -> Policy:
    """The policy that a text names: "full", "window:frames=24", "blockvid:tau=0.98,top=2".

    Options left out have their defaults.

    Raises:
        UnknownName: nobody knows that policy, or that option of it.
        ConfigError: an option is given twice, is no such number, or does not fit.
    """
    known = {name: named.options for name, named in POLICIES.items()}
    try:
        name, options = parse_options(text, known, kind="policy", decimals=("tau", "like"))
    except UnknownName as error:
        if where := ELSEWHERE.get(text.partition(":")[0].lower()):
            error.add_note(where)
        raise
    named = POLICIES[name]
    return named.kind(**{**named.usual, **named.settled, **options})


def policy_text(policy: Policy) -> str:
    """The text that parse_policy reads as this policy; of a policy it does not know, its repr."""
    for name, named in POLICIES.items():
        options = named.text(policy)
        if options is not None:
            return f"{name}:{options}" if options else name
    return repr(policy)


def _number(value: Any) -> str:
    """A number as parse_options reads it, never with an exponent."""
    return f"{value:.{DIGITS}f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
