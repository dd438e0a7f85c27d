"""The inputs of the matrix: 500 that are answered, and 30 that are refused for what they are."""

from __future__ import annotations

import random
from typing import Any

from tests.conftest import TextOf

LARGEST = 512  # tokens of the largest bucket
GOOD, BAD = 500, 30
EDGES: list[Any] = [
    "",
    " ",
    "\n",
    "\t \r\n",
    "a",
    "\x00",
    "nul \x00 within",
    "\ufeffa text behind a byte order mark",
    "naïve café, Ångström, ß",
    "e\u0301 and é are not one character",
    "漢字とかな、混じり文。",
    "한국어 문장입니다",
    "שלום עולם",
    "مرحبا بالعالم",
    "\u202eright to left\u202c and back",
    "🙂🙃 👩‍👩‍👧‍👦 🏳️‍🌈",
    "\U0001f1e9\U0001f1ea \U00020000 beyond the first plane",
    "zero\u200bwidth\u200djoined",
    "a line\u2028and a paragraph\u2029",
    "the replacement \ufffd and \uffff",
    "x" * 99,
    "x" * 3000,  # one word, which the tokenizer does not know
    "!" * 400,
    "a,b;c|d\te",
    '"a text in quotes"',
    '{"inputs": "a text that looks like JSON"}',
    "[1, 2, 3]",
    "null",
    "0",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "<b>bold</b> &amp; <script>alert(1)</script>",
    "%s %d {0} ${x} `id`",
    "a\\nb",
    "  spaces before and behind  ",
    {"text": "a text alone"},
    {"text": "a text", "text_pair": None},
    {"text": "a text", "text_pair": ""},
    {"text": "", "text_pair": "a text"},
    {"text": "How long is a piece of string?", "text_pair": "Twice the length from its middle to its end."},
    {"text": "漢字", "text_pair": "🙂"},
]


def good(text_of: TextOf, paragraphs: list[str]) -> list[Any]:
    """The edge cases, texts of exactly so many tokens, and paragraphs of Python's documentation, mixed."""
    exact = [
        text_of(n, seed=n) for n in (3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)
    ]
    exact += [text_of(n, seed=n) for n in range(40, LARGEST, 24)]
    exact += [text_of(LARGEST - 1), text_of(LARGEST)]
    pairs = [
        {"text": one, "text_pair": other}
        for one, other in zip(paragraphs[:20], sorted(paragraphs, key=len)[:20])
        if len(one) < 1000
    ]
    chance = random.Random(20)
    rest = GOOD - len(EDGES) - len(exact) - len(pairs)
    inputs = [*EDGES, *exact, *pairs, *chance.sample(paragraphs, rest)]
    chance.shuffle(inputs)
    return inputs


def bad(text_of: TextOf) -> list[tuple[Any, int, str]]:
    """Inputs, each with the status and the type of the error that it deserves."""
    half = text_of(LARGEST // 2 + 2)
    large = [
        text_of(LARGEST + 1),
        text_of(4 * LARGEST),
        "a " * 60_000,
        {"text": half, "text_pair": half},
        {"text": "a", "text_pair": text_of(LARGEST)},
        {"text": "a" * 100_001},
    ]
    wrong = [
        *(None, 5, 0.5, -1e300, True, False),
        *([], ["a"], ["a", "b"], [["a"]], {}),
        {"text": None},
        {"text": 5},
        {"text": ["a"]},
        {"text": {"text": "a"}},
        {"text_pair": "a"},
        {"text": "a", "text_pair": 5},
        {"text": "a", "text_pair": ["b"]},
        {"text": "a", "pair": "b"},
        {"text": "a", "text_pair": "b", "more": 1},
        {"inputs": "a"},
        "\ud800",
        "half \udfff of a pair",
        {"text": "a", "text_pair": "\ude00"},
    ]
    return [
        *((value, 413, "InputTooLarge") for value in large),
        *((value, 422, "UnprocessableInput") for value in wrong),
    ]
