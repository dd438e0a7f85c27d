"""Vectors of tokens are what sentence-transformers' MultiVectorEncoder gives for the same folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from tests.conftest import TextOf, assert_close, save_bert, write_recipe
from tests.quick import quick

MultiVectorEncoder = pytest.importorskip("sentence_transformers").MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask  # noqa: E402

from tests.colbert_folders import FIXED, native, pylate, stanford  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_bert(tmp_path_factory.mktemp("colbert"), "BertModel", tokenizer)


def load(work: Path, folder: Path, **handler: Any) -> BucketedModel:
    options = {"buckets": [7, 14, 32], "largest_batch": 2, **handler}
    recipe = write_recipe(work, task="multi-vector-embedding", model=str(folder), **options)
    return BucketedModel.load(build(recipe, work / "store").path, warm=False)


def assert_encodes(model: BucketedModel, folder: Path, texts: list[str], side: str, **options: Any) -> None:
    """Every text alone and all in one batch, against the folder loaded afresh and each text encoded alone."""
    plain = MultiVectorEncoder(str(folder), device="cpu")
    encode = plain.encode_query if side == "query" else plain.encode_document
    expected = [encode(text, convert_to_numpy=True, **options) for text in texts]
    asked = {"input_type": side, **options}
    for found, wanted in zip([*model(texts, **asked), *(model(t, **asked) for t in texts)], expected * 2):
        assert_close(found, wanted)


ODD = ["", "a", "¿Qué? — (no)!", "naïve café, 漢字", "👩‍👩‍👧 a\u0000b [MASK].", "[Q] [D] [unused0]"]

LAYOUTS: dict[str, Callable[[Path, Path], Path]] = {
    "expanded": lambda folder, to: native(
        folder, to, query_expansion=FIXED, document_length=30, prompts={"query": "ask : ", "passage": "no "}
    ),
    "expanded and seen": lambda folder, to: native(
        folder,
        to,
        query_expansion={"strategy": "min", "length": 8, "attend": True, "token": "[SEP]"},
        query_length=20,
        mask=MultiVectorMask(skiplist_words=["the", "."], skiplist_tasks=["query", "document"]),
        prompts={"query": "", "document": "of this : "},
    ),
    "plain": lambda folder, to: native(folder, to, query_length=14, mask=MultiVectorMask()),
    "pylate": pylate,
    "pylate, seen": lambda folder, to: pylate(
        folder, to, attend_to_expansion_tokens=True, skiplist_words=["a"], prompts={"query": "[Q] ask : "}
    ),
    "pylate, not expanded": lambda folder, to: pylate(folder, to, do_query_expansion=False, query_prefix=""),
    "stanford": stanford,
}


@pytest.mark.parametrize("layout", quick(LAYOUTS, 0, 5))
def test_vectors_are_the_multi_vector_encoders(
    layout: str, folder: Path, tmp_path: Path, text_of: TextOf
) -> None:
    own = LAYOUTS[layout](folder, tmp_path / "model")
    model = load(tmp_path, own)
    queries = [text_of(length) for length in (3, 5, 8, 9)]
    documents = [*queries, text_of(17), f"{text_of(20)} . ,"]
    assert_encodes(model, own, [*queries, *ODD[:2]], "query")
    assert_encodes(model, own, [*documents, *ODD], "document")
    assert_close(model(queries[0]), model(queries[0], input_type="document"))


def test_sides_and_prompts(folder: Path, tmp_path: Path, text_of: TextOf) -> None:
    """A named prompt called query makes a query of a text; both sides, and both sizes, share a batch."""
    own = native(folder, tmp_path / "m", query_expansion=FIXED, prompts={"query": "ask : ", "other": "so : "})
    model, text = load(tmp_path, own), text_of(6)
    assert_close(model(text, prompt_name="query"), model(text, input_type="query"))
    assert_encodes(model, own, [text], "document", prompt_name="other")
    assert_encodes(model, own, [text], "query", prompt="why : ")
    sides = [{"input_type": "query"}, {}, {"input_type": "query"}, {"prompt": ""}]
    texts = [text_of(4), text_of(30), text, "."]
    read = model.task.read(texts, sides)
    for one, ran, text, side in zip(read, model.run(read), texts, sides):
        assert_close(model.answer(one, ran, side), model(text, **side))


@pytest.mark.slow
def test_lengths(folder: Path, tmp_path: Path, text_of: TextOf) -> None:
    own = native(folder, tmp_path / "m", query_expansion=FIXED, document_length=20)
    model = load(tmp_path, own)
    with pytest.raises(InputTooLarge, match="query has 13 tokens, and those of this model have at most 12"):
        model(text_of(13), input_type="query")
    with pytest.raises(InputTooLarge, match="the input has 21 tokens, and the model takes 20"):
        model(text_of(21))
    assert_encodes_cut(model, own, text_of(25))
    with pytest.raises(UnprocessableInput, match="input_type"):
        model("a", input_type="passage")
    longer = load(tmp_path, own, task_options={"query_length": 16, "document_length": 31})
    assert longer(text_of(15), input_type="query").shape == (16, 8)
    assert longer(text_of(31)).shape == (31, 8)
    with pytest.raises(ConfigError, match="a query of this model has 12 tokens, more than the"):
        load(tmp_path, own, buckets=[4, 8])


def assert_encodes_cut(model: BucketedModel, folder: Path, text: str) -> None:
    """The encoder cuts what is too long and does not say it; here a request asks for that."""
    plain = MultiVectorEncoder(str(folder), device="cpu")
    for side in ("query", "document"):
        encode = plain.encode_query if side == "query" else plain.encode_document
        assert_close(model(text, input_type=side, truncation=True), encode(text, convert_to_numpy=True))


@pytest.mark.slow
def test_long_documents_have_the_vectors_of_their_windows(
    folder: Path, tmp_path: Path, text_of: TextOf
) -> None:
    own = native(folder, tmp_path / "m", query_expansion=FIXED, prompts={"document": "of this "})
    model = load(tmp_path, own, over_max="window", task_options={"stride": 6})
    words = f"{text_of(60)} . a".split()
    plain = MultiVectorEncoder(str(own), device="cpu")
    room, step = 32 - 4, 32 - 4 - 6
    starts = range(0, len(words) - 6, step)
    cut = [plain.encode_document(" ".join(words[at : at + room]), convert_to_numpy=True) for at in starts]
    found = model(" ".join(words))
    assert found.shape == (len(words) - 1 + 4, 8)
    # Three tokens on each side of a seam are the inner ones of their window.
    assert_close(found[: 3 + room - 3], cut[0][: 3 + room - 3])
    assert_close(found[3 + step + 3 : 3 + step + room - 3], cut[1][3 + 3 : 3 + room - 3])
    assert_close(found[-4:], cut[-1][-4:])
    with pytest.raises(InputTooLarge, match="the query has"):
        model(" ".join(words), input_type="query")


# What is refused, by its name


def written(path: str, **changes: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        kept = json.loads((folder / path).read_text(encoding="utf-8"))
        (folder / path).write_text(json.dumps({**kept, **changes}), encoding="utf-8")

    return write


def without_mask(folder: Path) -> None:
    path = folder / "modules.json"
    modules = [m for m in json.loads(path.read_text(encoding="utf-8")) if "Mask" not in m["type"]]
    path.write_text(json.dumps(modules), encoding="utf-8")


def pooled(folder: Path) -> None:
    path = folder / "modules.json"
    path.write_text(path.read_text(encoding="utf-8").replace("MultiVectorMask", "HierarchicalTokenPooling"))


MASK, PARTS = "2_MultiVectorMask/config.json", "config_sentence_transformers.json"
EXPANSION = "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (written(MASK, keep_only_token_ids=[5]), "keep_only_token_ids, which is not known here"),
        (written(MASK, other=1), "has other, which is not known here"),
        (written(PARTS, model_type="SentenceTransformer"), "does not say that this is a MultiVectorEncoder"),
        (written("1_Dense/config.json", module_input_name="sentence_embedding"), "only token_embeddings"),
        (written(EXPANSION, query_expansion={"strategy": "new", "length": 4}), "not known here"),
        (written(EXPANSION, query_expansion={"strategy": "min"}), "query_expansion has no length"),
        (written(EXPANSION, query_expansion={**FIXED, "token": "nottokenatall"}), "no token nottokenatall"),
        (written(EXPANSION, document_length=0), "document_length must be a positive whole number"),
        (without_mask, "no MultiVectorMask, and the model expands its queries"),
        (pooled, "has the module HierarchicalTokenPooling; after Transformer, known here are"),
    ],
)
def test_what_is_not_known_is_refused(
    damage: Callable[[Path], None], says: str, folder: Path, tmp_path: Path
) -> None:
    own = native(folder, tmp_path / "m", query_expansion=FIXED)
    damage(own)
    with pytest.raises((BuildError, ConfigError), match=says):
        load(tmp_path, own)


def test_models_without_a_projection_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"neither modules\.json nor the architecture HF_ColBERT"):
        load(tmp_path, folder)
    recipe = write_recipe(tmp_path, task="sentence-embedding", model=str(pylate(folder, tmp_path / "p")))
    with pytest.raises(BuildError, match=r"begins with Transformer and Dense"):
        build(recipe, tmp_path / "store")
