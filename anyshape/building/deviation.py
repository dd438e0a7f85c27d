"""How far an answer is from the right one: what the build decides by, wherever it compares two."""

from __future__ import annotations

from typing import Any

import numpy as np


def deviation(found: Any, expected: Any) -> float:
    """The largest absolute difference relative to the largest magnitude; infinite if shapes differ or NaN."""
    if np.shape(found) != np.shape(expected):
        return float("inf")
    if np.size(expected) == 0:
        return 0.0
    difference = np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)))
    scale = float(np.max(np.abs(expected))) or 1.0
    result = float(difference) / scale
    return result if np.isfinite(result) else float("inf")
