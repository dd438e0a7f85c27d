"""Texts that are certainly too long, told by tokenising their beginning alone.

Tokenising 100,000 characters takes 50 to 200 ms on one core, and everybody in the batch waits for it. A text
is cut off after as many characters as are surely enough. What counts are the tokens of whole words well
before the cut: those are the same in the whole text, as long as the tokenizer finds its words by looking at
their own characters. Where one does not, or no such proof is found, the text is tokenised in full.
"""

from __future__ import annotations

import json
from typing import Any, List, Sequence

from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 8  # of a beginning; most languages have fewer
MARGIN = 1000  # characters before the cut that do not count: longer than any token or special word

_NORMALIZERS = {
    *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
    *("Precompiled", "Prepend", "Strip", "StripAccents"),
}
_PRE_TOKENIZERS = {
    *("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit"),
}

# Patterns of `Split`: Qwen's, and that of Llama 3 and GPT-4. Where a word ends is decided by its own
# characters and the next two, or by the white space that it is in or before.
_SPLITS = tuple(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}", r"\p{N}{1,3}")
)


class Beginnings:
    """Finds the texts that have more tokens than fit, at a cost that does not grow with them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known = _known(tokenizer.normalizer, _NORMALIZERS) and _known(
            tokenizer.pre_tokenizer, _PRE_TOKENIZERS
        )

    def length(self, largest: int) -> int:
        """The characters of a beginning that tells whether a text has more than `largest` tokens."""
        return largest * CHARACTERS_PER_TOKEN + MARGIN

    def are_long(self, characters: int, largest: int) -> bool:
        """Whether a text of so many characters is worth the trouble."""
        return self.known and characters > 2 * self.length(largest)

    def exceed(self, texts: Sequence[str], largest: int) -> List[bool]:
        """For each text, whether its beginning alone proves that it has more than `largest` tokens."""
        beginnings = [text[: self.length(largest)] for text in texts]
        encodings = self.tokenizer.encode_batch(beginnings, add_special_tokens=False) if texts else []
        return [_exceeds(encoding, beginning, largest) for beginning, encoding in zip(beginnings, encodings)]

    def enough(self, text: str, largest: int) -> str:
        """The beginning of a text that surely has its first `largest` tokens, or the text."""
        if self.are_long(len(text), largest) and self.exceed([text], largest)[0]:
            return text[: self.length(largest)]
        return text


def _exceeds(encoding: Any, beginning: str, largest: int) -> bool:
    """Whether token number `largest` + 1 ends well before the cut, in a word that is whole, and what follows
    is not white space alone: a pattern may look through that to its end."""
    if len(encoding) <= largest:
        return False
    end, words = encoding.offsets[largest][1], encoding.word_ids
    if end > len(beginning) - MARGIN or words[largest] == words[-1]:
        return False
    return not beginning[end:].isspace()


def _known(part: Any, names: Any) -> bool:
    """Whether a part of a tokenizer is made of steps that look no further than a word."""
    return part is None or _all_known(json.loads(part.__getstate__()), names)


def _all_known(part: Any, names: Any) -> bool:
    if part["type"] == "Sequence":
        return all(_all_known(step, names) for step in part.get("normalizers") or part["pretokenizers"])
    if part["type"] == "Replace":  # a fixed text, or the runs of spaces that SentencePiece joins
        pattern = part["pattern"]
        return "String" in pattern or pattern == {"Regex": " {2,}"}
    if part["type"] == "Split":
        return part["behavior"] == "Isolated" and part["pattern"].get("Regex") in _SPLITS
    return part["type"] in names
