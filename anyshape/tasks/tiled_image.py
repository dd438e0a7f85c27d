"""What tasks share whose answer is a map of the picture: one that is too large is answered in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from anyshape.buckets import bucket_name, fits
from anyshape.errors import InputTooLarge, UnprocessableInput
from anyshape.images import Picture, decode
from anyshape.items import Answer, Parts, Read, Row
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters
from anyshape.tasks.image import ImageTask
from anyshape.tasks.tiles import OPTIONS, TILE, Tiling, check_options


class TiledImageTask(ImageTask):
    """A picture beyond every bucket may be cut into overlapping tiles, whose answers are put together.

    options: max_tiles, the most that one picture may be cut into.
    """

    over_max = (*ImageTask.over_max, TILE)
    options = {**ImageTask.options, **OPTIONS}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        check_options(self.chosen)
        self.tiling: Optional[Tiling] = None  # until the builder has measured it
        if "tiles" in self.saved:
            self.tiling = Tiling.from_json(self.saved["tiles"])

    def _read_picture(self, picture: Picture) -> Read:
        target = self._multiple_of(picture.size)
        if self.settings.over_max != TILE or self.tiling is None or fits(target, self.buckets):
            return super()._read_picture(picture)
        height, width = picture.size
        says = f"the picture has {height}x{width} pixels (height x width), "
        cuts = self.tiling.cut(target, self.buckets, self.taken.sides if self.taken else None)
        if cuts is None:
            steps = bucket_name((self.tiling.height.stride, self.tiling.width.stride))
            raise UnprocessableInput(
                f"{says}and no tiles of sizes that the model takes cover it: send one whose sides are "
                f"multiples of {steps}"
            )
        rows, columns = cuts
        count = len(rows) * len(columns)
        if count > self.chosen["max_tiles"]:
            raise InputTooLarge(
                f"{says}which takes {count} tiles, more than the limit of {self.chosen['max_tiles']} "
                "(handler.task_options.max_tiles): send a smaller one"
            )
        pixels = self._fitted(decode(picture, self.channels), target, shrink=False)
        items = [
            self.item(pixels[top:bottom, left:right], picture.size, None)
            for top, bottom in rows
            for left, right in columns
        ]
        return Parts(items, True, {"size": picture.size, "seen": target, "tiles": cuts})

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        assert self.tiling is not None
        return self.answer_whole(self.tiling.join(rows, parts), parts, parameters)

    def answer_whole(self, output: np.ndarray, parts: Parts, parameters: Parameters) -> Answer:
        """The answer from the first output of the whole picture; the origin of `parts` has the picture's own
        `size` and the one at which the model has `seen` it. Raises ModelFailed."""
        raise NotImplementedError
