"""What tasks on text share: texts, or pairs of them, into tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from tokenizers import Tokenizer

from anyshape.bodies import TEXT
from anyshape.errors import InputTooLarge, Refused, UnprocessableInput
from anyshape.failures import EXITS
from anyshape.items import Item, ItemOrRefused
from anyshape.padding import DATA, MASK, InputSpec
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters, Task, boolean
from anyshape.tasks.beginnings import Beginnings

TOKENIZER, SETTINGS = "tokenizer.json", "text.json"
POOLING_MASK = "pooling_mask"
Text = Union[str, Tuple[str, str]]  # one text, or a pair


class TextTask(Task):
    """What tasks on text share: a tokenizer, called once for a whole batch, and inputs of one side.

    The tokenizers library itself is used, not its wrapper in transformers: a worker then starts in a
    second and stays small. Every text is tokenised at its full length first, so that an error or a
    truncation can name it; only what its beginning shows to be far too long is not. May be called by
    several threads at once.
    """

    body = TEXT
    over_max = ("reject", "truncate")
    parameters = {"truncation": boolean}

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self._truncating: Optional[Tokenizer] = None
        self._beginnings = Beginnings(self.tokenizer)
        empty: List[int] = self.tokenizer.encode("").ids
        self.smallest = max(1, len(empty))
        self.saved = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.truncation_side: str = self.saved["truncation_side"]
        self.max_length: Optional[int] = None  # in tokens, where the task bounds what its buckets take
        # Ids from here on have no embedding; None where every token has one.
        self.embeddings: Optional[int] = self.saved["embeddings"]
        self.vocabulary = min(self.tokenizer.get_vocab_size(), self.embeddings or sys.maxsize)
        self.pad_id: int = self.saved["pad_token_id"]
        pads = {"input_ids": self.pad_id, "token_type_ids": self.saved["pad_token_type_id"]}
        # Calls of blank texts warm the programs. The token that ends a text may stand anywhere: padding alone
        # or a mask that keeps everything out would make NaN or leave a model without what it looks for.
        blanks = {"input_ids": empty[-1] if empty else 0, POOLING_MASK: 1}
        self.inputs = tuple(
            InputSpec(name, "int64", MASK)
            if name == "attention_mask"
            else InputSpec(name, "int64", DATA, pads.get(name, 0), blank=blanks.get(name, 0))
            for name in self.saved["inputs"]
        )
        self.names = [spec.name for spec in self.inputs if spec.kind == DATA]

    def read(self, inputs: Sequence[Any], parameters: Sequence[Parameters]) -> List[ItemOrRefused]:
        results: Dict[int, ItemOrRefused] = {}
        texts: Dict[int, Text] = {}
        for i, value in enumerate(inputs):
            try:
                texts[i] = self._prepared(self._text(value), parameters[i])
            except Refused as error:
                results[i] = error
        for i in self._certainly_too_long(texts, parameters):
            del texts[i]
            results[i] = self._too_long(f"more than {self.limit}")
        for i, encoding in zip(texts, self._encode(list(texts.values()))):
            failed = isinstance(encoding, Refused)
            results[i] = encoding if failed else self._item(encoding, texts[i], parameters[i])
        return [results[i] for i in range(len(inputs))]

    def _certainly_too_long(self, texts: Dict[int, Text], parameters: Sequence[Parameters]) -> List[int]:
        """The places of the texts that are to be refused and need not be tokenised in full for that."""
        long = {}
        for i, text in texts.items():
            longest = text if isinstance(text, str) else max(text, key=len)
            if not self._cuts(parameters[i]) and self._beginnings.are_long(len(longest), self.limit):
                long[i] = longest
        try:
            exceed = self._beginnings.exceed(list(long.values()), self.limit)
        except EXITS:
            raise
        except BaseException:  # one of them cannot be read: `_encode` finds which
            return []
        return [i for i, exceeds in zip(long, exceed) if exceeds]

    def _encode(self, texts: List[Text]) -> List[Any]:
        """All texts in one call. If that fails, each alone: a text that cannot be read is an error itself."""
        if not texts:
            return []
        try:
            return list(self.tokenizer.encode_batch(texts))
        except EXITS:
            raise
        except BaseException as error:  # a panic in the tokenizer is no Exception
            if len(texts) > 1:
                return [encoding for text in texts for encoding in self._encode([text])]
            reason = str(error)[:200]  # to the client alone, for it may quote the text
            return [UnprocessableInput(f"the tokenizer cannot read the text: {reason}")]

    def _cuts(self, parameters: Parameters) -> bool:
        """Whether a text that is too long is to be cut."""
        return bool(parameters.get("truncation", self.settings.over_max == "truncate"))

    def _too_long(self, tokens: Any) -> InputTooLarge:
        return InputTooLarge(
            f"the input has {tokens} tokens, and {self._limit_from()}: "
            'shorten it, or send {"parameters": {"truncation": true}}'
        )

    def _text(self, value: Any) -> Text:
        """A text, or a pair of texts. Raises UnprocessableInput or InputTooLarge."""
        if isinstance(value, str):
            return self._checked(value)
        if isinstance(value, dict) and "text" in value and set(value) <= {"text", "text_pair"}:
            if value.get("text_pair") in (None, ""):  # an empty second text is none, as in transformers
                return self._checked(value["text"])
            return self._checked(value["text"]), self._checked(value["text_pair"])
        raise UnprocessableInput('an input is a text or {"text": ..., "text_pair": ...}, not ' + _kind(value))

    def _prepared(self, text: Text, parameters: Parameters) -> Text:
        """The text as it is tokenised. Raises UnprocessableInput or InputTooLarge."""
        return text

    def _checked(self, text: Any) -> str:
        if not isinstance(text, str):
            raise UnprocessableInput("a text must be a JSON string, not " + _kind(text))
        if len(text) > self.settings.max_characters:
            raise InputTooLarge(
                f"a text of {len(text)} characters is longer than the limit of "
                f"{self.settings.max_characters} characters"
            )
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UnprocessableInput(
                    f"the text has half of a surrogate pair at character {error.start}"
                ) from None
        return text

    def _item(self, encoding: Any, text: Text, parameters: Parameters) -> ItemOrRefused:
        length, limit, changed = len(encoding), self.limit, None
        if length > limit:
            if self._cuts(parameters):
                encoding = self._truncate(text, limit)
                changed = f"{length} tokens to {len(encoding)}"
            if len(encoding) > limit:  # the tokens that the model itself needs are never cut
                return self._too_long(length)
            length = len(encoding)
        if self.embeddings is not None and max(encoding.ids, default=0) >= self.embeddings:
            token = next(token for token, i in zip(encoding.tokens, encoding.ids) if i >= self.embeddings)
            return UnprocessableInput(f"the text has the token {token!r}, which the model does not know")
        data: Dict[str, Any] = {"input_ids": encoding.ids}
        if "token_type_ids" in self.names:
            data["token_type_ids"] = encoding.type_ids
        if length == 0:  # a tokenizer without special tokens makes nothing of an empty text
            length, data = 1, {name: [self.pad_id] for name in self.names}
        return Item((length,), data, changed)

    @property
    def limit(self) -> int:
        """The most tokens that an input may have."""
        (largest,) = self.buckets[-1]
        return largest if self.max_length is None else min(largest, self.max_length)

    def _limit_from(self) -> str:
        (largest,) = self.buckets[-1]
        if self.limit < largest:
            return f"the model takes {self.limit} (handler.task_options.max_length, when it is built)"
        return f"the largest bucket takes {largest}"

    def _truncate(self, text: Text, length: int) -> Any:
        if self._truncating is None:
            truncating = Tokenizer.from_str(self.tokenizer.to_str())
            truncating.no_padding()
            truncating.enable_truncation(length, strategy="longest_first", direction=self.truncation_side)
            self._truncating = truncating  # now that it truncates: another thread may be waiting for it
        pair = text if isinstance(text, tuple) else (text,)
        return self._truncating.encode(*pair)


def _kind(value: Any) -> str:
    """What a JSON value is called, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "that kind of value")
