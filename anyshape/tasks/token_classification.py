"""Classes of tokens, of words or of entities, as the pipeline `token-classification` gives them."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np

from anyshape.errors import UnprocessableInput
from anyshape.items import Answer, Item, Parts, Row
from anyshape.padding import crop
from anyshape.tasks.base import Parameters, finite, one_of, softmax, texts
from anyshape.tasks.entities import Token, group_entities, one_per_token, one_per_word
from anyshape.tasks.text import Text, TextTask
from anyshape.tasks.token_inputs import places
from anyshape.tasks.windows import OPTIONS, join

STRATEGIES = ("none", "simple", "first", "average", "max")


class TokenClassification(TextTask):
    """Entities with their places in the text, in characters. Special tokens never answer."""

    name = "token-classification"
    per_token = True
    over_max = ("reject", "truncate", "window")
    options = OPTIONS
    parameters = {
        **TextTask.parameters,
        "aggregation_strategy": one_of(*STRATEGIES),
        "ignore_labels": texts,
    }

    def _text(self, value: Any) -> Text:
        text = super()._text(value)
        if not isinstance(text, str):
            raise UnprocessableInput("token-classification takes one text, not a pair")
        return text

    def _origin(self, encoding: Any, text: Text) -> Dict[str, Any]:
        assert isinstance(text, str)
        return {"text": text, "offsets": places(encoding, text), "special": encoding.special_tokens_mask}

    def unpad(self, row: Row, item: Item) -> Row:
        return (crop(row[0], item.size, 0),)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Answer:
        strategy = parameters.get("aggregation_strategy", "none")
        tokens = self._tokens(softmax(finite(np.asarray(row[0], np.float32))), item)
        labels = self.labels(row[0].shape[-1])
        if strategy in ("none", "simple"):
            entities = one_per_token(tokens, labels)
        else:
            entities = one_per_word(tokens, labels, strategy, self._joined)
        if strategy != "none":
            entities = group_entities(entities, self._joined)
        ignored = parameters.get("ignore_labels", ["O"])
        return [e for e in entities if e.get("entity", e.get("entity_group")) not in ignored]

    def merge(self, rows: Sequence[Row], parts: Parts, parameters: Parameters) -> Answer:
        return self.answer((join(rows, parts),), parts.origin["whole"], parameters)

    def _tokens(self, scores: Any, item: Item) -> List[Token]:
        """The tokens of the text itself, each with its word, its place and its scores."""
        text, ids = item.origin["text"], item.data["input_ids"]
        words = bool(getattr(self.tokenizer.model, "continuing_subword_prefix", None))
        tokens = []
        for i, ((start, end), special) in enumerate(zip(item.origin["offsets"], item.origin["special"])):
            if special:
                continue
            word, written = self.tokenizer.id_to_token(ids[i]) or "", text[start:end]
            if words:  # the tokenizer knows words: the token of a continued one has a prefix
                continues = len(word) != len(written)
            else:
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            if ids[i] == self.saved["unk_token_id"]:
                word, continues = written, False
            tokens.append(Token(word, scores[i], start, end, i, continues))
        return tokens

    def _joined(self, words: List[str]) -> str:
        """Tokens as text again, the tokenizer's way."""
        decoder = self.tokenizer.decoder
        return " ".join(words) if decoder is None else str(decoder.decode(words))
