"""Classes of a recording, as the pipeline `audio-classification` gives them."""

from __future__ import annotations

from anyshape.items import Answer, Item, Row
from anyshape.tasks.audio import AudioTask
from anyshape.tasks.base import Parameters, one_of, positive_int_or_none, top_classes


class AudioClassification(AudioTask):
    """Labels with scores, best first; five of them, or `top_k`."""

    name = "audio-classification"
    parameters = {
        "top_k": positive_int_or_none,
        "function_to_apply": one_of("softmax", "sigmoid", "none"),
    }

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        count = len(row[0])
        labels = self.labels if len(self.labels) == count else [f"LABEL_{i}" for i in range(count)]
        function = parameters.get("function_to_apply", self.saved["function"])
        return top_classes(row[0], labels, parameters.get("top_k", 5), function)
