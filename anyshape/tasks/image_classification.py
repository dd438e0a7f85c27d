"""Classes of a picture, as the pipeline `image-classification` gives them."""

from __future__ import annotations

from typing import List

from anyshape.items import Answer, Item, Row
from anyshape.tasks.base import Parameters, one_of, positive_int_or_none, top_classes
from anyshape.tasks.image import ImageTask


class ImageClassification(ImageTask):
    """Labels with scores, best first; five of them, or `top_k`."""

    name = "image-classification"
    parameters = {
        "top_k": positive_int_or_none,
        "function_to_apply": one_of("softmax", "sigmoid", "none"),
    }

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        labels = self.labels if len(self.labels) == len(row[0]) else _numbered(len(row[0]))
        function = parameters.get("function_to_apply", "sigmoid" if len(labels) == 1 else "softmax")
        return top_classes(row[0], labels, parameters.get("top_k", 5), function)


def _numbered(count: int) -> List[str]:
    return [f"LABEL_{i}" for i in range(count)]
