"""Classes of a text or of a pair, as the pipeline `text-classification` gives them."""

from __future__ import annotations

from typing import Sequence

from anyshape.items import Answer, Item, Parts, Row
from anyshape.tasks.base import Parameters, one_of, positive_int_or_none, top_classes
from anyshape.tasks.text import TextTask
from anyshape.tasks.windows import OPTIONS, mean


class TextClassification(TextTask):
    """Labels with scores, best first: the best one, or `top_k` of them."""

    name = "text-classification"
    over_max = ("reject", "truncate", "window")
    options = OPTIONS
    parameters = {
        **TextTask.parameters,
        "top_k": positive_int_or_none,
        "function_to_apply": one_of("softmax", "sigmoid", "none"),
    }

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        labels = self.labels(len(row[0]))
        function = parameters.get("function_to_apply") or self._usual_function(len(labels))
        top_k = parameters.get("top_k", 1)
        answers = top_classes(row[0], labels, top_k, function)
        return answers if "top_k" in parameters else answers[0]

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        return self.answer((mean(rows, parts),), parts.origin["whole"], parameters)

    def _usual_function(self, classes: int) -> str:
        """What the pipeline does with the scores of such a model."""
        if self.saved["problem_type"] == "regression":
            return "none"
        if self.saved["problem_type"] == "multi_label_classification" or classes == 1:
            return "sigmoid"
        return "softmax"
