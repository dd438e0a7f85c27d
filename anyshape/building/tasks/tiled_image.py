"""The building half of tasks whose answer is a map of the picture: how it is cut into tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
import torch

from anyshape.archive import ASSETS
from anyshape.buckets import Size, bucket_name, volume
from anyshape.building.deviation import deviation
from anyshape.building.tasks.image import ImageBuilder
from anyshape.building.tasks.tiles import measure_tiling
from anyshape.errors import ConfigError
from anyshape.items import Item, Parts
from anyshape.padding import PaddingBuffers
from anyshape.tasks import load_task
from anyshape.tasks.image import SETTINGS
from anyshape.tasks.tiled_image import TiledImageTask
from anyshape.tasks.tiles import TILE, Reach


class TiledImageBuilder(ImageBuilder):
    """With `over_max: tile`, measures how the model sees its picture and compares tiles with the whole."""

    task: TiledImageTask

    def examine(self, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
        super().examine(model, reference, folder)
        if self.settings.over_max != TILE:
            return
        taken = self.task.taken
        assert taken is not None
        largest = max(self.task.buckets, key=volume)
        plain: Any = reference.model
        tiling = measure_tiling(plain, self.task.channels, largest, taken.sides)
        saved = {**self.task.saved, "tiles": tiling.to_json()}
        (folder / ASSETS / SETTINGS).write_text(json.dumps(saved, indent=1), encoding="utf-8")
        task = load_task(self.settings, folder)
        assert isinstance(task, TiledImageTask)
        self.task = task
        self._compare(reference, largest)

    def _compare(self, reference: torch.nn.Module, bucket: Size) -> None:
        """The answer in tiles must be that of the whole picture, computed unpadded and at once; for a picture
        whose sides are multiples of the stride, and for one whose sides are not."""
        tiling, step = self.task.tiling, self.task.multiple
        assert tiling is not None
        sides = (tiling.height, tiling.width)
        even = tuple(_beyond(side, reach) for side, reach in zip(bucket, sides))
        odd = tuple(side + step for side in even)
        for size in (even, odd):
            found = self._deviation(reference, size)
            if found is None or found <= self.section.tolerance:
                continue
            steps = {reach.stride for reach in sides}
            advice = "it does something that depends on the whole size: say over_max: resize"
            if size is odd and all(step % stride for stride in steps):
                advice = (
                    f"for sides that are no multiples: set handler.task_options.multiple_of: {max(steps)}"
                )
            raise ConfigError(
                f"handler.over_max: tile: the answer to a picture of {bucket_name(size)} in tiles differs "
                f"from the whole one's by {found:.1e}; {advice}"
            )

    def _deviation(self, reference: torch.nn.Module, size: Size) -> Optional[float]:
        """None where no tiles cover the size, or the model refuses it."""
        tiling, taken = self.task.tiling, self.task.taken
        assert tiling is not None
        assert taken is not None
        cuts = tiling.cut(size, self.task.buckets, taken.sides)
        if cuts is None:
            return None
        whole = self.sample(size, 0)
        pixels = whole.data["pixel_values"]
        tiles = [
            Item((bottom - top, right - left), {"pixel_values": pixels[:, top:bottom, left:right]})
            for top, bottom in cuts[0]
            for left, right in cuts[1]
        ]
        try:
            expected = self._first(reference, whole)
        except Exception:  # a size that it does not take, though it takes all below
            return None
        rows = [(self._first(reference, tile),) for tile in tiles]
        found: float = deviation(tiling.join(rows, Parts(tiles, origin={"tiles": cuts})), expected)
        return found

    def _first(self, reference: torch.nn.Module, item: Item) -> np.ndarray[Any, Any]:
        tensors = PaddingBuffers(self.task.inputs).fill(item.size, 1, [item])
        with torch.no_grad():
            outputs: List[torch.Tensor] = list(reference(*tensors))
        first: np.ndarray[Any, Any] = outputs[0][0].numpy()
        return first


def _beyond(side: int, reach: Reach) -> int:
    """A length that takes two tiles of `side`, a multiple of the stride."""
    return (side // reach.stride + max(1, side // reach.stride // 4)) * reach.stride
