"""Remembers the sizes of the items that came in, so that buckets can be planned from real traffic.

Each worker counts in a small file of its own, mapped into memory, beside the model; any worker can read
all of them, so a description is complete whichever worker gives it, and survives a worker's restart. The
counts only grow, and nobody can reset them: who wants those of a day subtracts what was seen before it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

import numpy as np

from anyshape.buckets import Size

ROWS = 4096  # distinct sizes that are counted exactly: 100 KB a worker
COARSE_ROWS = 4096  # after that, sizes are rounded up to a multiple of COARSE
COARSE = 64
PATTERN = "seen-*.i64"  # seen-<start in ns since 1970>-<process>.i64


class Traffic:
    """Counts of item sizes before padding, bounded in memory whatever the traffic.

    The file holds rows of int64: the sides, then the count. A size beyond the first 4,096 is rounded up
    to a multiple of 64 pixels or tokens; where that is full too, it is counted in the last row, as large
    as the largest one there.
    """

    def __init__(self, folder: Path, sides: int) -> None:
        self.folder = folder
        self.sides = sides
        # The start is in the name: a worker that is started again may well get the same process number.
        path = folder / f"seen-{time.time_ns()}-{os.getpid()}.i64"
        self._rows: np.ndarray = np.memmap(
            path, dtype=np.int64, mode="w+", shape=(ROWS + COARSE_ROWS, sides + 1)
        )
        self._places: Dict[Size, int] = {}

    def record(self, sizes: Iterable[Size]) -> None:
        """Count the items of one batch."""
        for size in sizes:
            place = self._places.get(size)
            if place is None:
                place = self._place(size)
            self._rows[place, -1] += 1

    def _place(self, size: Size) -> int:
        if len(self._places) >= ROWS:
            size = tuple(-(-side // COARSE) * COARSE for side in size)
        place = self._places.get(size, len(self._places))
        if place >= len(self._rows) - 1:
            last = self._rows[-1]
            last[:-1] = np.maximum(last[:-1] if last[-1] else 0, size)
            return len(self._rows) - 1
        self._places[size] = place
        self._rows[place, :-1] = size
        return place

    def seen(self) -> List[Tuple[List[int], int]]:
        """(size, count) of all workers of this model together, sorted by size."""
        total: Counter[Size] = Counter()
        for path in self.folder.glob(PATTERN):
            for *size, count in self._read(path).tolist():
                if count:
                    total[tuple(size)] += count
        return [(list(size), count) for size, count in sorted(total.items())]

    def since(self) -> str:
        """When the first worker began to count, such as 2026-11-30T08:15:00Z."""
        first = min(int(path.name.split("-")[1]) for path in self.folder.glob(PATTERN))
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first / 1e9))

    def _read(self, path: Path) -> np.ndarray:
        row = self.sides + 1
        whole = path.stat().st_size // (8 * row)  # none yet, where another worker is just making its file
        if not whole:
            return np.empty((0, row), dtype=np.int64)
        return np.memmap(path, dtype=np.int64, mode="r", shape=(whole, row))
