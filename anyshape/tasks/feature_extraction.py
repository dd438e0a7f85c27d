"""Token embeddings of a text, as the pipeline `feature-extraction` gives them."""

from __future__ import annotations

from typing import Any

from anyshape.items import Item, Row
from anyshape.padding import crop
from anyshape.tasks.base import Parameters, finite
from anyshape.tasks.text import TextTask


class FeatureExtraction(TextTask):
    """One vector per token, as the pipeline `feature-extraction` gives them: ``[1][tokens][width]``."""

    name = "feature-extraction"

    def unpad(self, row: Row, item: Item) -> Row:
        return (crop(row[0], item.size, 0),)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        return finite(row[0])[None]
