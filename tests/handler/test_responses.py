from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyshape.errors import InputTooLarge, ModelFailed, NotAcceptable, UnprocessableInput
from anyshape.items import Item, Output
from anyshape.packed import INDEX
from handler.responses import answer_response, encode, error_response, wants_raw
from tests.conftest import unpacked
from tests.handler.frontend import Sent, Worker

ITEMS = [Item((3,), {}), Item((8,), {}, changed="40 tokens to 8")]
OUTPUTS = [Output((), (4,), 2), Output((), (8,), 1)]
DONE = list(zip(ITEMS, OUTPUTS))
LIMIT = 1000  # bytes

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values.filter(lambda value: "inf" not in repr(value)))
def test_an_answer_is_json_that_reads_back(value: object) -> None:
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
        (np.arange(24, dtype=np.float32).reshape(4, 6) / 7)[:2, :3],
        (np.arange(6, dtype=np.float32) / 7)[::2],
        np.arange(3),
        np.float32(0.1),
        np.asarray(0.25, np.float32),
        np.zeros((0, 4), np.float32),
    ],
)
def test_arrays_are_written_as_lists(array: np.ndarray) -> None:
    written = np.asarray(json.loads(encode(array)), dtype=array.dtype).reshape(np.shape(array))
    np.testing.assert_array_equal(written, array)


def test_a_piece_of_an_array_is_written_with_as_few_digits_as_a_whole_one() -> None:
    whole = np.full((4, 6), 0.1, np.float32)
    assert encode(whole[:1, :2]) == b"[[0.1,0.1]]"


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError):
        encode({"a": object()})


def test_an_error_has_its_status_and_a_body_that_says_so() -> None:
    response = error_response(InputTooLarge("700 tokens, the limit is 512"))
    assert (response.code, response.phrase) == (413, "Request Entity Too Large")
    assert json.loads(response.body) == {
        "code": 413,
        "type": "InputTooLarge",
        "message": "700 tokens, the limit is 512",
    }


@pytest.mark.parametrize("error", [UnprocessableInput("ä → \u2028"), ModelFailed("\x00")])
def test_a_phrase_is_ascii_whatever_the_message_is(error: UnprocessableInput) -> None:
    response = error_response(error)
    assert response.phrase.isascii()
    assert "\n" not in response.phrase
    assert json.loads(response.body)["message"] == str(error)


def test_headers_say_how_an_answer_came_about() -> None:
    response = answer_response(["a", "b"], DONE, LIMIT, {})
    assert (response.code, response.body) == (200, b'["a","b"]')
    assert response.headers == {
        "X-Bucket": "4,8",
        "X-Batch-Size": "2,1",
        "X-Padding-Ratio": "1.091",  # (4 + 8) positions for 3 + 8 tokens
        "X-Truncated": "1: 40 tokens to 8",
    }


def test_headers_are_ascii_and_one_line() -> None:
    response = answer_response(["a", "b"], DONE, LIMIT, {})
    for key, value in response.headers.items():
        assert isinstance(value, str)
        assert (key + value).isascii()
        assert "\n" not in value


def test_an_answer_for_which_nothing_was_run_has_no_headers() -> None:
    response = answer_response({"what": "a description"}, [], LIMIT, {})
    assert response.body == b'{"what":"a description"}'
    assert response.headers == {}


def test_an_inexact_archive_says_so(embedding_archive: Path, tmp_path: Path) -> None:
    folder = unpacked(embedding_archive, tmp_path)

    def said() -> Any:
        (received,) = Worker(folder).predict([Sent(b"a")])
        assert received.status == 200
        return received.headers.get("X-Inexact")

    index = json.loads((folder / INDEX).read_text())
    assert said() is None
    index["exact"] = False
    (folder / INDEX).write_text(json.dumps(index))
    assert said() == "the archive was built with allow_inexact"
    index["buckets"][0]["deviation"] = None
    (folder / INDEX).write_text(json.dumps(index))
    assert said() == "nothing was compared off the device"


def test_an_answer_larger_than_the_limit_is_refused() -> None:
    assert answer_response("x" * 98, DONE, 100, {}).code == 200
    with pytest.raises(InputTooLarge, match=r"101 bytes.* limit of 100"):
        answer_response("x" * 99, DONE, 100, {})


@pytest.mark.parametrize(
    ("accept", "raw"),
    [
        ("application/octet-stream", True),
        ("Application/Octet-Stream;q=1", True),
        ("application/octet-stream, application/json;q=0.5, */*", True),
        ("application/json, application/octet-stream", False),
        ("*/*", False),
        ("application/*", False),
        ("", False),
        (None, False),
    ],
)
def test_raw_numbers_are_asked_for_by_name(accept: str | None, raw: bool) -> None:
    assert wants_raw(accept) is raw


def test_raw_numbers_are_little_endian_float32_in_rows() -> None:
    piece = (np.arange(24, dtype=np.float32).reshape(4, 6) / 7)[:2, :3]
    response = answer_response([piece, 2 * piece], DONE, LIMIT, {}, raw=True)
    assert response.content_type == "application/octet-stream"
    assert response.headers["X-Shape"] == "2,2,3"
    found = np.frombuffer(response.body, "<f4").reshape(2, 2, 3)
    np.testing.assert_array_equal(found, np.stack([piece, 2 * piece]))


def test_raw_numbers_count_for_the_limit() -> None:
    numbers = np.zeros(LIMIT // 4, np.float32)
    assert len(answer_response(numbers, DONE[:1], LIMIT, {}, raw=True).body) == LIMIT
    with pytest.raises(InputTooLarge, match="1004 bytes, more than the limit of 1000"):
        answer_response(np.zeros(LIMIT // 4 + 1, np.float32), DONE[:1], LIMIT, {}, raw=True)


@pytest.mark.parametrize(
    "answer",
    [
        {"label": "yes", "score": 0.5},
        [{"label": "yes", "score": 0.5}],
        [np.zeros(3, np.float32), {"indices": []}],
        np.arange(3),
        [np.zeros(3, np.float32), np.zeros(4, np.float32)],
        [],
    ],
)
def test_what_is_not_numbers_of_one_shape_is_not_given_raw(answer: Any) -> None:
    with pytest.raises(NotAcceptable):
        answer_response(answer, DONE, LIMIT, {}, raw=True)


def test_raw_numbers_and_json_in_one_batch_are_the_same(embedding_archive_folder: Path) -> None:
    worker = Worker(embedding_archive_folder)
    accept = {"accept": "application/octet-stream"}
    theirs = {**accept, "url_path": "v1/embeddings"}
    plain, raw, many, bad, other = worker.predict(
        [
            Sent(b"a piece of string"),
            Sent(b"a piece of string", headers=accept),
            Sent(b'{"inputs": ["a piece of string", "two"]}', "application/json", accept),
            Sent(b"{", "application/json", accept),
            Sent(b'{"input": "a piece of string"}', "application/json", theirs),
        ]
    )
    assert (raw.status, raw.headers["content-type"]) == (200, "application/octet-stream")
    vector = np.frombuffer(raw.body, "<f4")
    assert raw.headers["X-Shape"] == str(len(vector))
    assert "X-Shape" not in plain.headers
    np.testing.assert_array_equal(vector, np.asarray(plain.json(), np.float32))
    np.testing.assert_array_equal(np.frombuffer(many.body, "<f4").reshape(2, -1)[0], vector)
    assert (bad.status, bad.headers["content-type"]) == (400, "application/json")
    assert bad.json()["type"] == "BadRequest"
    assert (other.status, other.headers["content-type"]) == (200, "application/json")
    assert other.json()["data"][0]["object"] == "embedding"


def test_labels_are_not_acceptable_raw(classification_archive: Path, tmp_path: Path) -> None:
    (refused,) = Worker(unpacked(classification_archive, tmp_path / "labels")).predict(
        [Sent(b"a piece of string", headers={"Accept": "application/octet-stream"})]
    )
    assert (refused.status, refused.phrase) == (406, "Not Acceptable")
    assert refused.json()["type"] == "NotAcceptable"
