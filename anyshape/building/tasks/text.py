"""What tasks on text share where archives are built."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import torch

from anyshape.buckets import Bucket, Size
from anyshape.building.rows import TokenRows, classifier_rows, in_rows
from anyshape.building.tasks.base import Exact, TaskBuilder
from anyshape.building.text_assets import save_text
from anyshape.items import Item
from anyshape.tasks.text import TextTask


class TextBuilder(TaskBuilder):
    """Saves the tokenizer, calls the model by its inputs' names, samples tokens."""

    task: TextTask

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        tokenizer = self.source.tokenizer()
        more = self.more(tokenizer, model)
        save_text(self.section, self.settings.buckets, tokenizer, model, folder, more=more)

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

    def classifier_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        """`adapt_rows` for a model for sequence classification."""
        own = [spec.name for spec in self.task.inputs]
        most, vocabulary = self.settings.segments, self.task.vocabulary
        return classifier_rows(model, own, self.names_in_rows(), most, vocabulary)

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """The empty text's, one more than the bucket before, a few between, one less than full, full."""
        (length,) = bucket
        least = min(self.task.smallest, length)
        start = max(least, smaller[-1][0] + 1) if smaller else least
        middle = (start + length) // 2
        sizes = {least, start, middle, length - 1, length}
        return [(size,) for size in sorted(sizes) if least <= size <= length]

    def sample(self, size: Size, seed: int) -> Item:
        task, draw = self.task, random.Random(seed)
        ids = [draw.randrange(task.vocabulary) for _ in range(size[0])]
        ids = [(i + 1) % task.vocabulary if i == task.pad_id else i for i in ids]
        data = {"input_ids": ids, "token_type_ids": [0] * size[0]}
        return Item(size, {name: data[name] for name in task.names if name in data})


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
