"""The canvas of decoders of tokens: places to fill, which of them may still change, and how many are handed over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TokenCanvas:
    """T places of one text or image being decided.

    values: token at each place, int64 [T]. What an undecided place holds is the model's affair: a mask token, a
        random token, a draft.
    open: which places may still change, bool [T].
    laws: the law that each value was drawn from, [T, V], for acceptors that must know it.
    step: how many proposals have been accepted.
    keep: how many leading places to hand over, at least 1; None while the canvas is open. What lies behind them is
        the tail, which the next canvas may begin with.
    """

    values: Tensor
    open: Tensor
    laws: Tensor | None = None
    step: int = 0
    keep: int | None = None

    def __post_init__(self) -> None:
        places = self.values.shape
        if len(places) != 1 or not len(self.values) or self.open.shape != places:
            raise ShapeError(
                f"a canvas has one row of values and as many open marks, at least 1, "
                f"got {list(places)} and {list(self.open.shape)}"
            )
        if self.laws is not None and (self.laws.ndim != 2 or self.laws.shape[:1] != places):
            raise ShapeError(f"a canvas of {places[0]} places has laws [{places[0]}, V], got {list(self.laws.shape)}")
        if self.keep is not None and not 1 <= self.keep <= len(self.values):
            raise ConfigError(f"a canvas of {len(self.values)} places keeps 1 to {len(self.values)}, got {self.keep}")
        if bool(self.open[: self.keep or 0].any()):
            raise ConfigError(f"of the {self.keep} places to keep some are open; decide them or keep fewer")

    @property
    def is_open(self) -> bool:
        """Whether an acceptor has yet to say how much is kept."""
        return self.keep is None

    @property
    def kept(self) -> Tensor:
        """The values handed over, [keep]; none while the canvas is open."""
        return self.values[: self.keep or 0]

    @property
    def tail(self) -> Tensor:
        """The values behind the kept ones, [T - keep]."""
        return self.values[self.keep or 0 :]

    def after(
        self, values: Tensor, open: Tensor, *, laws: Tensor | None = None, keep: int | None = None
    ) -> TokenCanvas:
        """The canvas one step later, of the same length; closed if keep is given.

        Raises:
            ShapeError: the length is another.
            ConfigError: a place that was not open has another value.
        """
        if values.shape != self.values.shape:
            raise ShapeError(f"a canvas stays {len(self.values)} places long, got {list(values.shape)}; use keep")
        if not torch.equal(values[~self.open], self.values[~self.open]):
            raise ConfigError("an acceptor may change open places only; leave the values of the others as they are")
        return replace(self, values=values, open=open, laws=laws, step=self.step + 1, keep=keep)
