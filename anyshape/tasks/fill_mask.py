"""Words for the masks of a text, as transformers' pipeline `fill-mask` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from anyshape.errors import InputTooLarge, UnprocessableInput
from anyshape.items import Answer, Input, Item, Parts, Read, Row
from anyshape.padding import DATA, InputSpec
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, finite, softmax, whole_number
from anyshape.tasks.text import Text, TextTask

ANSWERED = "answered"  # the input that is 1 at the mask which is answered
MOST = 1000  # words for one mask

_SPACES = [  # that some tokenizers leave between words, and what stands instead
    *((f" {mark}", mark) for mark in (".", "?", "!", ",")),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
]


def targets(value: Any) -> List[str]:
    """A parameter that is a text or a list of some."""
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(t, str) for t in value) or len(value) > MOST:
        raise ValueError(f"must be a text or a list of at most {MOST} texts")
    return value


class FillMask(TextTask):
    """The likeliest tokens for each mask of a text. The scores of the whole vocabulary are made at it alone.

    A text with several masks is an item for each.
    """

    name = "fill-mask"
    parameters = {**TextTask.parameters, "top_k": whole_number(1, MOST), "targets": targets}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.inputs = (*self.inputs, InputSpec(ANSWERED, "int64", DATA))
        self.names = [*self.names, ANSWERED]
        self.mask = str(self.tokenizer.id_to_token(self.saved["mask_token_id"]))

    def check_parameters(self, parameters: Parameters) -> Dict[str, Any]:
        checked = super().check_parameters(parameters)
        if "targets" in checked:
            checked["targets"] = self._target_ids(checked["targets"])
        return checked

    def _target_ids(self, words: Sequence[str]) -> List[int]:
        """Their ids; what is no token is taken for the first token that is made of it."""
        found = []
        for word in words:
            known = self.tokenizer.token_to_id(self._checked(word))
            ids = self.tokenizer.encode(word, add_special_tokens=False).ids if known is None else [known]
            found.extend(ids[:1])
        found = sorted(set(found))
        if not found or (self.embeddings is not None and found[-1] >= self.embeddings):
            raise UnprocessableInput("parameter 'targets' needs words that the model has tokens for")
        return found

    def _text(self, value: Any) -> Text:
        text = super()._text(value)
        if not isinstance(text, str):
            raise UnprocessableInput("fill-mask takes one text, not a pair")
        return text

    def check_request(self, inputs: Sequence[Input], parameters: Parameters) -> None:
        texts = (value.get("text") if isinstance(value, dict) else value for value in inputs)
        self._check_masks(
            sum(text.count(self.mask) for text in texts if isinstance(text, str)), "in one request"
        )

    def _check_masks(self, count: int, where: str) -> None:
        if count > self.settings.max_items:
            raise InputTooLarge(
                f"{count} masks {where} are more than the limit of {self.settings.max_items} "
                "(handler.max_items): send fewer at once"
            )

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        return [
            self._asked(one) if isinstance(one, Item) else one for one in super().read(inputs, parameters)
        ]

    def _asked(self, item: Item) -> Read:
        """The item, or one for each of its masks."""
        ids = item.data["input_ids"]
        masks = [i for i, token in enumerate(ids) if token == self.saved["mask_token_id"]]
        if not masks:
            return UnprocessableInput(f"the text has no {self.mask}: write it where a word is wanted")
        try:
            self._check_masks(len(masks), "in one text")
        except InputTooLarge as error:
            return error
        items = [
            Item(item.size, {**item.data, ANSWERED: [int(i == mask) for i in range(len(ids))]}, item.changed)
            for mask in masks
        ]
        return items[0] if len(items) == 1 else Parts(items)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        return self._words(row, item, parameters, alone=True)

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        return [self._words(row, item, parameters, alone=False) for row, item in zip(rows, parts.items)]

    def _words(self, row: Row, item: Item, parameters: Parameters, alone: bool) -> List[Dict[str, Any]]:
        scores = softmax(finite(np.asarray(row[0], np.float32)))
        ids = np.asarray(parameters.get("targets", range(len(scores))))
        best = ids[np.argsort(-scores[ids], kind="stable")[: parameters.get("top_k", 5)]]
        place = item.data[ANSWERED].index(1)
        answers = []
        for token in best.tolist():
            filled = [*item.data["input_ids"]]
            filled[place] = token
            filled = [i for i in filled if i != self.saved["padding"]]
            answers.append(
                {
                    "score": float(scores[token]),
                    "token": token,
                    "token_str": self._decoded([token], False),
                    # The other masks stay in sight, and with them all special tokens.
                    "sequence": self._decoded(filled, alone),
                }
            )
        return answers

    def _decoded(self, ids: List[int], skip_special: bool) -> str:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=skip_special))
        if self.saved["cleans_up"]:
            for found, instead in _SPACES:
                text = text.replace(found, instead)
        return text
