"""A canvas of tokens and the rules that no acceptor may break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.decoding.canvas import TokenCanvas
from worldsim.errors import ConfigError, ShapeError


def tokens(*values: int) -> Tensor:
    return torch.tensor(values)


def marks(text: str) -> Tensor:
    """Open places as o, closed ones as x."""
    return torch.tensor([mark == "o" for mark in text])


def test_a_canvas_is_open_and_keeps_nothing_until_an_acceptor_says_how_much():
    canvas = TokenCanvas(values=tokens(4, 5, 6), open=marks("xxx"))
    assert canvas.is_open
    assert canvas.kept.tolist() == []
    assert canvas.tail.tolist() == [4, 5, 6]


def test_a_closed_canvas_is_cut_into_what_is_kept_and_a_tail():
    canvas = TokenCanvas(values=tokens(4, 5, 6), open=marks("ooo"))
    closed = canvas.after(tokens(7, 8, 9), marks("xxo"), keep=2)
    assert not closed.is_open
    assert closed.kept.tolist() == [7, 8]
    assert closed.tail.tolist() == [9]


def test_a_step_is_counted_and_leaves_the_canvas_before_it_as_it_was():
    canvas = TokenCanvas(values=tokens(4, 5, 6), open=marks("xoo"))
    second = canvas.after(tokens(4, 8, 6), marks("xxo")).after(tokens(4, 8, 9), marks("xxx"), keep=3)
    assert second.step == 2
    assert canvas.step == 0
    assert canvas.values.tolist() == [4, 5, 6]


def test_an_open_place_may_change_as_often_as_it_likes_and_a_closed_one_may_be_opened_again():
    canvas = TokenCanvas(values=tokens(4, 5), open=marks("xo"))
    edited = canvas.after(tokens(4, 6), marks("oo")).after(tokens(3, 7), marks("xx"), keep=2)
    assert edited.kept.tolist() == [3, 7]


def test_a_closed_place_cannot_be_written():
    canvas = TokenCanvas(values=tokens(4, 5, 6), open=marks("xoo"))
    with pytest.raises(ConfigError, match="may change open places only"):
        canvas.after(tokens(3, 5, 6), marks("xxx"), keep=3)


def test_a_place_that_is_still_open_cannot_be_kept():
    canvas = TokenCanvas(values=tokens(4, 5, 6), open=marks("ooo"))
    with pytest.raises(ConfigError, match="of the 2 places to keep some are open"):
        canvas.after(tokens(4, 5, 6), marks("xoo"), keep=2)


@pytest.mark.parametrize("keep", [-1, 0, 4])
def test_a_canvas_keeps_at_least_one_place_and_at_most_all(keep):
    with pytest.raises(ConfigError, match=f"a canvas of 3 places keeps 1 to 3, got {keep}"):
        TokenCanvas(values=tokens(4, 5, 6), open=marks("xxx"), keep=keep)


def test_the_laws_of_the_values_are_those_of_the_last_step():
    laws = torch.eye(3)
    canvas = TokenCanvas(values=tokens(0, 1, 2), open=marks("ooo"), laws=laws)
    assert canvas.laws is laws
    assert canvas.after(tokens(0, 1, 2), marks("ooo")).laws is None


def test_a_canvas_cannot_grow_or_shrink():
    canvas = TokenCanvas(values=tokens(4, 5, 6), open=marks("ooo"))
    with pytest.raises(ShapeError, match=r"stays 3 places long, got \[2\]"):
        canvas.after(tokens(4, 5), marks("xx"), keep=2)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ShapeError, match=r"got \[0\] and \[0\]"):
        TokenCanvas(values=tokens(), open=marks(""))
    with pytest.raises(ShapeError, match=r"got \[2\] and \[3\]"):
        TokenCanvas(values=tokens(4, 5), open=marks("ooo"))
    with pytest.raises(ShapeError, match=r"got \[1, 2\] and \[1, 2\]"):
        TokenCanvas(values=tokens(4, 5)[None], open=marks("oo")[None])
    with pytest.raises(ShapeError, match=r"a canvas of 2 places has laws \[2, V\], got \[3, 5\]"):
        TokenCanvas(values=tokens(4, 5), open=marks("oo"), laws=torch.ones(3, 5))
