"""What the APIs do to a vector after the model."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from handler.apis.base import WrongField


def resized(vector: Any, dimensions: Optional[int], normalize: bool) -> np.ndarray:
    """The first `dimensions` numbers of a vector, all for None, in float32; at length one if `normalize`.

    Raises WrongField for more than there are.
    """
    whole = np.asarray(vector, dtype=np.float32)
    if dimensions is not None and dimensions > len(whole):
        raise WrongField(
            "dimensions", f"dimensions is {dimensions}, and the model's vectors have {len(whole)}"
        )
    kept = whole[:dimensions]
    if not normalize:
        return kept
    length = float(np.linalg.norm(kept.astype(np.float64)))
    return (kept / length).astype(np.float32) if length else kept
