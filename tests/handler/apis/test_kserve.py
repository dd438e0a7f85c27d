from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import TextOf, assert_close
from tests.handler.apis.conftest import ask, sent
from tests.handler.frontend import Worker

Plain = Callable[[str], np.ndarray]


def tensor(data: list[Any], name: str = "text", **options: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data, **options}


@pytest.mark.parametrize(
    "path", ["infer", "v2/models/small/infer", "v2/models/small/versions/1.0/infer", None]
)
def test_texts_are_answered_with_a_tensor_of_vectors(
    path: str | None, embedder: Worker, text_of: TextOf, plain_embedding: Plain
) -> None:
    texts = [text_of(9), text_of(30), ""]
    answer = ask(embedder, path, {"id": "7", "inputs": [tensor(texts)]})
    assert (answer["model_name"], answer["id"]) == ("small", "7")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("output", "FP32", [3, 16])
    assert_close(np.reshape(output["data"], output["shape"]), [plain_embedding(text) for text in texts])


@pytest.mark.parametrize(
    ("shape", "data"), [([2, 1], [["a"], ["b"]]), ([1, 2], [["a", "b"]]), ([2, 1], ["a", "b"])]
)
def test_a_side_of_one_does_not_count(
    shape: Any, data: Any, embedder: Worker, plain_embedding: Plain
) -> None:
    (output,) = ask(embedder, "infer", {"inputs": [tensor(data, shape=shape)]})["outputs"]
    assert_close(np.reshape(output["data"], (2, 16))[1], plain_embedding("b"))


def test_classes_and_pairs_are_answered_as_json(classifier: Worker) -> None:
    pair = {"text": "a man eats", "text_pair": "a man is eating"}
    own = ask(classifier, "", {"inputs": [pair], "parameters": {"top_k": 2}})
    tensors = [tensor([text], name) for name, text in reversed(pair.items())]
    body = {"inputs": tensors, "parameters": {"top_k": 2}, "outputs": [{"name": "output"}]}
    (output,) = ask(classifier, "infer", body)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1])
    assert [json.loads(text) for text in output["data"]] == own


BAD: dict[str, tuple[Any, str]] = {
    "numbers": ({"inputs": [tensor([1.5], datatype="FP32")]}, "BYTES"),
    "ids": ({"inputs": [tensor([1, 2])]}, "holds numbers"),
    "shape": ({"inputs": [tensor(["a"], shape=[2])]}, "[2]"),
    "two wide": ({"inputs": [tensor(["a", "b", "c", "d"], shape=[2, 2])]}, "[2, 2]"),
    "no tensors": ({"inputs": []}, "0 tensors"),
    "unknown pair": ({"inputs": [tensor(["a"]), tensor(["b"], "other")]}, "text_pair"),
    "twice": ({"inputs": [tensor(["a"]), tensor(["b"])]}, "text_pair"),
    "uneven": ({"inputs": [tensor(["a"]), tensor(["b", "c"], "text_pair")]}, "2 to pair"),
    "other output": ({"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]}, "output"),
    "binary": ({"inputs": [tensor([], parameters={"binary_data_size": 4})]}, "binary"),
    "parameter": ({"inputs": [tensor(["a"])], "parameters": {"colour": 1}}, "colour"),
    "too long": ({"inputs": [tensor(["a", "word " * 40])]}, "inputs[1]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_line(name: str, embedder: Worker) -> None:
    body, says = BAD[name]
    (received,) = embedder.predict([sent("infer", body)])
    assert received.status in (413, 422)
    assert set(received.json()) == {"error"}
    assert says in received.json()["error"]


def test_without_a_path_only_named_tensors_are_taken_for_it(embedder: Worker) -> None:
    almost = {"inputs": [{"name": "text", "shape": [1], "data": ["a"]}]}
    assert set(ask(embedder, None, almost, 422)) == {"code", "type", "message"}
    assert set(ask(embedder, "", {"inputs": [tensor(["a"])]}, 422)) == {"code", "type", "message"}
