"""Words for masks: a masked language model, with the scores of its vocabulary at one token of each row."""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple

import torch

from anyshape.buckets import Size
from anyshape.building.tasks.base import Exact
from anyshape.building.tasks.text import NamedInputs, TextBuilder
from anyshape.errors import ConfigError
from anyshape.items import Item
from anyshape.padding import InputSpec
from anyshape.tasks.fill_mask import ANSWERED


class FillMaskBuilder(TextBuilder):
    """A masked language model."""

    auto_class = "AutoModelForMaskedLM"

    def more(self, tokenizer: Any, model: torch.nn.Module) -> Dict[str, Any]:
        if tokenizer.mask_token_id is None:
            raise ConfigError("handler.tokenizer has no mask token: fill-mask cannot be asked of this model")
        cleans_up = bool(tokenizer.clean_up_tokenization_spaces)
        if type(tokenizer.backend_tokenizer.model).__name__ == "BPE":
            cleans_up = False  # as transformers: it would take away spaces that belong to the text
        return {
            "mask_token_id": tokenizer.mask_token_id,
            "padding": tokenizer.pad_token_id,
            "cleans_up": cleans_up,
        }

    def request_of(self, text: str) -> Dict[str, Any]:
        return {"inputs": f"{text} {self.task.mask}"}  # type: ignore[attr-defined]

    def _names(self) -> Sequence[str]:
        return [spec.name for spec in self.task.inputs if spec.name != ANSWERED]

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        specs = [spec for spec in self.task.inputs if spec.name != ANSWERED]
        return AtOneToken(model, self._names(), take_head(model, specs))

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        return AtOneToken(model, self._names(), None)

    def sample(self, size: Size, seed: int) -> Item:
        item = super().sample(size, seed)
        item.data[ANSWERED] = [int(i == seed % size[0]) for i in range(size[0])]
        return item


class AtOneToken(NamedInputs):
    """Returns the scores ``[batch, vocabulary]`` of the token of each row where the last input is 1.

    head: the layer that was taken off the model's end, run for that token alone; None if it is still there.
    """

    def __init__(self, model: torch.nn.Module, names: Sequence[str], head: Optional[torch.nn.Module]) -> None:
        super().__init__(model, names)
        self.head = head

    def forward(self, *tensors: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        outputs, answered = self.outputs(*tensors[:-1]), tensors[-1]
        picked = outputs.masked_fill(answered.unsqueeze(-1) < 1, 0.0).sum(1)
        return ((picked if self.head is None else self.head(picked)).float(),)


def take_head(model: torch.nn.Module, specs: Sequence[InputSpec]) -> Optional[torch.nn.Module]:
    """Take the layer that scores the vocabulary off the model's end, or return None and leave it there.

    It is by far the largest product of such a model, and only one token of each row is asked. Some models
    do more with it than to call it last: tried, because no config says so.
    """
    try:
        head = model.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    name = next((name for name, module in model.named_modules() if module is head), "")
    if not name:
        return None
    parent, _, leaf = name.rpartition(".")
    whole = NamedInputs(model, [spec.name for spec in specs])
    ones = ("input_ids", "attention_mask")
    example = [
        torch.full(
            spec.shape((4,), 1), 1 if spec.name in ones else spec.blank, dtype=getattr(torch, spec.dtype)
        )
        for spec in specs
    ]
    with torch.no_grad():
        expected = whole.outputs(*example)
        setattr(model.get_submodule(parent), leaf, torch.nn.Identity())
        try:
            same = torch.allclose(head(whole.outputs(*example)), expected, rtol=1e-4, atol=1e-5)
        except (AttributeError, RuntimeError):
            same = False
    if not same:
        setattr(model.get_submodule(parent), leaf, head)
    return head if same else None
