"""Which cases of a test run with every change, and which in `make test-slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick(cases: Iterable[Any], *which: int) -> list[Any]:
    """The cases for `parametrize`: those at these places are quick, the others slow."""
    return [
        each
        if place in which
        else pytest.param(*each, marks=pytest.mark.slow)
        if isinstance(each, tuple)
        else pytest.param(each, marks=pytest.mark.slow)
        for place, each in enumerate(cases)
    ]
