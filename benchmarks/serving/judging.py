"""Whether an answer is right: compared with what the plain, unpadded, eager model says of the same item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson

Reader = Callable[[bytes], np.ndarray]
READERS: dict[str, Reader] = {}


def reader(function: Reader) -> Reader:
    READERS[function.__name__] = function
    return function


@reader
def vector(body: bytes) -> np.ndarray:
    """A sentence embedding as a JSON list of numbers, or a list with one such list."""
    values = np.asarray(orjson.loads(body), dtype=np.float64)
    return values[0] if values.ndim == 2 and len(values) == 1 else values


@reader
def openai_vector(body: bytes) -> np.ndarray:
    """A sentence embedding as OpenAI's API words it."""
    return np.asarray(orjson.loads(body)["data"][0]["embedding"], dtype=np.float64)


@reader
def top_scores(body: bytes) -> np.ndarray:
    """The scores of an image-classification answer, best first."""
    return np.array([entry["score"] for entry in orjson.loads(body)], dtype=np.float64)


@dataclass
class Judge:
    """`references`: one row per item. An answer is wrong if any number is further than `tolerance` off."""

    references: np.ndarray
    reader: str = "vector"
    tolerance: float = 1e-4

    def deviation(self, item: int, body: bytes) -> float:
        """The largest absolute deviation; infinite if the answer cannot be read or has another shape."""
        try:
            values = READERS[self.reader](body)
        except (ValueError, KeyError, TypeError, IndexError):
            return float("inf")
        reference = self.references[item]
        if values.shape != reference.shape or not np.isfinite(values).all():
            return float("inf")
        return float(np.abs(values - reference).max())
