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


def set_deviation(found: Any, expected: Any) -> float:
    """The same for outputs ``[n, ..]`` whose n rows together are n things in no order: each one's distance
    from the nearest that it could be, the largest of both sides."""
    if [np.shape(each) for each in found] != [np.shape(each) for each in expected]:
        return float("inf")
    scales = [float(np.max(np.abs(each))) or 1.0 for each in expected]
    one, other = (
        np.concatenate([np.asarray(a, np.float64) / s for a, s in zip(each, scales)], 1)
        for each in (found, expected)
    )
    apart = np.stack([np.max(np.abs(other - row), 1) for row in one])
    nearest = [float(np.max(np.min(apart, axis))) for axis in (0, 1)]
    return max(nearest) if np.isfinite(nearest).all() else float("inf")
