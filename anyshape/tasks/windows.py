"""Overlapping windows of a text that is longer than the largest bucket.

The tokens `start` to `end` of a text slide through its windows; those before and after them (special tokens,
a prompt, the question that is asked of a context) stand in every one.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Sequence, Tuple

import numpy as np

from anyshape.errors import ConfigError
from anyshape.items import Item, Parts, Row

OPTIONS = {"stride": None, "max_windows": 16}  # of tasks that cut windows
LONGEST_STRIDE = 128


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigError, which names the option that is wrong."""
    for key, least in (("stride", 0), ("max_windows", 1)):
        value = options.get(key, least)
        if value is None and key == "stride":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"handler.task_options.{key} must be a whole number from {least} on, not {value!r}"
            )


def usual_stride(limit: int, share: int = 4) -> int:
    """The tokens that two neighbours have in common, where nobody says: a `share` of one, 128 at most."""
    return min(LONGEST_STRIDE, limit // share)


def spans(start: int, end: int, room: int, stride: int) -> List[Tuple[int, int]]:
    """Windows of `room` of the tokens from `start` to `end`, each with `stride` of those of the one before.

    The last may be shorter. Raises ValueError if there is no room for a step.
    """
    if room <= stride:
        raise ValueError(f"a window has room for {max(room, 0)} tokens, no more than its stride of {stride}")
    found = [(start, min(start + room, end))]
    while found[-1][1] < end:
        at = found[-1][0] + room - stride
        found.append((at, min(at + room, end)))
    return found


def window(whole: Item, start: int, end: int, span: Tuple[int, int]) -> Item:
    """The item of one window: of the tokens from `start` to `end` it has those of its span."""
    places = [*range(start), *range(*span), *range(end, whole.size[0])]
    data = {name: [values[i] for i in places] for name, values in whole.data.items()}
    origin = {
        key: [value[i] for i in places] if isinstance(value, list) else value
        for key, value in whole.origin.items()
    }
    return Item((len(places),), data, origin={**origin, "span": span})


def join(rows: Sequence[Row], parts: Parts) -> np.ndarray:
    """The first output of all windows as one array ``[tokens, ...]`` of the whole text.

    A token that several windows have is taken from the one whose edges are further from it.
    """
    start = parts.origin["start"]
    cuts = [item.origin["span"] for item in parts.items]
    pieces, at = [rows[0][0][:start]], start
    for i, (first, last) in enumerate(cuts):
        to = last if i + 1 == len(cuts) else (cuts[i + 1][0] + last + 1) // 2
        pieces.append(rows[i][0][start + at - first : start + to - first])
        at = to
    first, last = cuts[-1]
    pieces.append(rows[-1][0][start + last - first :])
    return np.concatenate(pieces)


def mean(rows: Sequence[Row], parts: Parts) -> np.ndarray:
    """The mean of the first output of all windows, each counting by its tokens."""
    lengths = [item.size[0] for item in parts.items]
    return np.average([row[0] for row in rows], axis=0, weights=lengths).astype(np.float32)
