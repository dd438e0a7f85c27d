"""Texts ranked by how well they fit a query, as sentence-transformers' CrossEncoder ranks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from anyshape.errors import UnprocessableInput
from anyshape.items import Answer, Item, Parts, Row
from anyshape.settings import Settings
from anyshape.tasks import prompts
from anyshape.tasks.base import Parameters, boolean, finite, positive_int_or_none
from anyshape.tasks.pairs import Pair, PairsTask
from anyshape.tasks.prompts import Prompts
from anyshape.tasks.text import Text, TextTask

EXPECTED = '{"query": "...", "texts": ["...", "..."]}, or a pair {"text": "...", "text_pair": "..."}'


class TextRanking(PairsTask):
    """The texts' places and scores, best first. A pair gets its score alone. Queries may have prompts."""

    name = "text-ranking"
    options = {**prompts.OPTIONS, "max_length": None}
    parameters = {
        **TextTask.parameters,
        **prompts.PARAMETERS,
        "raw_scores": boolean,
        "return_text": boolean,
        "top_k": positive_int_or_none,
    }

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.max_length = self.saved["sentence"]["max_length"]
        self.prompts = Prompts(self.saved["sentence"])

    def check_parameters(self, parameters: Parameters) -> Dict[str, Any]:
        checked = super().check_parameters(parameters)
        self.prompts.check(checked)
        return checked

    def _prepared(self, text: Text, parameters: Parameters) -> Text:
        prompt = self.prompts.of(parameters)
        return (self._checked(prompt + text[0]), text[1]) if prompt else text

    def _count(self, value: Any, parameters: Parameters) -> int:
        texts = value.get("texts") if isinstance(value, dict) else None
        return len(texts) if isinstance(texts, list) else 1

    def _pairs(self, value: Any, parameters: Parameters) -> List[Pair]:
        if not isinstance(value, dict) or set(value) not in ({"query", "texts"}, {"text", "text_pair"}):
            raise UnprocessableInput(f"an input is {EXPECTED}")
        if "text" in value:
            return [(self._checked(value["text"]), self._checked(value["text_pair"]))]
        texts, query = value["texts"], self._checked(value["query"])
        if not isinstance(texts, list) or not texts:
            raise UnprocessableInput("texts must be a list of texts, not empty")
        return [(query, self._checked(text)) for text in texts]

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        return {"score": self._score(row, parameters)}

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        asked = parts.origin["input"]
        if "text" in asked:
            return self.answer(rows[0], parts.items[0], parameters)
        found: List[Dict[str, Any]] = [
            {"index": i, "score": self._score(row, parameters)} for i, row in enumerate(rows)
        ]
        if parameters.get("return_text", False):
            for one, text in zip(found, asked["texts"]):
                one["text"] = text
        found.sort(key=lambda one: one["score"], reverse=True)
        return found[: parameters.get("top_k")]

    def _score(self, row: Row, parameters: Parameters) -> float:
        (score,) = finite(np.asarray(row[0], np.float32))
        if self.saved["activation"] == "sigmoid" and not parameters.get("raw_scores", False):
            score = 0.5 + 0.5 * np.tanh(score / 2)  # the same, and never overflows
        return float(score)
