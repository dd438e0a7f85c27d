"""Multi-vector embeddings (ColBERT): a vector per token, as sentence-transformers' MultiVectorEncoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from anyshape.errors import InputTooLarge
from anyshape.items import Answer, Input, Item, Parts, Read, Row
from anyshape.padding import crop
from anyshape.settings import Settings
from anyshape.tasks.base import TO_CUT, Parameters, finite, one_of
from anyshape.tasks.sentence_embedding import SentenceEmbedding
from anyshape.tasks.text import Text
from anyshape.tasks.windows import OPTIONS, join

QUERY, DOCUMENT = "query", "document"


class MultiVectorEmbedding(SentenceEmbedding):
    """A vector for each token of a text: ``[tokens][width]``, to be compared token by token (MaxSim).

    Queries and documents are read differently: each side has its prompt and its length, queries are filled up
    with tokens that get vectors too, and the punctuation of documents gets none, as the model's files say.
    A text is a document unless it is asked for as a query. Long documents slide through windows.
    """

    name = "multi-vector-embedding"
    per_token = True
    parameters = {**SentenceEmbedding.parameters, "input_type": one_of(QUERY, DOCUMENT)}
    options = {**OPTIONS, "prompts": None, "query_length": None, "document_length": None}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.most_of = {QUERY: self.saved["query_length"], DOCUMENT: self.saved["document_length"]}
        self.expansion: Optional[Dict[str, Any]] = self.saved["expansion"]
        if self.expansion is not None:
            length = self.expansion["length"]
            longer = None if self.most_of[QUERY] is None else max(self.most_of[QUERY], length)
            self.most_of[QUERY] = length if self.expansion["fixed"] else longer
        model_takes = self.max_length
        self.max_length = self.most_of[DOCUMENT] or model_takes
        self.most_of[QUERY] = self.most_of[QUERY] or model_takes
        self.skipped = {side: np.asarray(ids) for side, ids in self.saved["skipped"].items()}

    def _side(self, parameters: Parameters) -> str:
        """What a text is read as: what the request says, or the prompt that it names."""
        named = QUERY if parameters.get("prompt_name") == QUERY else DOCUMENT
        return str(parameters.get("input_type", named))

    def _prompt(self, parameters: Parameters) -> str:
        if parameters.get("prompt") is None and parameters.get("prompt_name") is None:
            return self.prompts.by_name.get(self._side(parameters), "")
        return super()._prompt(parameters)

    def limit_of(self, parameters: Parameters) -> int:
        (largest,) = self.buckets[-1]
        if self._side(parameters) == DOCUMENT:
            return self.limit
        return min(largest, self.most_of[QUERY] or largest)

    def _too_long(self, tokens: Any, parameters: Parameters) -> InputTooLarge:
        limit = self.limit_of(parameters)
        if self._side(parameters) == DOCUMENT or limit != self.most_of[QUERY]:
            return super()._too_long(tokens, parameters)
        return InputTooLarge(
            f"the query has {tokens} tokens, and those of this model have at most {limit}: shorten it{TO_CUT}"
        )

    def _sliding(self, encoding: Any, text: Text, parameters: Parameters) -> Tuple[int, int]:
        if self._side(parameters) == QUERY:
            return 0, 0
        return super()._sliding(encoding, text, parameters)

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        items = super().read(inputs, parameters)
        if self.expansion is None:
            return items
        return [
            self._filled_up(item, self.expansion)
            if isinstance(item, Item) and self._side(chosen) == QUERY
            else item
            for item, chosen in zip(items, parameters)
        ]

    def _filled_up(self, item: Item, expansion: Dict[str, Any]) -> Item:
        """A query with the tokens that are put behind it; what it brings as its mask hides them."""
        (length,) = item.size
        more = expansion["length"] - length
        if more <= 0:
            return item
        fill = {"input_ids": expansion["token"], **self.token_inputs.constants()}
        data = {name: [*values, *[fill.get(name, 0)] * more] for name, values in item.data.items()}
        if not expansion["attends"]:
            data["attention_mask"] = [1] * length + [0] * more
        return Item((length + more,), data, item.changed, item.origin)

    def unpad(self, row: Row, item: Item) -> Row:
        return (crop(row[0], item.size, 0),)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        skipped = self.skipped.get(self._side(parameters))
        vectors = finite(row[0])
        return vectors if skipped is None else vectors[~np.isin(item.data["input_ids"], skipped)]

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        return self.answer((join(rows, parts),), parts.origin["whole"], parameters)
