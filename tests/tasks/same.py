"""Comparing answers with those of somebody else's code."""

from __future__ import annotations

from typing import Any

import pytest

CLOSE = 1e-4


def assert_same(found: Any, expected: Any) -> None:
    """Equal, but for numbers that are no whole ones: those deviate by at most 1e-4 of what is expected."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other)
    elif isinstance(expected, (str, int)) or expected is None:
        assert type(found) is type(expected)
        assert found == expected
    else:
        assert float(found) == pytest.approx(float(expected), rel=CLOSE, abs=1e-7)
