"""Sentence embeddings: one vector per text, as sentence-transformers' `encode` gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from anyshape.errors import Refused, UnprocessableInput
from anyshape.items import Answer, Input, Item, ItemOrRefused, Parts, Read, Row
from anyshape.settings import Settings
from anyshape.tasks import prompts
from anyshape.tasks.base import Parameters, finite
from anyshape.tasks.prompts import Prompts
from anyshape.tasks.text import POOLING_MASK, Text, TextTask
from anyshape.tasks.token_inputs import encoded
from anyshape.tasks.windows import OPTIONS, mean


class SentenceEmbedding(TextTask):
    """One vector per text. Pooling and what follows it are inside the compiled model.

    A prompt is put before the text (before the first of a pair): the one that the request brings or names,
    else the model's own for such requests. Where the model does not pool a prompt's tokens, the mask that it
    pools by is an input of its own. The windows of a long text all have the prompt, and the mean of their
    vectors, each counting by its tokens, is the text's.
    """

    name = "sentence-embedding"
    parameters = {**TextTask.parameters, **prompts.PARAMETERS}
    over_max = ("reject", "truncate", "window")
    offsets = False
    options = {
        **OPTIONS,
        **prompts.OPTIONS,
        "pooling": None,
        "normalize": None,
        "include_prompt": None,
        "max_length": None,
        "dimensions": None,
    }

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        saved = self.saved["sentence"]
        self.max_length = saved["max_length"]
        self.prompts = Prompts(saved)
        self.special_ids = set(saved["special_ids"])

    def check_parameters(self, parameters: Parameters) -> Dict[str, Any]:
        checked = super().check_parameters(parameters)
        self.prompts.check(checked)
        return checked

    def _prompt(self, parameters: Parameters) -> str:
        """The prompt of a request."""
        return self.prompts.of(parameters)

    def _prepared(self, text: Text, parameters: Parameters) -> Text:
        prompt = self._prompt(parameters)
        if not prompt:
            return text
        if self.token_inputs.by_word:
            name = self.token_inputs.by_word[0]
            raise UnprocessableInput(f"a prompt has no {name}: send it as words of the text")
        if isinstance(text, tuple):
            return self._checked(prompt + text[0]), text[1]
        return self._checked(prompt + text)

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        items = super().read(inputs, parameters)
        if POOLING_MASK not in self.names:
            return items
        lengths: Dict[str, int] = {}  # of this batch's prompts, each tokenised once
        for i, item in enumerate(items):
            if isinstance(item, Refused):
                continue
            prompt = self._prompt(parameters[i])
            if prompt not in lengths:
                lengths[prompt] = self._prompt_length(prompt)
            for part in item.items if isinstance(item, Parts) else [item]:
                marked = self._without_prompt(part, lengths[prompt])
                if isinstance(marked, Refused):
                    items[i] = marked
        return items

    def _sliding(self, encoding: Any, text: Text, parameters: Parameters) -> Tuple[int, int]:
        start, end = super()._sliding(encoding, text, parameters)
        prompt = len(self._prompt(parameters))
        if not prompt or not isinstance(text, str):
            return start, end
        (placed,) = encoded(self.tokenizer, [text])
        return start + sum(first < prompt for first, _ in placed.offsets[start:end]), end

    def _prompt_length(self, prompt: str) -> int:
        """Its tokens as encode counts them: with special ones before it, without a special one after it."""
        if not prompt:
            return 0
        ids = self.tokenizer.encode(prompt).ids[: self.limit]
        return len(ids) - (1 if ids and ids[-1] in self.special_ids else 0)

    def _without_prompt(self, item: Item, prompt: int) -> ItemOrRefused:
        (length,) = item.size
        if prompt >= length:
            return UnprocessableInput("nothing of the input is left to pool: the prompt is all of it")
        item.data[POOLING_MASK] = [0] * prompt + [1] * (length - prompt)
        return item

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        return finite(row[0])

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        vector = finite(mean(rows, parts))
        if self.saved["sentence"]["normalized"]:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector
