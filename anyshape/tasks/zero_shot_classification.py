"""Labels that a model was not trained with, as the pipeline `zero-shot-classification` gives them."""

from __future__ import annotations

from typing import Any, List, Sequence

import numpy as np

from anyshape.errors import UnprocessableInput
from anyshape.items import Answer, Item, Parts, Row
from anyshape.tasks.base import Parameters, boolean, finite, softmax
from anyshape.tasks.pairs import Pair, PairsTask
from anyshape.tasks.text import TextTask

TEMPLATE = "This example is {}."


def labels(value: Any) -> List[str]:
    """A parameter that is a list of labels, or a text of some with commas between them."""
    if isinstance(value, str):
        value = [label.strip() for label in value.split(",") if label.strip()]
    if not isinstance(value, list) or not value or not all(isinstance(label, str) for label in value):
        raise ValueError("must be a list of texts, not empty")
    return value


def template(value: Any) -> str:
    """A parameter that is a sentence with a place for the label."""
    braces = value.replace("{}", "", 1) if isinstance(value, str) and "{}" in value else "{"
    if "{" in braces or "}" in braces:
        raise ValueError("must be a text that has {} once, and no other braces")
    return str(value)


class ZeroShotClassification(PairsTask):
    """A text with a hypothesis for each label: how much the text entails it is the label's score."""

    name = "zero-shot-classification"
    strategy = "only_first"  # a hypothesis is never cut
    parameters = {
        **TextTask.parameters,
        "candidate_labels": labels,
        "hypothesis_template": template,
        "multi_label": boolean,
    }

    def _count(self, value: Any, parameters: Parameters) -> int:
        return len(parameters.get("candidate_labels", [""]))

    def _pairs(self, value: Any, parameters: Parameters) -> List[Pair]:
        if "candidate_labels" not in parameters:
            raise UnprocessableInput(
                'zero-shot-classification needs labels: {"parameters": {"candidate_labels": ["...", "..."]}}'
            )
        text = self._checked(value)
        if not text:
            raise UnprocessableInput("the text is empty")
        sentence = parameters.get("hypothesis_template", TEMPLATE)
        return [(text, sentence.replace("{}", label)) for label in parameters["candidate_labels"]]

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        """For a pair alone, as the build asks: its label is unknown."""
        return self.merge([row], Parts([item], origin={"input": ""}), {"candidate_labels": [""]})

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        names, logits = parameters["candidate_labels"], np.stack([row[0] for row in rows])
        finite(logits)
        entailed = self.saved["entailment"]
        if parameters.get("multi_label", False) or len(names) == 1:
            against = logits.shape[1] - 1 if entailed == 0 else 0
            scores = softmax(logits[:, [against, entailed]].astype(np.float32))[:, 1]
        else:
            scores = softmax(logits[:, entailed].astype(np.float32))
        order = np.argsort(scores)[::-1]
        return {
            "sequence": parts.origin["input"],
            "labels": [names[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }
