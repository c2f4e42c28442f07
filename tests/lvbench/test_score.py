"""A result survives JSON, which has no infinity."""

from __future__ import annotations

import json
import math

import pytest

from lvbench.score import Score, Unscored, from_json, to_json


@pytest.mark.parametrize("result", [Score(0.1, 9), Score(math.inf, 10), Score(-math.inf, 2), Unscored("too short")])
def test_a_result_is_read_back_as_it_was_written(result):
    assert from_json(json.loads(json.dumps(to_json(result), allow_nan=False))) == result


def test_a_number_that_is_none_survives_too():
    read = from_json(json.loads(json.dumps(to_json(Score(math.nan, 3)), allow_nan=False)))
    assert math.isnan(read.value)


def test_what_is_no_result_is_refused():
    with pytest.raises(KeyError):
        from_json({"count": 3})
