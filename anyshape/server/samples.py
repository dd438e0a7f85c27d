"""The sample requests of an archive, and whether a served model answers them as the build did."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import msgspec
import numpy as np
from msgspec import Struct
from PIL import Image

from anyshape.archive import SAMPLES
from anyshape.packed import opened
from anyshape.server.checks import ServeError

NAMES = ("label", "index", "token", "start")  # what tells one entry of a list from another, best first
PNG = "iVBORw0KGgo"  # how one begins in base64


class Sample(Struct):
    """A request, as JSON, and its answer when the archive was built."""

    request: Dict[str, Any]
    answer: Any


class Samples(Struct):
    """tolerance: how far an answer may be, relative to the largest magnitude in it."""

    samples: List[Sample]
    tolerance: float


def read_samples(archive: Path) -> Samples:
    """Those of an archive; none where it was built without. Raises ServeError where they cannot be read."""
    with opened(archive) as packed:
        if SAMPLES not in packed.namelist():
            return Samples([], 0.0)
        try:
            return msgspec.convert(json.loads(packed.read(SAMPLES)), Samples)
        except (ValueError, TypeError) as error:
            raise ServeError(f"{archive}: {SAMPLES} is not readable ({error}): build it again") from error


def difference(answer: Any, expected: Any, tolerance: float) -> Optional[str]:
    """What an answer has otherwise than expected, in a few words; None where it is the same.

    Numbers may differ by `tolerance` times the largest magnitude among those expected. Entries of a list that
    have names, such as labels, may come in another order: scores that are nearly the same change places. So
    do they at the edges of masks: `tolerance` of a mask's pixels may differ.
    """
    numbers = [abs(value) for value in _numbers(expected)]
    return _difference(answer, expected, tolerance * max(numbers, default=0.0), tolerance, "the answer")


def _difference(answer: Any, expected: Any, allowed: float, pixels: float, where: str) -> Optional[str]:
    if _is_number(expected) and _is_number(answer):
        if abs(answer - expected) <= allowed:
            return None
        return f"{where} is {answer:g}, and was {expected:g} when it was built"
    if _is_mask(expected) and _is_mask(answer):
        share = _unlike(answer, expected)
        return None if share <= pixels else f"{where} has {share:.1%} of its pixels otherwise than when built"
    if isinstance(expected, dict) and isinstance(answer, dict) and answer.keys() == expected.keys():
        pairs: Iterator[Tuple[Any, Any, str]] = ((answer[k], expected[k], f"{where}.{k}") for k in expected)
    elif isinstance(expected, list) and isinstance(answer, list) and len(answer) == len(expected):
        ordered, sought = _ordered(answer, expected)
        pairs = ((a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(ordered, sought)))
    elif type(answer) is type(expected) and answer == expected:
        return None
    else:
        return f"{where} is {_short(answer)}, and was {_short(expected)} when it was built"
    return next((found for a, b, at in pairs if (found := _difference(a, b, allowed, pixels, at))), None)


def _ordered(answer: List[Any], expected: List[Any]) -> Tuple[List[Any], List[Any]]:
    """Both by their entries' names, where both have the same names, each once."""
    for name in NAMES:
        try:
            found, sought = ({each[name]: each for each in entries} for entries in (answer, expected))
        except (TypeError, KeyError):
            continue
        if len(found) == len(expected) and found.keys() == sought.keys():
            return [found[key] for key in sought], list(sought.values())
    return answer, expected


def _numbers(value: Any) -> Iterator[float]:
    if _is_number(value):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_mask(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(PNG)


def _unlike(mask: str, expected: str) -> float:
    """Which share of their pixels differs; all of them where their sizes do."""
    one, other = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in (mask, expected))
    return float((one != other).mean()) if one.shape == other.shape else 1.0


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
