"""Tasks whose inputs become several pairs of texts: a query with each text, a text with each label."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Dict, List, Sequence, Tuple, Union

from anyshape.errors import InputTooLarge, Refused
from anyshape.items import Input, Item, Parts, Read
from anyshape.tasks.base import Parameters
from anyshape.tasks.text import Text, TextTask

Pair = Tuple[str, str]


class PairsTask(TextTask):
    """Each pair is an item of its own, packed together with everything else of the batch."""

    takes_words = False

    def _pairs(self, value: Any, parameters: Parameters) -> List[Pair]:
        """The pairs of an input, their texts as they came. Raises UnprocessableInput or InputTooLarge."""
        raise NotImplementedError

    def _count(self, value: Any, parameters: Parameters) -> int:
        """How many pairs an input asks for, at no cost that grows with them; 1 if it cannot be read."""
        raise NotImplementedError

    def check_request(self, inputs: Sequence[Input], parameters: Parameters) -> None:
        self._check_count(inputs, parameters)
        pairs: List[Pair] = []
        for value in inputs:
            with suppress(Refused):  # `read` says it
                pairs.extend(self._pairs(value, parameters))
        self._check_characters(pairs, parameters)

    def _check_count(self, inputs: Sequence[Input], parameters: Parameters) -> None:
        count = sum(self._count(value, parameters) for value in inputs)
        if count > self.settings.max_items:
            raise InputTooLarge(
                f"{count} pairs in one request are more than the limit of {self.settings.max_items} "
                "(handler.max_items): send fewer at once"
            )

    def _check_characters(self, pairs: Sequence[Pair], parameters: Parameters) -> None:
        prompt = len(parameters.get("prompt") or "")
        characters = sum(prompt + len(one) + len(other) for one, other in pairs)
        if characters > self.settings.max_request_characters:
            raise InputTooLarge(
                f"the pairs of one request have {characters} characters together, more than the limit of "
                f"{self.settings.max_request_characters}: send fewer at once"
            )

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        asked: List[Union[slice, Refused]] = []
        pairs: List[Pair] = []
        each: List[Parameters] = []
        for value, chosen in zip(inputs, parameters):
            try:
                self._check_count([value], chosen)
                own = self._pairs(value, chosen)
                self._check_characters(own, chosen)
            except Refused as error:
                asked.append(error)
                continue
            asked.append(slice(len(pairs), len(pairs) + len(own)))
            pairs.extend(own)
            each.extend([chosen] * len(own))
        read = super().read(pairs, each)
        return [
            one if isinstance(one, Refused) else _together(read[one], {"input": value})
            for one, value in zip(asked, inputs)
        ]

    def _text(self, value: Any) -> Text:
        return self._checked(value[0]), self._checked(value[1])


def _together(read: Sequence[Read], origin: Dict[str, Any]) -> Read:
    """The items of one input, or the first of their errors."""
    items = []
    for one in read:
        if isinstance(one, Refused):
            return one
        assert isinstance(one, Item)
        items.append(one)
    return Parts(items, origin=origin)
