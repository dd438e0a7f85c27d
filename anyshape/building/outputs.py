"""The tensors of a model's output, whatever it is made of."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

import torch


def tensors_of(answer: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nested output, in its own order; a dictionary's by insertion."""
    if isinstance(answer, torch.Tensor):
        yield answer
    elif isinstance(answer, (Mapping, list, tuple)):
        for value in answer.values() if isinstance(answer, Mapping) else answer:
            yield from tensors_of(value)
