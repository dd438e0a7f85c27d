"""The tensors of a model's output, whatever it is made of."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Mapping

import torch


def tensors_of(answer: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nested output, in its own order; a dictionary's by insertion."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, torch.Size):  # numbers, which torch.jit.trace makes tensors of
        return
    elif dataclasses.is_dataclass(answer) and not isinstance(answer, (Mapping, type)):
        for field in dataclasses.fields(answer):
            yield from tensors_of(getattr(answer, field.name))
    elif isinstance(answer, (Mapping, list, tuple)):
        for value in answer.values() if isinstance(answer, Mapping) else answer:
            yield from tensors_of(value)
