"""What neighbours do to the bits of a text's vector: at the same place of a row, and elsewhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.packing import Call

NEIGHBOURS = 6  # sets of them that each text meets
CASES = ("same place, other neighbours", "another place", "another number of rows", "another length of row")
Vector = np.ndarray


def compare(model: BucketedModel, items: Sequence[Item]) -> dict[str, tuple[float, float]]:
    """By case the share of vectors that are the same bit for bit as the text's alone at the beginning of the
    shortest row that holds it with others, and the largest deviation, relative to its largest number."""
    lengths = [bucket[0] for bucket in model.buckets]
    draw = random.Random(0)
    found: dict[str, list[float]] = {case: [] for case in CASES}
    for item in items:
        holding = [length for length in lengths if length >= 2 * item.size[0]]
        if not holding:
            continue
        alone = vector(model, holding[0], [item], 0)

        def met(case: str, one: Vector, alone: Vector = alone) -> None:
            found[case].append(float(np.abs(one - alone).max() / np.abs(alone).max()))

        for _ in range(NEIGHBOURS):
            others = fitting(
                draw.sample(list(items), len(items)), holding[0] - item.size[0], model.layout.segments
            )
            met(CASES[0], vector(model, holding[0], [item, *others], 0))
            if others:
                met(CASES[1], vector(model, holding[0], [*others, item], len(others)))
            met(CASES[2], vector(model, holding[0], [item, *others], 0, rows=2))
            for length in holding[1:]:
                met(CASES[3], vector(model, length, [item, *others], 0))
    return {
        case: (float(np.mean(np.equal(all_of, 0))), max(all_of)) for case, all_of in found.items() if all_of
    }


def fitting(items: Sequence[Item], room: int, segments: int) -> list[Item]:
    """Those of the items that fit beside a text, in their order."""
    taken: list[Item] = []
    for item in items:
        if item.size[0] <= room and len(taken) < segments - 1:
            taken.append(item)
            room -= item.size[0]
    return taken


def vector(model: BucketedModel, length: int, row: Sequence[Item], place: int, rows: int = 1) -> Vector:
    """The vector of one text of a row, in a call of so many rows."""
    call = Call((length,), rows, tuple(range(len(row))), (len(row),))
    return np.asarray(model.run_call(call, row)[place].row[0])


def show(found: dict[str, dict[str, tuple[float, float]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="A text's vector among neighbours against alone at the beginning of a row")
    for column in ("archive", "case", "the same bits", "largest deviation"):
        table.add_column(column, justify="left" if column in ("archive", "case") else "right")
    for way, cases in found.items():
        for case, (share, worst) in cases.items():
            table.add_row(way, case, f"{share:.0%}", f"{worst:.1e}")
    Console(width=120).print(table)
