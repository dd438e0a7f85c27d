"""The clients that people have, from an environment of their own, at a real server: `make test-clients`.

Each snippet of docs/clients.md is run as it stands there, and so are mistakes that are easily made. A client
is a process that ends by writing what it got as JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.building.build import build
from tests.conftest import ROOT, write_recipe
from tests.server.conftest import Encode
from tests.server.harness import Server

pytestmark = pytest.mark.clients

PYTHON = ROOT / os.environ.get("CLIENTS", ".venv/clients") / "bin" / "python"
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
(JAVASCRIPT,) = re.findall(r"^```javascript\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
BEGINNING, *SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TEXTS = ["How long is a piece of string?", "As long as the day."]


class Client:
    """Runs lines that begin as the page's do; `run(lines, "name")` is what that name then is."""

    def __init__(self, server: Server, folder: Path) -> None:
        (folder / "run").mkdir(parents=True)
        keys = {"inference": {"key": server.torchserve.key("inference")}}
        (folder / "run" / "key_file.json").write_text(json.dumps(keys), encoding="utf-8")
        self.folder = folder
        self.beginning = BEGINNING.replace("http://127.0.0.1:8080", server.torchserve.inference)

    def run(self, lines: str, name: str) -> Any:
        code = "\n".join([self.beginning, lines, f"print(); print(json.dumps({name}))"])
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        ran = subprocess.run(
            [PYTHON, "-c", code],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    def refused(self, lines: str, errors: str) -> Any:
        """The status, the class and the message of what the lines raise; `errors` imports its class."""
        tried = "\n".join(f"    {line}" for line in lines.splitlines())
        caught = (
            f"{errors} as Caught\ngot = None\ntry:\n{tried}\nexcept Caught as error:\n"
            "    got = [error.response.status_code, type(error).__name__, str(error)]"
        )
        return self.run(caught, "got")


@pytest.fixture(scope="module")
def client(server: Server, minilm: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    assert PYTHON.is_file(), "make test-clients installs the clients"
    return Client(server, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def classes(server: Server, store: Path, classifier_folder: Path, tmp_path_factory: Any) -> Path:
    """The model that the page calls bert-mrpc: here a small one."""
    folder = tmp_path_factory.mktemp("classes")
    recipe = write_recipe(folder, "bert-mrpc", task="text-classification", model=str(classifier_folder))
    build(recipe, store, "1.0")
    server.register("bert-mrpc")
    return classifier_folder


def snippet(*parts: str) -> str:
    """The one snippet of the page that holds all these parts."""
    (found,) = [text for text in SNIPPETS if all(part in text for part in parts)]
    return found


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(expected), atol=1e-4, rtol=0)


VECTORS = [text for text in SNIPPETS if "vectors" in text]


def test_the_page_has_a_snippet_for_each_client() -> None:
    named = set(re.findall(r"^from ([\w.]+) import", "\n".join(SNIPPETS), re.MULTILINE))
    assert named == {
        *("openai", "langchain_openai", "llama_index.embeddings.openai", "huggingface_hub"),
        "llama_index.embeddings.text_embeddings_inference",
    }
    assert len(VECTORS) == 6


@pytest.mark.parametrize("code", VECTORS, ids=lambda code: re.findall(r"import (\w+)$", code, re.M)[-1])
def test_vectors_are_those_of_the_plain_model(code: str, client: Client, encode: Encode) -> None:
    assert_same(client.run(code, "vectors"), [encode(text) for text in TEXTS])


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_javascript(client: Client, server: Server, encode: Encode) -> None:
    key, model = server.torchserve.key("inference"), f"{server.torchserve.inference}/predictions/minilm/1.0"
    beginning = f"const [KEY, MODEL] = {json.dumps([key, model])};"
    code = "\n".join([beginning, JAVASCRIPT, "console.log(JSON.stringify(vectors))"])
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert_same(json.loads(ran.stdout), [encode(text) for text in TEXTS])


def test_hundreds_at_once_are_all_answered(client: Client, encode: Encode) -> None:
    texts = [f"text number {i}" for i in range(250)]
    lines = snippet("AsyncOpenAI").split("vectors =")[0] + f"vectors = asyncio.run(embed({texts!r}))\n"
    assert_same(client.run(lines, "vectors"), [encode(text) for text in texts])


def test_similarities_info_and_health(client: Client, encode: Encode) -> None:
    source, *others = (encode(text) for text in (*TEXTS, "It depends."))
    assert_same(
        client.run(snippet("sentence_similarity"), "similarities"), [source @ each for each in others]
    )
    assert client.run(snippet("sentence_similarity"), "client.get_endpoint_info()")["model_id"] == "minilm"


def test_classes(client: Client, classes: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(classes).float().eval()
    with torch.inference_mode():
        scores = model(**tokenizer("It is as long as the day.", return_tensors="pt")).logits[0].softmax(0)
    best = client.run(snippet("text_classification"), "[best.label, best.score]")
    assert best[0] == model.config.id2label[int(scores.argmax())]
    assert_same(best[1], float(scores.max()))


def test_openai_counts_tokens_and_cuts_vectors(client: Client, encode: Encode, text_of: Any) -> None:
    lines = snippet("import OpenAI\n").split("answer =")[0]
    asked = (
        f'answer = client.embeddings.create(model="other", input={text_of(100)!r}, dimensions=64)\n'
        'floats = client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")'
    )
    got = client.run(
        lines + asked, "[answer.model_dump(), [row.embedding for row in floats.data], type(answer).__name__]"
    )
    answer, floats, kind = got
    assert (kind, answer["model"]) == ("CreateEmbeddingResponse", "other")
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 100
    cut = encode(text_of(100))[:64]
    assert_same(answer["data"][0]["embedding"], cut / np.linalg.norm(cut))
    assert_same(floats, [encode("a"), encode("b")])


def test_openai_raises_its_own_errors(client: Client, text_of: Any) -> None:
    lines = (
        snippet("import OpenAI\n").split("answer =")[0].replace("api_key=KEY", "api_key=KEY, max_retries=0")
    )
    create = "client.embeddings.create(model='m', input={})"

    def refused(given: Any, before: str = lines) -> Any:
        return client.refused(before + create.format(repr(given)), "from openai import APIStatusError")

    status, kind, says = refused([[101, 102]])
    assert (status, kind) == (422, "UnprocessableEntityError")
    assert "check_embedding_ctx_length=False" in says
    status, kind, says = refused(["a", text_of(600)])
    assert (status, kind) == (413, "APIStatusError")
    assert "input[1]: the input has 600 tokens" in says
    assert refused([])[:2] == [400, "BadRequestError"]
    elsewhere = lines.replace("/v1", "/v3")
    assert refused("a", elsewhere)[:2] == [404, "NotFoundError"]
    chat = (
        f"{lines}\nimport openai\ntry:\n    client.chat.completions.create(model='m', messages=[])\n"
        "except openai.NotFoundError as error:\n    got = [error.type, error.code]\n"
    )
    assert client.run(chat, "got") == ["invalid_request_error", "NotFound"]
    assert client.run(lines, "[model.id for model in client.models.list()]") == ["minilm"]


def test_langchain_that_sends_ids_is_told_what_to_set(client: Client) -> None:
    """Its tokenizer comes over the network: here one of single bytes stands in for it."""
    own = (
        "import tiktoken\n"
        "bytes_ = {bytes([i]): i for i in range(256)}\n"
        "tiktoken.get_encoding = lambda name: tiktoken.Encoding(\n"
        "    name='bytes', pat_str='.', mergeable_ranks=bytes_, special_tokens={})\n"
        "tiktoken.encoding_for_model = tiktoken.get_encoding\n"
    )
    lines = own + re.sub(r"    check_embedding_ctx_length.*\n", "", snippet("langchain_openai"))
    status, kind, says = client.refused(lines, "from openai import APIStatusError")
    assert (status, kind) == (422, "UnprocessableEntityError")
    assert "check_embedding_ctx_length=False" in says


def test_llama_index_asks_one_by_one_and_in_batches(client: Client, encode: Encode) -> None:
    texts = [f"text number {i}" for i in range(130)]
    for code in (text for text in SNIPPETS if "llama_index" in text):
        lines = code.split("vectors =")[0] + f"texts = {texts!r}\n"
        asked = "[model.get_query_embedding(texts[0]), model.get_text_embedding_batch(texts)]"
        query, vectors = client.run(lines, asked)
        assert_same(query, encode(texts[0]))
        assert_same(vectors, [encode(text) for text in texts])


def test_tei_cuts_long_texts_where_llama_index_asks_for_it(
    client: Client, encode: Encode, tokenizer: Any, text_of: Any
) -> None:
    lines = snippet("llama_index", "TextEmbeddingsInference").split("vectors =")[0]
    cut = tokenizer.decode(tokenizer(text_of(600))["input_ids"][1:511])
    assert_same(client.run(lines, f"model.get_text_embedding({text_of(600)!r})"), encode(cut))


def test_the_hubs_client_says_which_option_it_lacks(client: Client, text_of: Any) -> None:
    lines = snippet("feature_extraction").split("vectors =")[0]
    errors = "from huggingface_hub.errors import HfHubHTTPError"
    for options, status in (("normalize=False", 422), ("prompt_name='none'", 422), ("dimensions=500", 422)):
        asked = f"client.feature_extraction('a', model=f'{{MODEL}}/embed', {options})"
        assert client.refused(lines + asked, errors)[0] == status
    asked = f"client.feature_extraction({text_of(600)!r}, model=f'{{MODEL}}/embed')"
    status, _, says = client.refused(lines + asked, errors)
    assert status == 413, says
