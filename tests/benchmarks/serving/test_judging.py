from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("orjson", reason="pip install -r requirements/bench.txt")

from benchmarks.serving.judging import Judge

REFERENCES = np.array([[0.6, 0.8], [1.0, 0.0]])


def test_a_vector_is_compared_with_its_own_reference():
    judge = Judge(REFERENCES)
    assert judge.deviation(0, b"[0.6, 0.8]") == 0
    assert judge.deviation(1, b"[0.6, 0.8]") == pytest.approx(0.8)
    assert judge.deviation(0, b"[[0.6, 0.8]]") == 0


@pytest.mark.parametrize("body", [b"", b"[0.6]", b"[0.6, 0.8, 0]", b'{"a": 1}', b"[0.6, null]", b"[[1],[2]]"])
def test_what_is_no_such_vector_is_infinitely_wrong(body):
    assert Judge(REFERENCES).deviation(0, body) == float("inf")


def test_openai_words():
    body = json.dumps({"data": [{"embedding": [0.6, 0.8], "index": 0}]}).encode()
    assert Judge(REFERENCES, "openai_vector").deviation(0, body) == 0


def test_scores_of_classes():
    body = json.dumps([{"label": "cat", "score": 0.61}, {"label": "dog", "score": 0.8}]).encode()
    assert Judge(REFERENCES, "top_scores").deviation(0, body) == pytest.approx(0.01)
