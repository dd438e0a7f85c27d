from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyshape.errors import InputTooLarge, ModelFailed, UnprocessableInput
from anyshape.items import Item, Output
from anyshape.packed import INDEX
from handler.responses import answer_response, encode, error_response
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
