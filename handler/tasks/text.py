"""Tasks on text: sentence embeddings, token embeddings and classification, of single texts and of pairs."""

from __future__ import annotations

import inspect
import json
import random
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from tokenizers import Tokenizer

from handler.config import HandlerConfig
from handler.errors import (
    ConfigError,
    InputTooLarge,
    RequestError,
    UnprocessableInput,
)
from handler.failures import EXITS
from handler.padding import DATA, MASK, InputSpec, Item, crop
from handler.tasks.base import (
    Parameters,
    Row,
    Task,
    boolean,
    finite,
    one_of,
    positive_int_or_none,
    top_classes,
)
from handler.tasks.beginnings import Beginnings

TOKENIZER, SETTINGS = "tokenizer.json", "text.json"
Text = Union[str, Tuple[str, str]]  # one, or a pair


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
        saved = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.saved_labels: List[str] = saved["labels"]
        self.problem_type: Optional[str] = saved["problem_type"]
        self.vocabulary = self.tokenizer.get_vocab_size()
        pads = {"input_ids": saved["pad_token_id"], "token_type_ids": saved["pad_token_type_id"]}
        self.pad_id: int = saved["pad_token_id"]
        self.inputs = tuple(
            InputSpec(name, "int64", MASK)
            if name == "attention_mask"
            else InputSpec(name, "int64", DATA, pads[name])
            for name in saved["inputs"]
        )
        self.names = [spec.name for spec in self.inputs if spec.kind == DATA]

    # Building

    @classmethod
    def save(cls, config: HandlerConfig, source: Any, model: torch.nn.Module, folder: Path) -> None:
        tokenizer = source.tokenizer()
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(
                f"the tokenizer of {config.tokenizer or config.model} has no tokenizer.json: "
                "convert it to a fast tokenizer first"
            )
        if tokenizer.pad_token_id is None:
            raise ConfigError("the tokenizer has no padding token: set one and save it again")
        if tokenizer.padding_side != "right":
            raise ConfigError("the tokenizer pads on the left; only right padding gives exact answers")
        limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        largest = max(bucket[0] for bucket in config.buckets)
        if limit is not None and largest > limit:
            raise ConfigError(f"handler.buckets: {largest} is more than the {limit} positions of the model")
        tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        accepted = inspect.signature(model.forward).parameters
        known = ("input_ids", "attention_mask", "token_type_ids")
        names = [name for name in known if name in tokenizer.model_input_names and name in accepted]
        if "input_ids" not in names:
            raise ConfigError(
                f"handler.model: {config.model} must take input_ids (and attention_mask); its forward takes "
                f"{', '.join(accepted) or 'nothing'}"
            )
        by_id = getattr(getattr(model, "config", None), "id2label", None) or {}
        labels = [str(by_id[i]) for i in sorted(by_id)]
        if config.labels is not None:
            if labels and len(labels) != len(config.labels):
                raise ConfigError(
                    f"handler.labels has {len(config.labels)} names, but the model has {len(labels)} classes"
                )
            labels = config.labels
        settings = {
            "inputs": names,
            "pad_token_id": tokenizer.pad_token_id,
            "pad_token_type_id": getattr(tokenizer, "pad_token_type_id", 0),
            "labels": labels,
            "problem_type": getattr(getattr(model, "config", None), "problem_type", None),
        }
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def adapt(self, model: torch.nn.Module, exact: Callable[..., torch.nn.Module]) -> torch.nn.Module:
        return NamedInputs(model, [spec.name for spec in self.inputs])

    def sizes_to_check(
        self, bucket: Tuple[int, ...], smaller: Sequence[Tuple[int, ...]]
    ) -> List[Tuple[int, ...]]:
        """One token, one more than the bucket before, a few between, one less than full, exactly full."""
        (length,) = bucket
        start = smaller[-1][0] + 1 if smaller else 1
        middle = (start + length) // 2
        sizes = {1, start, middle, length - 1, length}
        return [(size,) for size in sorted(sizes) if 1 <= size <= length]

    def sample(self, size: Tuple[int, ...], seed: int) -> Item:
        draw = random.Random(seed)
        ids = [draw.randrange(self.vocabulary) for _ in range(size[0])]
        ids = [(i + 1) % self.vocabulary if i == self.pad_id else i for i in ids]
        data = {"input_ids": ids, "token_type_ids": [0] * size[0]}
        return Item(size, {name: data[name] for name in self.names})

    # Serving

    def read(
        self, inputs: Sequence[Any], parameters: Sequence[Parameters]
    ) -> List[Union[Item, RequestError]]:
        results: Dict[int, Union[Item, RequestError]] = {}
        texts: Dict[int, Text] = {}
        for i, value in enumerate(inputs):
            try:
                texts[i] = self._text(value)
            except RequestError as error:
                results[i] = error
        for i in self._certainly_too_long(texts, parameters):
            del texts[i]
            results[i] = self._too_long(f"more than {self.buckets[-1][0]}")
        for i, encoding in zip(texts, self._encode(list(texts.values()))):
            failed = isinstance(encoding, RequestError)
            results[i] = encoding if failed else self._item(encoding, texts[i], parameters[i])
        return [results[i] for i in range(len(inputs))]

    def _certainly_too_long(self, texts: Dict[int, Text], parameters: Sequence[Parameters]) -> List[int]:
        """The places of the texts that are to be refused and need not be tokenised in full for that."""
        (largest,), long = self.buckets[-1], {}
        for i, text in texts.items():
            longest = text if isinstance(text, str) else max(text, key=len)
            if not self._cuts(parameters[i]) and self._beginnings.are_long(len(longest), largest):
                long[i] = longest
        try:
            exceed = self._beginnings.exceed(list(long.values()), largest)
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
            f"the input has {tokens} tokens, and the largest bucket takes {self.buckets[-1][0]}: "
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
        length, (largest,), changed = len(encoding), self.buckets[-1], None
        if length > largest:
            if self._cuts(parameters):
                encoding = self._truncate(text, largest)
                changed = f"{length} tokens to {len(encoding)}"
            if len(encoding) > largest:  # the tokens that the model itself needs are never cut
                return self._too_long(length)
            length = len(encoding)
        data: Dict[str, Any] = {"input_ids": encoding.ids}
        if "token_type_ids" in self.names:
            data["token_type_ids"] = encoding.type_ids
        if length == 0:  # a tokenizer without special tokens makes nothing of an empty text
            length, data = 1, {name: [self.pad_id] for name in self.names}
        return Item((length,), data, changed)

    def _truncate(self, text: Text, length: int) -> Any:
        if self._truncating is None:
            truncating = Tokenizer.from_str(self.tokenizer.to_str())
            truncating.no_padding()
            truncating.enable_truncation(length, strategy="longest_first")
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


class PooledSentence(NamedInputs):
    """Token embeddings averaged over the real tokens, scaled to length one.

    The pooling of Sentence-BERT (Reimers and Gurevych, 2019), as sentence-transformers computes it.
    """

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        tokens = self.outputs(*tensors).float()
        if "attention_mask" in self.names:
            mask = tensors[self.names.index("attention_mask")].unsqueeze(-1).to(tokens.dtype)
        else:
            mask = torch.ones_like(tokens[..., :1])
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return (torch.nn.functional.normalize(mean, dim=1),)


class SentenceEmbedding(TextTask):
    """One vector of length one per text: the masked mean of the token embeddings."""

    name = "sentence-embedding"

    @classmethod
    def load_model(cls, config: HandlerConfig, source: Any) -> torch.nn.Module:
        module: torch.nn.Module = source.model("AutoModel")
        return module

    def adapt(self, model: torch.nn.Module, exact: Callable[..., torch.nn.Module]) -> torch.nn.Module:
        return PooledSentence(model, [spec.name for spec in self.inputs])

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        return finite(row[0])


class FeatureExtraction(TextTask):
    """One vector per token, as the pipeline `feature-extraction` gives them: ``[1][tokens][width]``."""

    name = "feature-extraction"

    @classmethod
    def load_model(cls, config: HandlerConfig, source: Any) -> torch.nn.Module:
        module: torch.nn.Module = source.model("AutoModel")
        return module

    def unpad(self, row: Row, item: Item) -> Row:
        return (crop(row[0], item.size, 0),)

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        return finite(row[0])[None]


class TextClassification(TextTask):
    """Labels with scores, best first: the best one, or `top_k` of them."""

    name = "text-classification"
    parameters = {
        "truncation": boolean,
        "top_k": positive_int_or_none,
        "function_to_apply": one_of("softmax", "sigmoid", "none"),
    }

    @classmethod
    def load_model(cls, config: HandlerConfig, source: Any) -> torch.nn.Module:
        module: torch.nn.Module = source.model("AutoModelForSequenceClassification")
        return module

    def answer(self, row: Row, item: Item, parameters: Parameters) -> Any:
        labels = self.saved_labels
        if len(labels) != len(row[0]):
            labels = [f"LABEL_{i}" for i in range(len(row[0]))]
        function = parameters.get("function_to_apply") or self._usual_function(len(labels))
        top_k = parameters.get("top_k", 1)
        answers = top_classes(row[0], labels, top_k, function)
        return answers if "top_k" in parameters else answers[0]

    def _usual_function(self, classes: int) -> str:
        """What the pipeline does with the scores of such a model."""
        if self.problem_type == "regression":
            return "none"
        if self.problem_type == "multi_label_classification" or classes == 1:
            return "sigmoid"
        return "softmax"


def _kind(value: Any) -> str:
    """What a JSON value is called, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "that kind of value")
