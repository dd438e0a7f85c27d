from __future__ import annotations

import numpy as np
import pytest

from anyshape.errors import ModelFailed
from anyshape.tasks.base import finite


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_fails_the_answer(
    shape: tuple[int, ...], dtype: str, value: float
) -> None:
    values = np.ones(shape, dtype)
    assert finite(values) is values
    values.flat[-1] = value
    with pytest.raises(ModelFailed, match="not a number"):
        finite(values)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_whose_squares_are_too_large_are_numbers(dtype: str) -> None:
    values = np.full(5, np.finfo(dtype).max, dtype)
    assert finite(values) is values
