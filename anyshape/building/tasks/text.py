"""What tasks on text share where archives are built."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from anyshape.buckets import Bucket, Size, contains
from anyshape.building.classifiers import end_token, fit, needs_padding
from anyshape.building.rows import TokenRows, classifier_rows, in_rows
from anyshape.building.sentence_folder import Sentence
from anyshape.building.tasks.base import Exact, TaskBuilder
from anyshape.building.text_assets import embeddings, save_text
from anyshape.building.token_inputs import sampled
from anyshape.errors import ConfigError, Refused
from anyshape.items import Item, items_of
from anyshape.tasks.text import TextTask

WORDS = ["how", "long", "is", "a", "piece", "of", "string", "that", "was", "cut", "by", "two", "or", "three"]


class TextBuilder(TaskBuilder):
    """Saves the tokenizer, calls the model by its inputs' names, samples tokens."""

    task: TextTask

    def described(self) -> Optional[Sentence]:
        """What the model's files say of how it is asked, where there are such files for the task."""
        return None

    def load_model(self) -> torch.nn.Module:
        return self.source.model(self.auto_class, self._inside())

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        tokenizer, buckets = self.source.tokenizer(self._inside()), self.settings.buckets
        more, padding = self.more(tokenizer, model), self.padding(model)
        save_text(self.section, buckets, tokenizer, model, folder, self.described(), more, padding)

    def _inside(self) -> str:
        """The transformer's folder inside the model's own."""
        described = self.described()
        return "" if described is None else described.transformer

    def padding(self, model: torch.nn.Module) -> Optional[int]:
        """A token that is no text's, where texts have to be padded with one."""
        return None

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        """What serving this task needs to know besides: part of text.json."""
        return {}

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        return NamedInputs(model, [spec.name for spec in self.task.inputs])

    def names_in_rows(self) -> List[str]:
        """The inputs of the compiled model where a row holds several texts."""
        return [spec.name for spec in self.layout.inputs(self.task.inputs)]

    def token_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        """`adapt_rows` for a model that gives one output, per token."""
        own = [spec.name for spec in self.task.inputs]
        return TokenRows(in_rows(model, own, self.task.vocabulary), self.names_in_rows())

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """The empty text's, one more than the bucket before, a few between, one less than full, full."""
        (length,) = bucket
        least = min(self.task.smallest, length)
        start = max(least, smaller[-1][0] + 1) if smaller else least
        middle = (start + length) // 2
        sizes = {least, start, middle, length - 1, length}
        return [(size,) for size in sorted(sizes) if least <= size <= length]

    def request_of(self, text: str) -> Dict[str, Any]:
        """A request about a text, as this task is asked."""
        return {"inputs": text}

    def sample_request(self, bucket: Bucket) -> Optional[Dict[str, Any]]:
        """As many words as fit into the bucket."""
        draw, (length,) = random.Random(bucket[0]), bucket
        words = [draw.choice(WORDS) for _ in range(length)]
        fitting, beyond = 0, length + 1  # numbers of words
        while beyond - fitting > 1:
            middle = (fitting + beyond) // 2
            if self._fits(self.request_of(" ".join(words[:middle])), bucket):
                fitting = middle
            else:
                beyond = middle
        request = self.request_of(" ".join(words[:fitting]))
        return request if self._fits(request, bucket) else None

    def _fits(self, request: Dict[str, Any], bucket: Bucket) -> bool:
        parameters = self.task.check_parameters(request.get("parameters", {}))
        (read,) = self.task.read([request["inputs"]], [parameters])
        return not isinstance(read, Refused) and all(contains(bucket, item.size) for item in items_of([read]))

    def sample(self, size: Size, seed: int) -> Item:
        task, draw = self.task, random.Random(seed)
        ids = [draw.randrange(task.vocabulary) for _ in range(size[0])]
        ids = [(i + 1) % task.vocabulary if i == task.pad_id else i for i in ids]
        data: Dict[str, List[Any]] = {"input_ids": ids, "token_type_ids": [0] * size[0]}
        data.update({name: [value] * size[0] for name, value in task.token_inputs.constants().items()})
        data.update(sampled(task.token_inputs.saved, size[0], seed))
        return Item(size, {name: data[name] for name in task.names if name in data})


class ClassifierBuilder(TextBuilder):
    """A model for sequence classification, with a head that padding does not reach."""

    auto_class = "AutoModelForSequenceClassification"

    def load_model(self) -> torch.nn.Module:
        model = super().load_model()
        self._end = end_token(model)
        return model

    def padding(self, model: torch.nn.Module) -> Optional[int]:
        return embeddings(model) if self.settings.layout == "items" and needs_padding(model) else None

    def adapt_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        own = [spec.name for spec in self.task.inputs]
        most, vocabulary = self.settings.segments, self.task.vocabulary
        return classifier_rows(model, own, self.names_in_rows(), most, vocabulary)

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        return super().adapt(fit(model, self.task.pad_id), exact)

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        return super().adapt(model, lambda plain: plain)

    def sample(self, size: Size, seed: int) -> Item:
        """Where the model looks for end tokens: those of a real text, and in every third item one more."""
        item = super().sample(size, seed)
        if self._end is not None:
            _end(item.data["input_ids"], self._end, self.task, seed)
        return item


def _end(ids: List[int], end: int, task: TextTask, seed: int) -> None:
    """Write the special tokens of a real text into random ones, in place."""
    before, after = task.frame()
    if end not in before + after:
        raise ConfigError(
            f"handler.tokenizer: it ends no text with the token {end}, which the model looks for "
            "(eos_token_id of its config.json): save one that does"
        )
    ids[:] = [(i + 1) % task.vocabulary if i == end else i for i in ids]
    if len(ids) >= len(before) + len(after):
        ids[: len(before)] = before
        ids[len(ids) - len(after) :] = after
        middle = range(len(before), len(ids) - len(after))
        if middle and seed % 3 == 2:
            ids[middle[seed % len(middle)]] = end
    else:  # shorter than any text
        ids[-1] = end


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
