"""Inputs that a model of texts takes beside the tokenizer's own: positions, a constant, a box for each word.

What a request brings for a word stands at every token of it. A text whose words have something goes to the
tokenizer as words, as transformers' tokenizers of documents take them.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from tokenizers import Tokenizer

from anyshape.errors import UnprocessableInput
from anyshape.padding import DATA, POSITION, InputSpec

WORDS, POSITIONS = "words", "positions"


class Words(str):
    """A text that came as words, one space between them; brought: for each input, a value per word."""

    words: List[str]
    brought: Dict[str, List[Any]]

    def __new__(cls, words: Sequence[str]) -> Words:
        text = super().__new__(cls, " ".join(words))
        text.words, text.brought = list(words), {}
        return text


class TokenInputs:
    """What a recipe says of them (`recipe.TokenInput`), as it was saved."""

    def __init__(self, saved: Mapping[str, Mapping[str, Any]], tokenizer: Tokenizer) -> None:
        self.saved = saved
        self.by_word = [name for name, one in saved.items() if one["values"] == WORDS]
        self.special = {
            name: {tokenizer.token_to_id(token): value for token, value in saved[name]["special"].items()}
            for name in self.by_word
        }

    def spec(self, name: str) -> InputSpec:
        """The input of the compiled model."""
        one = self.saved[name]
        kind = POSITION if one["values"] == POSITIONS else DATA
        numbers, pad = one["numbers"], one["pad"]
        return InputSpec(name, one["dtype"], kind, pad, blank=pad, numbers=numbers, first=one["first"])

    def constants(self) -> Dict[str, Any]:
        """The inputs that are the same at every token."""
        fixed = {name: one for name, one in self.saved.items() if one["values"] not in (WORDS, POSITIONS)}
        return {
            name: one["values"] if one["numbers"] is None else [one["values"]] * one["numbers"]
            for name, one in fixed.items()
        }

    def read(self, value: Any, keys: Sequence[str], check: Callable[[Any], str]) -> List[Words]:
        """The texts of an input that stand under `keys`, the second of them optional: where it is empty, as
        where it is missing, there is no pair.

        The values are those of the words of the text that came as a list, or else of the first.
        Raises UnprocessableInput, which names the field, or what `check` of a text raises.
        """
        example = ", ".join(f'"{key}": ...' for key in (keys[0], *self.by_word))
        if not isinstance(value, dict) or not {keys[0], *self.by_word} <= set(value):
            raise UnprocessableInput(
                f"an input is {{{example}}}, with a value of {' and '.join(self.by_word)} for each word"
            )
        if not set(value) <= {*keys, *self.by_word}:
            raise UnprocessableInput(f"an input is {{{example}}}, not one with {', '.join(sorted(value))}")
        listed = [key for key in keys if isinstance(value.get(key), list)]
        owner = listed[0] if listed else keys[0]
        texts = []
        for key in keys:
            if key not in (keys[0], owner) and value.get(key) in (None, "", []):
                continue
            words = value[key].split() if isinstance(value[key], str) else value[key]
            if not isinstance(words, list):
                raise UnprocessableInput(f"{key} must be a text or a list of words")
            text = Words([check(word) for word in words])
            check(text)
            if key == owner:
                for name in self.by_word:
                    text.brought[name] = self._values(name, value[name], len(words))
            texts.append(text)
        return texts

    def _values(self, name: str, given: Any, words: int) -> List[Any]:
        """The values of one input, a list with one for each word."""
        one = self.saved[name]
        numbers = one["numbers"]
        wanted = "a number" if numbers is None else f"a list of {numbers} numbers"
        if not isinstance(given, list) or len(given) != words:
            count = f"{len(given)} values" if isinstance(given, list) else "no list"
            raise UnprocessableInput(f"{name} has {count} for {words} words: send {wanted} for each")
        if not given:
            return []
        try:
            values = np.asarray(given)
        except (ValueError, OverflowError):  # lists of several lengths
            values = np.asarray("")
        kinds = "iu" if one["dtype"] == "int64" else "iuf"
        shape = (words,) if numbers is None else (words, numbers)
        if values.dtype.kind not in kinds or values.shape != shape:
            what = "whole numbers" if one["dtype"] == "int64" else "numbers"
            raise UnprocessableInput(f"{name} must have {wanted} for each word, of {what}")
        outside = ~((values >= one["least"]) & (values <= np.asarray(one["largest"])))
        if outside.any():
            (word, *_) = np.argwhere(outside)[0]
            raise UnprocessableInput(
                f"{name} of word {word} is {given[word]}, and numbers are from {one['least']} to "
                f"{one['largest']}"
            )
        return given

    def data(self, encoding: Any, texts: Sequence[str]) -> Dict[str, List[Any]]:
        """For each of these inputs but positions, its value at each token; `texts` are one, or a pair."""
        found = {name: [value] * len(encoding) for name, value in self.constants().items()}
        for name in self.by_word:
            owner = next((i for i, text in enumerate(texts) if isinstance(text, Words) and text.brought), 0)
            own = texts[owner]
            values = own.brought[name] if isinstance(own, Words) and own.brought else []
            pad, special = self._pad(name), self.special[name]
            found[name] = [
                values[word] if word is not None and sequence == owner else special.get(token, pad)
                for token, word, sequence in zip(encoding.ids, encoding.word_ids, encoding.sequence_ids)
            ]
        return found

    def _pad(self, name: str) -> Any:
        one = self.saved[name]
        return one["pad"] if one["numbers"] is None else [one["pad"]] * one["numbers"]


def encoded(
    tokenizer: Tokenizer, texts: Sequence[Union[str, Tuple[str, str]]], offsets: bool = True
) -> List[Any]:
    """All texts and pairs tokenised in one call; those that came as words, as words. All are of one kind.

    offsets: whether it matters where the tokens stand in the text; those of words always say so.
    """
    first = texts[0][0] if isinstance(texts[0], tuple) else texts[0]
    if not isinstance(first, Words):
        return list((tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast)(list(texts)))
    split = [tuple(map(_words, text)) if isinstance(text, tuple) else _words(text) for text in texts]
    return list(tokenizer.encode_batch(split, is_pretokenized=True))


def _words(text: str) -> List[str]:
    return text.words if isinstance(text, Words) else text.split()


def places(encoding: Any, text: str, sequence: Optional[int] = None) -> List[Tuple[int, int]]:
    """Where each token stands in the text, in characters; `sequence` is its number in a pair."""
    offsets: List[Tuple[int, int]] = encoding.offsets
    if not isinstance(text, Words):
        return offsets
    starts = np.cumsum([0, *(len(word) + 1 for word in text.words)]).tolist()
    found = []
    for (start, end), word, own in zip(offsets, encoding.word_ids, encoding.sequence_ids):
        inside = word is not None and own == (sequence or 0)
        found.append((starts[word] + start, starts[word] + end) if inside else (start, end))
    return found
