"""Tasks whose inputs become several pairs of texts: a query with each text, a text with each label."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple, Union

from anyshape.errors import InputTooLarge, Refused
from anyshape.items import Input, Item, Parts, Read
from anyshape.tasks.base import Parameters
from anyshape.tasks.text import Text, TextTask

Pair = Tuple[str, str]


class PairsTask(TextTask):
    """Each pair is an item of its own, packed together with everything else of the batch."""

    def _pairs(self, value: Any, parameters: Parameters) -> List[Pair]:
        """The pairs of an input, their texts as they came. Raises UnprocessableInput or InputTooLarge."""
        raise NotImplementedError

    def read(self, inputs: Sequence[Input], parameters: Sequence[Parameters]) -> List[Read]:
        asked: List[Union[slice, Refused]] = []
        pairs: List[Pair] = []
        each: List[Parameters] = []
        for value, chosen in zip(inputs, parameters):
            try:
                own = self._limited(self._pairs(value, chosen))
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

    def _limited(self, pairs: List[Pair]) -> List[Pair]:
        """The pairs, if there are not too many of them. Raises InputTooLarge."""
        most, characters = self.settings.max_items, sum(len(text) for pair in pairs for text in pair)
        if len(pairs) > most:
            raise InputTooLarge(f"an input of {len(pairs)} pairs is more than the limit of {most}")
        if characters > self.settings.max_request_characters:
            raise InputTooLarge(
                f"the pairs of an input have {characters} characters together, more than the limit of "
                f"{self.settings.max_request_characters}: send fewer at once"
            )
        return pairs


def _together(read: Sequence[Read], origin: Dict[str, Any]) -> Read:
    """The items of one input, or the first of their errors."""
    items = []
    for one in read:
        if isinstance(one, Refused):
            return one
        assert isinstance(one, Item)
        items.append(one)
    return Parts(items, origin=origin)
