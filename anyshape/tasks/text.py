"""What tasks on text share: texts, or pairs of them, into tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Optional, Sequence, Tuple, Union

from tokenizers import Tokenizer

from anyshape.bodies import TEXT
from anyshape.errors import ConfigError, InputTooLarge, Refused, UnprocessableInput
from anyshape.failures import EXITS
from anyshape.items import Input, Item, ItemOrRefused, Parts, Read
from anyshape.padding import DATA, MASK, InputSpec, blank
from anyshape.settings import Settings
from anyshape.tasks.base import TO_CUT, Parameters, Saved, Task, boolean, one_of
from anyshape.tasks.beginnings import Beginnings
from anyshape.tasks.token_inputs import TokenInputs, Words, encoded
from anyshape.tasks.windows import check_options, spans, usual_stride, window

TOKENIZER, SETTINGS = "tokenizer.json", "text.json"
POOLING_MASK = "pooling_mask"
Text = Union[str, Tuple[str, str]]  # one text, or a pair


def read_tokenizer(path: Path) -> Tokenizer:
    """Raises ConfigError, which names the file, where the tokenizers library cannot read it."""
    try:
        return Tokenizer.from_file(str(path))
    except EXITS:
        raise
    except BaseException as error:  # a bare Exception, or a panic
        said = f"{path.parent.name}/{path.name} cannot be read ({error})"
        raise ConfigError(f"{said}: build the archive again, or install its tokenizers") from None


class TextTask(Task):
    """What tasks on text share: a tokenizer, called once for a whole batch, and inputs of one side.

    The tokenizers library itself is used, not its wrapper in transformers: a worker then starts in a
    second and stays small. Every text is tokenised at its full length first, so that an error or a
    truncation can name it; only what its beginning shows to be far too long is not. May be called by
    several threads at once.
    """

    body = TEXT
    over_max: ClassVar[Sequence[str]] = ("reject", "truncate")
    parameters = {"truncation": boolean, "truncation_side": one_of("left", "right")}
    strategy: ClassVar[str] = "longest_first"  # how a pair is cut: one of the tokenizers library's
    fields: ClassVar[Sequence[str]] = ("text", "text_pair")  # of an input whose words have values
    takes_words: ClassVar[bool] = True  # whether words may have values
    # Whether it asks an encoding where its tokens stand in the text (`offsets`, `word_ids`). Where not, there
    # are none, and tokens are made sooner.
    offsets: ClassVar[bool] = True

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        check_options(self.chosen)
        self.tokenizer = read_tokenizer(folder / TOKENIZER)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self._truncating: Dict[Tuple[str, int], Tokenizer] = {}  # by the side that they cut, and to what
        self._beginnings = Beginnings(self.tokenizer)
        empty: List[int] = self.tokenizer.encode("").ids
        self.smallest = max(1, len(empty))
        self.saved = Saved(folder / SETTINGS)
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
        self.token_inputs = TokenInputs(self.saved["token_inputs"], self.tokenizer)
        if self.token_inputs.by_word and not self.takes_words:
            raise ConfigError(
                f"handler.inputs.{self.token_inputs.by_word[0]}: words have no values of their own in "
                f"{self.name}: give a number"
            )
        self.inputs = tuple(
            self.token_inputs.spec(name)
            if name in self.token_inputs.saved
            else InputSpec(name, "int64", MASK)
            if name == "attention_mask"
            else InputSpec(name, "int64", DATA, pads.get(name, 0), blank=blanks.get(name, 0))
            for name in self.saved["inputs"]
        )
        self.names = [spec.name for spec in self.inputs if spec.kind == DATA]

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        results: Dict[int, Read] = {}
        texts: Dict[int, Text] = {}
        for i, value in enumerate(inputs):
            try:
                texts[i] = self._prepared(self._text(value), parameters[i])
            except Refused as error:
                results[i] = error
        for i in self._certainly_too_long(texts, parameters):
            del texts[i]
            results[i] = self._too_long(f"more than {self.most}", parameters[i])
        for i, encoding in zip(texts, self._encode(list(texts.values()))):
            failed = isinstance(encoding, Refused)
            results[i] = encoding if failed else self._item(encoding, texts[i], parameters[i])
        return [results[i] for i in range(len(inputs))]

    def _certainly_too_long(self, texts: Dict[int, Text], parameters: Sequence[Parameters]) -> List[int]:
        """The places of the texts that are to be refused and need not be tokenised in full for that."""
        long = {}
        if self.token_inputs.by_word:  # such texts are tokenised word by word, and may have other tokens
            return []
        most = self.most
        for i, text in texts.items():
            longest = text if isinstance(text, str) else max(text, key=len)
            if self._beginnings.are_long(len(longest), most) and not self._cuts(parameters[i]):
                long[i] = longest
        try:
            exceed = self._beginnings.exceed(list(long.values()), most)
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
            return encoded(self.tokenizer, texts, self.offsets)
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

    def _too_long(self, tokens: Any, parameters: Parameters) -> InputTooLarge:
        return InputTooLarge(f"the input has {tokens} tokens, and {self._limit_from()}: shorten it{TO_CUT}")

    def _text(self, value: Any) -> Text:
        """A text, or a pair of texts. Raises UnprocessableInput or InputTooLarge."""
        if self.token_inputs.by_word:
            texts = self.token_inputs.read(value, self.fields, self._checked)
            return texts[0] if len(texts) == 1 else (texts[0], texts[1])
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

    def _item(self, encoding: Any, text: Text, parameters: Parameters) -> Read:
        """The item of a tokenised text, or what the policy for long ones makes of it."""
        length, limit = len(encoding), self.limit_of(parameters)
        least = self.buckets[0][0]
        if self.settings.unpadded and length < least:
            return UnprocessableInput(
                f"the input has {length} tokens, and the model takes no less than {least}"
            )
        if length <= limit:
            return self._made(encoding, text)
        if self._cuts(parameters):
            shorter = self._truncate(text, limit, parameters)
            if (
                shorter is not None and len(shorter) <= limit
            ):  # the tokens that the model itself needs are never cut
                item = self._made(shorter, text)
                if isinstance(item, Item):
                    item.changed = f"{length} tokens to {len(shorter)}"
                return item
        elif self.settings.over_max == "window":
            return self._windows(encoding, text, parameters)
        return self._too_long(length, parameters)

    def _made(self, encoding: Any, text: Text) -> ItemOrRefused:
        """The item of a tokenised text, however long."""
        ids = encoding.ids
        if self.embeddings is not None and max(ids, default=0) >= self.embeddings:
            token = next(token for token, i in zip(encoding.tokens, ids) if i >= self.embeddings)
            return UnprocessableInput(f"the text has the token {token!r}, which the model does not know")
        if not ids and self.embeddings is not None and self.pad_id >= self.embeddings:
            return UnprocessableInput("the text has no tokens")
        origin = self._origin(encoding, text)
        data: Dict[str, Any] = {"input_ids": ids}
        if "token_type_ids" in self.names:
            data["token_type_ids"] = encoding.type_ids
        if not ids:  # a tokenizer without special tokens makes nothing of an empty text
            return Item((1,), {**blank(self.inputs, (1,)).data, "input_ids": [self.pad_id]}, origin=origin)
        if self.token_inputs.saved:
            data.update(self.token_inputs.data(encoding, text if isinstance(text, tuple) else (text,)))
        return Item((len(ids),), data, origin=origin)

    def _windows(self, encoding: Any, text: Text, parameters: Parameters) -> Union[Parts, Refused]:
        """A text that is too long, as overlapping windows; their origin has the item of the `whole`."""
        start, end = self._sliding(encoding, text, parameters)
        length = len(encoding)
        if end <= start:
            return self._too_long(length, parameters)
        room = self.limit_of(parameters) - start - (length - end)
        try:
            cuts = spans(start, end, room, self._stride(parameters))
        except ValueError as error:
            return InputTooLarge(f"the input has {length} tokens, and {error}: shorten it{TO_CUT}")
        if len(cuts) > self.chosen["max_windows"]:
            return InputTooLarge(
                f"the input has {length} tokens, which takes {len(cuts)} windows, more than the limit of "
                f"{self.chosen['max_windows']} (handler.task_options.max_windows): shorten it{TO_CUT}"
            )
        whole = self._made(encoding, text)
        if isinstance(whole, Refused):
            return whole
        items = [window(whole, start, end, cut) for cut in cuts]
        return Parts(items, True, {"whole": whole, "start": start})

    def _sliding(self, encoding: Any, text: Text, parameters: Parameters) -> Tuple[int, int]:
        """The tokens that slide through the windows, from and to; none if it cannot be cut so."""
        if not isinstance(text, str):
            return 0, 0
        own = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        return own[0], own[-1] + 1

    def _stride(self, parameters: Parameters) -> int:
        """How many tokens a window has in common with the one before it."""
        stride: Optional[int] = self.chosen["stride"]
        return usual_stride(self.limit) if stride is None else stride

    def _origin(self, encoding: Any, text: Text) -> Dict[str, Any]:
        """What the answer needs to know of the text besides outputs; a list has a value per token."""
        return {}

    @property
    def limit(self) -> int:
        """The most tokens that an input may have."""
        (largest,) = self.buckets[-1]
        return largest if self.max_length is None else min(largest, self.max_length)

    def limit_of(self, parameters: Parameters) -> int:
        """The most tokens that an input with these parameters may have."""
        return self.limit

    @property
    def most(self) -> int:
        """No text of more tokens is answered, however it is cut into windows."""
        return self.limit * (self.chosen["max_windows"] if self.settings.over_max == "window" else 1)

    def _limit_from(self) -> str:
        (largest,) = self.buckets[-1]
        if self.limit < largest:
            return f"the model takes {self.limit} (handler.task_options.max_length, when it is built)"
        return f"the largest bucket takes {largest}"

    def labels(self, count: int) -> List[str]:
        """The names of a model's classes; numbers where there are none for this many."""
        names: List[str] = self.saved["labels"]
        return names if len(names) == count else [f"LABEL_{i}" for i in range(count)]

    def frame(self) -> Tuple[List[int], List[int]]:
        """The special tokens that stand before every text, and those behind it."""
        encoding = self.tokenizer.encode("a")
        own = [i for i, special in enumerate(encoding.special_tokens_mask) if not special] or [1]
        return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]

    def _truncate(self, text: Text, length: int, parameters: Parameters) -> Any:
        """The text cut to `length` tokens, or None where that cannot be."""
        side = parameters.get("truncation_side", self.truncation_side)
        if (side, length) not in self._truncating:
            truncating = Tokenizer.from_str(self.tokenizer.to_str())
            truncating.no_padding()
            truncating.enable_truncation(length, strategy=self.strategy, direction=side)
            # Now that it truncates: another thread may be waiting for it.
            self._truncating[side, length] = truncating
        pair = text if isinstance(text, tuple) else (text,)
        try:
            if isinstance(pair[0], Words):
                return encoded(self._truncating[side, length], [text])[0]
            if len(pair) == 1 and side == "right":  # it is tokenised for the second time
                pair = (self._beginnings.enough(pair[0], length),)
            return self._truncating[side, length].encode(*pair)
        except EXITS:
            raise
        except BaseException:  # what may be cut is too short for that
            return None


def _kind(value: Any) -> str:
    """What a JSON value is called, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "that kind of value")
