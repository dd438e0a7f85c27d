"""Overlapping tiles of a picture that is larger than every bucket, and their answers put together as one.

A tile is a picture of its own to the model, so what its answer has near a border inside the picture is wrong
as far as the model sees. That is cut off, and the tiles overlap by as much. How far it sees was measured when
the archive was built (`building.tasks.tiles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Container, Dict, List, Optional, Sequence, Tuple

import numpy as np

from anyshape.buckets import Bucket, Size, volume
from anyshape.errors import ConfigError
from anyshape.items import Parts, Row

TILE = "tile"
OPTIONS = {"max_tiles": 64}  # of tasks that cut tiles
Span = Tuple[int, int]


def check_options(options: Dict[str, Any]) -> None:
    """Raises ConfigError, which names the option that is wrong."""
    most = options.get("max_tiles", 1)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigError(f"handler.task_options.max_tiles must be a whole number from 1 on, not {most!r}")


@dataclass(frozen=True)
class Reach:
    """How the answer of a model moves with its picture, and how far it sees, along one side.

    stride: the pixels by which a picture must be moved for its answer to move as a whole; `positions` is how
    far the answer moves then. before, after: how many positions of a tile's answer depend on what is before
    its first pixel, or behind its last one, where that lies inside the picture.
    """

    stride: int
    positions: int
    before: int
    after: int

    @property
    def overlap(self) -> int:
        """The pixels that two neighbours must have in common, a multiple of the stride."""
        return -(-(self.before + self.after) // self.positions) * self.stride

    def spans(self, length: int, limit: int, taken: Optional[Container[int]]) -> Optional[List[Span]]:
        """Tiles of at most `limit` pixels that cover `length`, each with its first pixel and the one behind
        its last; None where no tiles of the sizes that are `taken` do."""

        def takes(side: int) -> bool:
            return taken is None or side in taken

        if length <= limit:
            return [(0, length)] if takes(length) else None
        tile = limit // self.stride * self.stride
        while tile > self.overlap and not takes(tile):
            tile -= self.stride
        step = tile - self.overlap
        if step <= 0:
            return None
        found = [(0, tile)]
        while found[-1][1] < length:
            start = found[-1][0] + step
            if length - start > tile:
                found.append((start, start + tile))
                continue
            while not takes(length - start):  # the last one is as small as can be
                start -= self.stride
                if start <= found[-1][0] or length - start > limit:
                    return None
            found.append((start, length))
        return found

    def kept(self, spans: Sequence[Span], counts: Sequence[int]) -> List[Tuple[int, int, int]]:
        """What each tile gives of the whole answer: from where to where, and where its own answer begins.

        `counts` are the positions of each tile's answer. Where two overlap, the line is drawn in the middle
        of what is right in both.
        """
        places = [start // self.stride * self.positions for start, _ in spans]
        found, at = [], 0
        for i, place in enumerate(places):
            to = place + counts[i]
            if i + 1 < len(places):
                end = spans[i][1] // self.stride * self.positions
                to = (places[i + 1] + self.before + end - self.after) // 2
            found.append((at, to, place))
            at = to
        return found


@dataclass(frozen=True)
class Tiling:
    """How the pictures of one model are cut into tiles: along their height and along their width."""

    height: Reach
    width: Reach

    @classmethod
    def from_json(cls, value: Sequence[Dict[str, int]]) -> Tiling:
        return cls(*(Reach(**side) for side in value))

    def to_json(self) -> List[Dict[str, int]]:
        return [dict(vars(side)) for side in (self.height, self.width)]

    def cut(
        self, size: Size, buckets: Sequence[Bucket], taken: Optional[Sequence[Container[int]]]
    ) -> Optional[Tuple[List[Span], List[Span]]]:
        """The rows and columns of the tiles of a picture, for the bucket that takes the fewest pixels to run;
        None where no bucket's tiles cover it."""
        best: Optional[Tuple[int, Tuple[List[Span], List[Span]]]] = None
        for bucket in buckets:
            rows = self.height.spans(size[0], bucket[0], taken[0] if taken else None)
            columns = self.width.spans(size[1], bucket[1], taken[1] if taken else None)
            if rows is None or columns is None:
                continue
            cost = len(rows) * len(columns) * volume(bucket)
            if best is None or cost < best[0]:
                best = cost, (rows, columns)
        return best[1] if best else None

    def join(self, rows: Sequence[Row], parts: Parts) -> Any:
        """The first output of all tiles as the one array ``[..., height, width]`` of the whole picture."""
        down, across = parts.origin["tiles"]
        answers = [[rows[i * len(across) + j][0] for j in range(len(across))] for i in range(len(down))]
        lines = self.height.kept(down, [line[0].shape[-2] for line in answers])
        places = self.width.kept(across, [answer.shape[-1] for answer in answers[0]])
        first = answers[0][0]
        whole = np.empty((*first.shape[:-2], lines[-1][1], places[-1][1]), first.dtype)
        for (top, bottom, above), line in zip(lines, answers):
            for (left, right, beside), answer in zip(places, line):
                whole[..., top:bottom, left:right] = answer[
                    ..., top - above : bottom - above, left - beside : right - beside
                ]
        return whole
