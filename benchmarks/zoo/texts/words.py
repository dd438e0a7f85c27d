"""A tokenizer for a config, and texts of every length for it."""

from __future__ import annotations

import random
from typing import Any, Dict, List, Tuple

from benchmarks.zoo.texts.configs import ENCODERS, PAIRED, VOCABULARY

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32)


def tokenizer_of(kind: str, config: Any) -> Any:
    """Words as whole tokens, with the special tokens that texts of this type of model have.

    Decoders have none around a text, none for padding unless their config names one, and pad on the left.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = config.get_text_config()
    ids = {name: getattr(inner, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "cls", "sep")}
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    decoder = kind not in ENCODERS and kind != "xlnet" and not encoder_decoder
    begin = ids["cls"] if isinstance(ids["cls"], int) else ids["bos"]
    end = ids["sep"] if isinstance(ids["sep"], int) and ids["sep"] < VOCABULARY else ids["eos"]
    special: Dict[str, int] = {}
    for name, chosen in (("[PAD]", ids["pad"]), ("[BEGIN]", begin), ("[END]", end)):
        taken = set(special.values()) | {i for i in ids.values() if isinstance(i, int)}
        if isinstance(chosen, int) and chosen not in special.values():
            special[name] = chosen
        elif name == "[END]" or (name == "[BEGIN]" and not decoder) or (name == "[PAD]" and not decoder):
            special[name] = next(i for i in range(VOCABULARY) if i not in taken)
    unknown = next(i for i in range(VOCABULARY) if i not in set(special.values()))
    special["[UNK]"] = unknown
    words = iter(f"w{i}" for i in range(VOCABULARY))
    named = {i: name for name, i in special.items()}
    vocabulary = {named.get(i) or next(words): i for i in range(VOCABULARY)}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single, pair = _templates(kind, decoder, encoder_decoder)
    used = [(name, vocabulary[name]) for name in ("[BEGIN]", "[END]", "w0") if name in f"{single} {pair}"]
    if used:
        fast.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind in PAIRED else [])
    given = {"pad_token": "[PAD]", "bos_token": "[BEGIN]", "eos_token": "[END]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_input_names=names,
        padding_side="left" if decoder or kind == "xlnet" else "right",
        **{key: name for key, name in given.items() if name in special},
    )


def _templates(kind: str, decoder: bool, encoder_decoder: bool) -> Tuple[str, str]:
    """What stands around a text and around a pair; `:1` after what counts as the second text."""
    if kind == "xlnet":
        return "$A [END] [BEGIN]:2", "$A [END] $B:1 [END]:1 [BEGIN]:2"
    if kind in ("mbart", "plbart"):  # the last token names the language
        return "$A [END] w0", "$A $B [END] w0"
    if kind in ("bart", "mvp"):
        return "[BEGIN] $A [END]", "[BEGIN] $A [END] [END] $B [END]"
    if encoder_decoder:
        return "$A [END]", "$A [END] $B [END]"
    if decoder:
        return "$A", "$A $B"
    return "[BEGIN] $A [END]", "[BEGIN] $A [END] $B:1 [END]:1"


def texts_of(tokenizer: Any) -> List[Any]:
    """Texts of every length in LENGTHS, pairs, and texts that write special tokens; mixed, not sorted."""
    draw = random.Random(0)
    own = len(tokenizer("")["input_ids"])

    def words(count: int) -> str:
        return " ".join(f"w{draw.randrange(1, VOCABULARY // 2)}" for _ in range(count))

    texts: List[Any] = [words(length - own) for length in LENGTHS if length > own or length == own > 0]
    texts += [(words(3), words(4)), (words(9), words(11))]
    for special in {tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token} - {None}:
        texts += [
            f"{words(3)} {special} {words(2)}",
            f"{words(6)} {special}",
            f"{words(8)} {special} {special}",
        ]
    draw.shuffle(texts)
    return texts
