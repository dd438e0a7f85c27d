"""The worker's message of answers, beside TorchServe's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ts import service
from ts.context import Context, RequestProcessor
from ts.protocol.otf_message_handler import create_predict_response

from handler.writing import answers_message, write_at_once

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
phrases = st.sampled_from(["", "Unprocessable Entity"])
answers = st.tuples(
    st.binary(max_size=40), st.sampled_from([200, 413, 422]), phrases, st.dictionaries(words, words)
)


def context_of(batch: list[tuple[bytes, int, str, dict[str, str]]]) -> Any:
    context = Context("small", "", {}, 8, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in batch]
    for i, (_, code, phrase, headers) in enumerate(batch):
        if code != 200:
            context.set_response_status(code, phrase, i)
            context.set_response_content_type(i, "application/json")
        for key, value in headers.items():
            context.set_response_header(i, key, value)
    return context


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this is not for TorchServe's own")


@given(st.lists(answers, max_size=5), st.integers(0, 5))
def test_answers_are_written_as_torchserve_writes_them(
    batch: list[tuple[bytes, int, str, dict[str, str]]], gone: int
) -> None:
    """Whatever they hold, and also where one of them has left before."""
    context = context_of(batch)
    ids = {i: f"id of {i}" for i in range(len(batch)) if i != gone}
    bodies = [body for body, *_ in batch]
    expected = create_predict_response(bodies, ids, "done", 200, context=context)
    assert answers_message(never, bodies, ids, "done", 200, context) == bytes(expected)


@pytest.mark.parametrize("bodies", [None, [{"a": 1}], ["a text"]])
def test_what_is_not_bytes_is_torchserves_own_to_write(bodies: Any) -> None:
    context = None if bodies is None else context_of([(b"", 200, "", {})])
    expected = create_predict_response(bodies, {0: "one"}, "said", 503, context=context)
    assert answers_message(create_predict_response, bodies, {0: "one"}, "said", 503, context) == expected


def test_a_worker_that_initialises_twice_writes_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "create_predict_response", create_predict_response)
    write_at_once()
    ours: Any = service.create_predict_response
    write_at_once()
    assert service.create_predict_response is ours
    assert ours.args == (create_predict_response,)
