"""The words of the pipeline: what goes from a request's input to its answer.

input ──read──▶ Item ──pack, pad, run──▶ Output ──answer──▶ JSON
           └───▶ Refused ─────────▶ Refused ─────────▶ error      (in the same place, all the way)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Optional, Tuple, Union

from anyshape.buckets import Bucket, Size, volume
from anyshape.errors import Refused

Row = Tuple[Any, ...]  # one item's row of every output of the model, as numpy arrays


@dataclass
class Item:
    """One input of one request after preprocessing.

    size: its sides before padding: ``(tokens,)`` or ``(height, width)``.
    data: for each `data` input of the model, by name, an array (or list) of that size.
    changed: how a policy changed it (`"truncated 600 to 512 tokens"`), or None.
    origin: what the task needs to answer in the caller's terms, such as the picture's own size.
    """

    size: Size
    data: Dict[str, Any]
    changed: Optional[str] = None
    origin: Dict[str, Any] = field(default_factory=dict)


@dataclass
class Output:
    """What the model gave for one item, un-padded, and how it was run."""

    row: Row
    bucket: Bucket
    batch_size: int


ItemOrRefused = Union[Item, Refused]
OutputOrRefused = Union[Output, Refused]


def padding_ratio(done: Iterable[Tuple[Item, Output]]) -> float:
    """Positions executed for these items ÷ positions that they have; 1.0 is no padding at all."""
    real = run = 0
    for item, output in done:
        real += volume(item.size)
        run += volume(output.bucket)
    return run / real if real else 1.0
