"""Features of a picture, as the pipeline `image-feature-extraction` gives them."""

from __future__ import annotations

import numpy as np

from anyshape.errors import UnprocessableInput
from anyshape.items import Answer, Item, Parts, Row
from anyshape.tasks.base import Parameters, boolean, finite
from anyshape.tasks.tiled_image import TiledImageTask


class ImageFeatureExtraction(TiledImageTask):
    """The model's first output without its padding; with `pool`, its pooled output."""

    name = "image-feature-extraction"
    outputs = 2
    parameters = {"pool": boolean}

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        if not parameters.get("pool", False):
            return finite(row[0])[None]
        if len(row) < 2:
            raise UnprocessableInput("this model has no pooled output: leave `pool` out")
        return finite(row[1])[None]

    def answer_whole(self, output: np.ndarray, parts: Parts, parameters: Parameters) -> Answer:
        if parameters.get("pool", False):
            raise UnprocessableInput(
                f"the picture was cut into {len(parts.items)} tiles, which have no pooled output together: "
                "leave `pool` out, or send a smaller one"
            )
        return finite(output)[None]
