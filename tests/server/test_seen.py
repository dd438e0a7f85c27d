"""What a running server has seen, out of the answers of its management API."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anyshape.costs import CostRow
from anyshape.server.checks import ServeError
from anyshape.server.seen import read_token, seen_in, without_earlier

Write = Callable[[str, object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_what_a_server_has_seen() -> None:
    metadata = {
        "buckets": [[128], [64]],
        "seen": [[[37], 12], [[40], 3]],
        "costs": [{"bucket": [128], "batch_size": 1, "seconds": 0.004}],
    }
    for carried in (metadata, json.dumps(metadata)):
        found = seen_in([{"modelName": "m", "customizedMetadata": carried}], "here")
        assert found.histogram == {(37,): 12, (40,): 3}
        assert found.buckets == [(64,), (128,)]
        assert found.costs == [CostRow(bucket=(128,), batch_size=1, seconds=0.004)]
    assert seen_in([{"customizedMetadata": {**metadata, "costs": None}}], "here").costs == []


@pytest.mark.parametrize(
    "answer",
    [[], {}, None, [{}], [{"customizedMetadata": "no json"}], [{"customizedMetadata": {"buckets": [[1]]}}],
     [{"customizedMetadata": {"buckets": [[1]], "seen": []}}],
     [{"customizedMetadata": {"buckets": [[1]], "seen": [3]}}],
     [{"customizedMetadata": {"buckets": 3, "seen": [[[3], 1]]}}]],
)  # fmt: skip
def test_a_server_that_says_nothing(answer: object) -> None:
    with pytest.raises(ServeError, match=r"^here: the model "):
        seen_in(answer, "here")


def described(seen: list[Any], since: str = "2026-11-30T08:15:00Z") -> list[Any]:
    return [{"customizedMetadata": {"buckets": [[64]], "seen": seen, "seen_since": since}}]


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ([], {(37,): 12, (40,): 3}),
        ([[[37], 10]], {(37,): 2, (40,): 3}),
        ([[[37], 12], [[40], 1]], {(40,): 2}),
    ],
)
def test_what_was_seen_before_is_left_out(
    write: Write, before: list[Any], left: dict[tuple[int, ...], int]
) -> None:
    now = seen_in(described([[[37], 12], [[40], 3]]), "here")
    assert without_earlier(now, write("before.json", described(before))) == replace(now, histogram=left)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (described([[[37], 13]]), "counts anew since 2026-11-30T08:15:00Z"),
        (described([[[50], 1]]), "counts anew"),
        (described([[[37], 1]], since="2026-11-29T08:15:00Z"), "counts anew"),
        (described([[[37], 12], [[40], 3]]), "seen nothing since"),
        ([{"customizedMetadata": None}], "before.json: the model does not say"),
        ({"code": 400}, "before.json: the model does not say"),
    ],
)
def test_an_earlier_answer_that_does_not_fit(write: Write, before: object, says: str) -> None:
    now = seen_in(described([[[37], 12], [[40], 3]]), "here")
    with pytest.raises(ServeError, match=says):
        without_earlier(now, write("before.json", before))


def test_the_management_token(write: Write) -> None:
    keys = write("key_file.json", {"management": {"key": "abc"}, "inference": {"key": "xyz"}})
    assert read_token(keys) == "abc"
    with pytest.raises(ServeError, match="management"):
        read_token(write("other.json", {"key": "abc"}))
