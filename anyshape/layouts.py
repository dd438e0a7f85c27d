"""Layouts: how the items of a call lie in its rows, and how their outputs are found again.

    items   a row holds one item, padded to the bucket
    rows    a row holds several texts, one behind the other; a segment number per token keeps them apart

A layout decides what the compiled model takes, which calls a batch becomes, and what of a call is whose.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from anyshape.buckets import volume
from anyshape.items import Item, Row
from anyshape.packing import POLICIES, Call, Policy
from anyshape.padding import DATA, POSITION, SEGMENT, InputSpec, rows_of
from anyshape.row_packing import pack_rows
from anyshape.tasks.base import Task

ITEMS, ROWS = "items", "rows"


class Items:
    """One item per row."""

    name = ITEMS
    segments = 1

    def inputs(self, specs: Sequence[InputSpec]) -> Tuple[InputSpec, ...]:
        """What the compiled model takes, given what the task brings."""
        return tuple(specs)

    def policy(self, packing: str) -> Policy:
        """What splits a batch into calls."""
        return POLICIES[packing]

    def take(self, outputs: Sequence[Any], call: Call, items: Sequence[Item]) -> List[Row]:
        """Of each item, its part of every output of a call, still padded."""
        return [tuple(output[row] for output in outputs) for row in range(len(items))]

    def executed(self, call: Call, items: Sequence[Item]) -> List[Optional[float]]:
        """Of each item, the positions that were executed for it; None where they are the bucket's."""
        return [None] * len(items)

    def touched(self, rows: Sequence[Row], call: Call) -> List[int]:
        """The items whose outputs a neighbour may have spoilt, by their places in the call."""
        return []


class Rows(Items):
    """Whole texts in each row, at most `segments` of them.

    per_token: whether the model gives an output per token of a row ``[rows, length, ...]``; otherwise it is
    one per text ``[rows, segments, ...]``.

    Nothing goes from one text to another but what is not a number: an attention weight of zero times infinity
    is none. So a text that shares its row and comes out so is run again, alone.
    """

    name = ROWS

    def __init__(self, segments: int, per_token: bool) -> None:
        self.segments = segments
        self.per_token = per_token

    def inputs(self, specs: Sequence[InputSpec]) -> Tuple[InputSpec, ...]:
        data = [spec for spec in specs if spec.kind == DATA]
        return (
            *data,
            InputSpec("segment_ids", "int64", SEGMENT),
            InputSpec("position_ids", "int64", POSITION),
        )

    def policy(self, packing: str) -> Policy:
        """The other policies give each text a row of its own: they are there to compare with."""
        if packing != "packed":
            return POLICIES[packing]
        return lambda sizes, costs: pack_rows(sizes, costs, self.segments)

    def take(self, outputs: Sequence[Any], call: Call, items: Sequence[Item]) -> List[Row]:
        taken: List[Row] = []
        for row, members in enumerate(rows_of(range(len(call.items)), call.held)):
            end = 0
            for number, place in enumerate(members):
                start, end = end, end + items[place].size[0]
                where = slice(start, end) if self.per_token else number
                taken.append(tuple(output[row, where] for output in outputs))
        return taken

    def executed(self, call: Call, items: Sequence[Item]) -> List[Optional[float]]:
        """The texts of a call share what it executed, by their tokens."""
        tokens = [item.size[0] for item in items]
        share = volume(call.bucket) * call.batch_size / sum(tokens)
        return [count * share for count in tokens]

    def touched(self, rows: Sequence[Row], call: Call) -> List[int]:
        return [
            place
            for members in rows_of(range(len(call.items)), call.held)
            if len(members) > 1
            for place in members
            if not all(np.isfinite(part).all() for part in rows[place])
        ]


def create_layout(name: str, segments: int, task: Task) -> Items:
    """The layout called `name`, `items` or `rows`."""
    return Rows(segments, task.per_token) if name == ROWS else Items()
