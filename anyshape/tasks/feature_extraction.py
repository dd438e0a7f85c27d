"""Token embeddings of a text, as the pipeline `feature-extraction` gives them."""

from __future__ import annotations

from typing import Sequence

from anyshape.items import Answer, Item, Parts, Row
from anyshape.padding import crop
from anyshape.tasks.base import Parameters, finite
from anyshape.tasks.text import TextTask
from anyshape.tasks.windows import OPTIONS, join


class FeatureExtraction(TextTask):
    """One vector per token, as the pipeline `feature-extraction` gives them: ``[1][tokens][width]``."""

    name = "feature-extraction"
    per_token = True
    over_max = ("reject", "truncate", "window")
    options = OPTIONS

    def unpad(self, row: Row, item: Item) -> Row:
        return (crop(row[0], item.size, 0),)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        return finite(row[0])[None]

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        return finite(join(rows, parts))[None]
