"""What tasks on text share: texts, or pairs of them, into tokens."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from tokenizers import Tokenizer

from anyshape.settings import HandlerConfig
from anyshape.errors import InputTooLarge, RequestError, UnprocessableInput
from anyshape.failures import EXITS
from anyshape.padding import DATA, MASK, InputSpec, Item
from anyshape.tasks.base import Parameters, Task, boolean
from anyshape.tasks.beginnings import Beginnings

TOKENIZER, SETTINGS = "tokenizer.json", "text.json"
Text = Union[str, Tuple[str, str]]  # one text, or a pair


class TextTask(Task):
    """What tasks on text share: a tokenizer, called once for a whole batch, and inputs of one side.

    The tokenizers library itself is used, not its wrapper in transformers: a worker then starts in a
    second and stays small. Every text is tokenised at its full length first, so that an error or a
    truncation can name it; only what its beginning shows to be far too long is not. May be called by
    several threads at once.
    """

    body = "text"
    over_max = ("reject", "truncate")
    parameters = {"truncation": boolean}

    def __init__(self, config: HandlerConfig, folder: Path) -> None:
        super().__init__(config, folder)
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self._truncating: Optional[Tokenizer] = None
        self._beginnings = Beginnings(self.tokenizer)
        self.smallest = max(1, len(self.tokenizer.encode("").ids))  # the empty text's
        self.saved = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.truncation_side: str = self.saved["truncation_side"]
        self.max_length: Optional[int] = None  # in tokens, where the task bounds what its buckets take
        # Ids from here on have no embedding; None where every token has one.
        self.embeddings: Optional[int] = self.saved["embeddings"]
        self.vocabulary = min(self.tokenizer.get_vocab_size(), self.embeddings or sys.maxsize)
        self.pad_id: int = self.saved["pad_token_id"]
        pads = {"input_ids": self.pad_id, "token_type_ids": self.saved["pad_token_type_id"]}
        self.inputs = tuple(
            InputSpec(name, "int64", MASK)
            if name == "attention_mask"
            else InputSpec(name, "int64", DATA, pads.get(name, 0))
            for name in self.saved["inputs"]
        )
        self.names = [spec.name for spec in self.inputs if spec.kind == DATA]

    # Building

    @classmethod
    def save(cls, config: HandlerConfig, source: Any, model: torch.nn.Module, folder: Path) -> None:
        source.save_text(model, folder)

    def adapt(self, model: torch.nn.Module, exact: Callable[..., torch.nn.Module]) -> torch.nn.Module:
        return NamedInputs(model, [spec.name for spec in self.inputs])

    def sizes_to_check(
        self, bucket: Tuple[int, ...], smaller: Sequence[Tuple[int, ...]]
    ) -> List[Tuple[int, ...]]:
        """The empty text's, one more than the bucket before, a few between, one less than full, full."""
        (length,) = bucket
        least = min(self.smallest, length)
        start = max(least, smaller[-1][0] + 1) if smaller else least
        middle = (start + length) // 2
        sizes = {least, start, middle, length - 1, length}
        return [(size,) for size in sorted(sizes) if least <= size <= length]

    def sample(self, size: Tuple[int, ...], seed: int) -> Item:
        draw = random.Random(seed)
        ids = [draw.randrange(self.vocabulary) for _ in range(size[0])]
        ids = [(i + 1) % self.vocabulary if i == self.pad_id else i for i in ids]
        data = {"input_ids": ids, "token_type_ids": [0] * size[0]}
        return Item(size, {name: data[name] for name in self.names if name in data})

    # Serving

    def read(
        self, inputs: Sequence[Any], parameters: Sequence[Parameters]
    ) -> List[Union[Item, RequestError]]:
        results: Dict[int, Union[Item, RequestError]] = {}
        texts: Dict[int, Text] = {}
        for i, value in enumerate(inputs):
            try:
                texts[i] = self._prepared(self._text(value), parameters[i])
            except RequestError as error:
                results[i] = error
        for i in self._certainly_too_long(texts, parameters):
            del texts[i]
            results[i] = self._too_long(f"more than {self.limit}")
        for i, encoding in zip(texts, self._encode(list(texts.values()))):
            failed = isinstance(encoding, RequestError)
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
        return bool(parameters.get("truncation", self.config.over_max == "truncate"))

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
        if len(text) > self.config.max_characters:
            raise InputTooLarge(
                f"a text of {len(text)} characters is longer than the limit of "
                f"{self.config.max_characters} characters"
            )
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UnprocessableInput(
                    f"the text has half of a surrogate pair at character {error.start}"
                ) from None
        return text

    def _item(self, encoding: Any, text: Text, parameters: Parameters) -> Union[Item, RequestError]:
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


class NamedInputs(torch.nn.Module):
    """A Hugging Face model called with positional tensors; returns the tensors of its outputs."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = list(names)

    def outputs(self, *tensors: torch.Tensor) -> Any:
        named = dict(zip(self.names, tensors))
        result = self.model(**named)
        if isinstance(result, torch.Tensor):
            return result
        return result[0] if isinstance(result, (tuple, list)) else next(iter(result.values()))

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        return (self.outputs(*tensors).float(),)


def _kind(value: Any) -> str:
    """What a JSON value is called, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "that kind of value")
