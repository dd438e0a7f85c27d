"""The words of the pipeline: what goes from a request's input to its answer.

Input ──read──▶ Item ──pack, pad, run──▶ Output ──answer─▶ Answer
   ├───▶ Parts (several Items) ──▶ Outputs ──merge──▶ Answer
   └───▶ Refused ──────────────▶ Refused ─────────▶ error      (in the same place, all the way)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from anyshape.buckets import Bucket, Size, volume
from anyshape.errors import Refused

Json = Union[None, bool, int, float, str, Sequence["Json"], Mapping[str, "Json"]]
Input = Union[bytes, Json]  # what a request brings for one item: a file's bytes, or what JSON held
# What a task answers: JSON that may hold numpy's arrays and numbers.
Answer = Union[
    None, bool, int, float, str, np.ndarray, np.generic, Sequence["Answer"], Mapping[str, "Answer"]
]
Row = Tuple[np.ndarray, ...]  # one item's row of every output of the model


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
class Parts:
    """One input that became several items, each packed and run by itself: windows of a text, tiles of a
    picture, or pairs.

    windows: whether they are overlapping pieces of one text or picture. origin: as that of an item.
    """

    items: List[Item]
    windows: bool = False
    origin: Dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> Optional[str]:
        """How a policy changed the first of them that it changed, or None."""
        return next((item.changed for item in self.items if item.changed), None)


@dataclass
class Output:
    """What the model gave for one item, un-padded, and how it was run.

    executed: the positions that were executed for it; None where they are those of the bucket.
    """

    row: Row
    bucket: Bucket
    batch_size: int
    executed: Optional[float] = None


ItemOrRefused = Union[Item, Refused]
OutputOrRefused = Union[Output, Refused]
Read = Union[Item, Parts, Refused]  # what an input became
Ran = Union[Output, List[Output], Refused]  # what came of it: a list for parts


def items_of(read: Iterable[Read]) -> Iterator[Item]:
    """Every item, those of parts one by one."""
    for one in read:
        if isinstance(one, Parts):
            yield from one.items
        elif isinstance(one, Item):
            yield one


def done_items(inputs: Iterable[Tuple[Read, Ran]]) -> Iterator[Tuple[Item, Output]]:
    """Every item that ran, with its output; those of parts one by one."""
    for one, result in inputs:
        if isinstance(one, Parts) and isinstance(result, list):
            yield from zip(one.items, result)
        elif isinstance(one, Item) and isinstance(result, Output):
            yield one, result


def padding_ratio(done: Iterable[Tuple[Item, Output]]) -> float:
    """Positions executed for these items ÷ positions that they have; 1.0 is no padding at all."""
    real, run = 0, 0.0
    for item, output in done:
        real += volume(item.size)
        run += volume(output.bucket) if output.executed is None else output.executed
    return run / real if real else 1.0
