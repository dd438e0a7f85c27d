"""Classifiers whose own heads padding would reach: answers are those of transformers' model, text by text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from anyshape import BucketedModel
from anyshape.archive import check_settings
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.cli.main import main
from anyshape.errors import ConfigError, UnprocessableInput
from tests.conftest import assert_close, settings_of, write_recipe
from tests.quick import quick

PAD, BEGIN, END, LANGUAGE = range(4)
SPECIAL = ["<pad>", "<s>", "</s>", "<en>"]
WORDS = 60
SCORES = {"top_k": None, "function_to_apply": "none"}
TEXTS = ["w1", "w2 w3", "w4 w5 w6 w7 w8 w9", "w9 w8 w7 w6 w5 w4 w3 w2 w1 w0 w11 w12"]
WITH_ENDS = ["w1 </s> w2", "w3 w4 w5 </s>", "w5 </s> w6 </s> w7 w8 w9 w10 w11"]


def save_tokenizer(folder: Path, around: str, pads: bool = True, side: str = "right") -> None:
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        word: i for i, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(WORDS - len(SPECIAL)))])
    }
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if around != "$A":
        fast.post_processor = processors.TemplateProcessing(
            single=around, special_tokens=[(token, i) for i, token in enumerate(SPECIAL) if token in around]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="</s>", padding_side=side, **({"pad_token": "<pad>"} if pads else {})
    )
    tokenizer.save_pretrained(folder)


def save(folder: Path, config: Any) -> None:
    """A classifier with random weights that tell texts apart."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.4)
    model.save_pretrained(folder)


def plain(folder: Path, text: str) -> Any:
    """The scores of transformers' own model for one text alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits[0].numpy()


def archive(folder: Path, **handler: Any) -> BucketedModel:
    chosen = {"buckets": [8, 16], "largest_batch": 3, **handler}
    recipe = write_recipe(folder, task="text-classification", model=str(folder / "model"), **chosen)
    return BucketedModel.load(build(recipe, folder / "store").path)


def assert_as_plain(built: BucketedModel, folder: Path, texts: list[str]) -> None:
    """All in one batch, and each alone."""
    for answers in (built(texts, **SCORES), [built(text, **SCORES) for text in texts]):
        for text, answer in zip(texts, answers):
            scores = {one["label"]: one["score"] for one in answer}
            assert_close([scores[label] for label in sorted(scores)], plain(folder / "model", text))


def sizes() -> dict[str, Any]:
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    return {"vocab_size": WORDS, "d_model": 16, "max_position_embeddings": 40, **heads, **layers}


@pytest.mark.parametrize(
    ("kind", "around"), quick([("MBartConfig", "$A </s> <en>"), ("T5Config", "$A </s>")], 0)
)
def test_an_encoder_decoder_answers_by_the_last_end_token_of_each_text(
    tmp_path: Path, kind: str, around: str
) -> None:
    import transformers

    tokens = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END, "decoder_start_token_id": PAD}
    t5 = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = getattr(transformers, kind)(**(t5 if kind == "T5Config" else sizes()), **tokens, num_labels=3)
    save(tmp_path / "model", config)
    save_tokenizer(tmp_path / "model", around)
    # Rows with one end token and with several share calls: transformers itself refuses such a batch.
    assert_as_plain(archive(tmp_path), tmp_path, [*TEXTS, *WITH_ENDS])


def test_an_encoder_decoder_whose_tokenizer_ends_no_text_is_refused(tmp_path: Path) -> None:
    from transformers import BartConfig

    save(tmp_path / "model", BartConfig(**sizes(), pad_token_id=PAD, bos_token_id=BEGIN, eos_token_id=END))
    save_tokenizer(tmp_path / "model", "<s> $A")
    with pytest.raises(ConfigError, match=r"handler\.tokenizer: it ends no text with the token 2"):
        archive(tmp_path)


def test_a_decoder_without_a_padding_token_finds_the_last_token_of_each_text(tmp_path: Path) -> None:
    from transformers import Qwen3Config

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    save(tmp_path / "model", Qwen3Config(vocab_size=WORDS, num_labels=3, eos_token_id=END, **small, **heads))
    save_tokenizer(tmp_path / "model", "$A", pads=False, side="left")
    built = archive(tmp_path)
    # Whatever a text ends with is its last token: no token of the vocabulary is padding.
    assert_as_plain(built, tmp_path, [*TEXTS, *WITH_ENDS, "w1 w2 <pad>", "w1 w2 <pad> <pad> </s>"])
    with pytest.raises(UnprocessableInput, match="the text has no tokens"):
        built("")


def test_a_summary_of_the_last_token_is_that_of_the_text(tmp_path: Path) -> None:
    from transformers import XLNetConfig

    small = {"vocab_size": WORDS, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "num_labels": 3}
    save(tmp_path / "model", XLNetConfig(**small, pad_token_id=PAD, bos_token_id=BEGIN, eos_token_id=END))
    save_tokenizer(tmp_path / "model", "$A </s> <s>", side="left")
    assert_as_plain(archive(tmp_path), tmp_path, TEXTS)


def fourier(folder: Path) -> None:
    """A model that mixes all positions and knows no mask."""
    from transformers import FNetConfig

    small = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    save(folder / "model", FNetConfig(**small, num_labels=3, max_position_embeddings=40, pad_token_id=PAD))
    save_tokenizer(folder / "model", "<s> $A </s>")


def test_what_padding_would_change_is_served_at_every_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fourier(tmp_path)
    built = archive(tmp_path, buckets="every length from 3 to 9")
    assert_as_plain(built, tmp_path, [*TEXTS[:3], "w5", "w3 w2 w1", "w7 w1", "w1 w2 w3 w4 w5 w6 w7"])
    for text in ("w1 w2", "w1 w2 w3 w4 w5"):
        (item,) = built.task.read([text], [{}])
        (output,) = built.run([item])
        assert output.bucket == item.size  # type: ignore[union-attr]
    with pytest.raises(
        UnprocessableInput, match="the input has 2 tokens, and the model takes no less than 3"
    ):
        built("")
    assert main(["inspect", str(tmp_path / "store" / "small.mar")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "every length from 3 to 9 has a bucket, so that nothing is ever padded" in out


@pytest.mark.slow
def test_one_program_takes_every_length(tmp_path: Path) -> None:
    """Nothing is padded there either: texts share a call only with others of their length."""
    fourier(tmp_path)
    built = archive(
        tmp_path, buckets="every length to 40", backend="inductor", backend_options={"shapes": "dynamic"}
    )
    assert len(built.programs.loaded) == 40
    texts = [*TEXTS, "w5", "w3 w2 w1", " ".join(["w7"] * 38), " ".join(["w7"] * 37), "w1 w9", "w9 w1"]
    assert_as_plain(built, tmp_path, texts)
    read = built.task.read(texts, [{}] * len(texts))
    for one, output in zip(read, built.run(read)):
        assert output.bucket == one.size  # type: ignore[union-attr]


def test_what_padding_would_change_is_not_packed_with_larger_buckets(tmp_path: Path) -> None:
    fourier(tmp_path)
    with pytest.raises(BuildError, match="every length"):
        archive(tmp_path)


def test_an_archive_of_every_length_cannot_be_edited_into_one_that_pads(tmp_path: Path) -> None:
    fourier(tmp_path)
    built = archive(tmp_path, buckets="every length to 3")
    listed = settings_of(task="text-classification", model="m", buckets=[1, 2, 3], largest_batch=3)
    with pytest.raises(ConfigError, match="the archive was built for every length"):
        check_settings(listed, built.index)


def test_embeddings_of_neighbours_end_in_zeros_as_without_padding(tmp_path: Path) -> None:
    from transformers import MobileBertConfig

    small = {"hidden_size": 16, "embedding_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    bottleneck = {"intra_bottleneck_size": 8, "intermediate_size": 16, "num_feedforward_networks": 1}
    config = MobileBertConfig(vocab_size=WORDS, num_labels=3, pad_token_id=PAD, **small, **bottleneck)
    save(tmp_path / "model", config)
    save_tokenizer(tmp_path / "model", "<s> $A </s>")
    assert_as_plain(archive(tmp_path), tmp_path, TEXTS)
