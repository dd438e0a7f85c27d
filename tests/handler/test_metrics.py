from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from anyshape.errors import InputTooLarge
from anyshape.items import Item, Output
from handler.metrics import report
from handler.responses import Response
from tests.handler.frontend import METRICS, Sent, Worker

# What the frontend reads: no exponents, no nan, and labels without a colon or a comma.
LINE = re.compile(
    r"\[METRICS\](?P<name>\w+)\.(?P<unit>\w+):(?P<value>\d+(\.\d+)?)\|#(?P<labels>\w+:[^:,|]+(,\w+:[^:,|]+)*)"
    r"\|#type:(?P<type>\w+)\|#hostname:.*"
)


class Recorder:
    """Takes what the handler reports."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, dict[str, str]]] = []

    def add_metric(self, name: str, value: float, unit: str, *, dimensions: Any, metric_type: Any) -> None:
        self.calls.append((name, value, {d.name: d.value for d in dimensions}))


def test_a_batch_is_reported_by_bucket_status_and_padding() -> None:
    items = [Item((3,), {}), Item((4,), {}), InputTooLarge("no"), Item((9,), {})]
    outputs = [Output((), (4,), 2), Output((), (4,), 2), items[2], Output((), (16,), 1)]
    responses = [Response(b""), Response(b""), Response(b"", 413), Response(b"", 422), Response(b"", 413)]
    recorder = Recorder()
    report(recorder, items, outputs, responses, 0.25, 0.3)  # type: ignore[arg-type]
    assert recorder.calls == [
        ("bucket_items", 2, {"Bucket": "4"}),
        ("bucket_items", 1, {"Bucket": "16"}),
        ("request_errors", 2, {"Code": "413"}),
        ("request_errors", 1, {"Code": "422"}),
        ("padding_ratio", 1.5, {}),  # (4 + 4 + 16) ÷ (3 + 4 + 9)
        ("model_seconds", 0.25, {}),
        ("handler_seconds", 0.05, {}),
    ]


def test_a_batch_of_nothing_but_errors() -> None:
    recorder = Recorder()
    report(recorder, [], [], [Response(b"", 400)], 1e-6, 3e-5)
    assert recorder.calls == [
        ("request_errors", 1, {"Code": "400"}),
        ("model_seconds", 0, {}),
        ("handler_seconds", 0, {}),
    ]


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 5e-7, 2e-5, 4.9e-5, 1e-4, 0.0123456789, 3.0, 1234.5])
def test_the_frontend_can_read_any_number_of_seconds(seconds: float) -> None:
    recorder = Recorder()
    report(recorder, [], [], [], seconds, 2 * seconds)
    for _, value, _ in recorder.calls:
        assert re.fullmatch(r"\d+(\.\d+)?", str(value))


def test_what_a_worker_writes_is_declared_and_readable(
    embedding_archive_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(embedding_archive_folder)
    with caplog.at_level(logging.INFO):
        worker.predict([Sent(b"one"), Sent(b"a " * 50), Sent(b"{", "application/json")])
        worker.predict([Sent(b"{", "application/json")])
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("[METRICS]")]
    found = [match.groupdict() for match in map(LINE.match, lines) if match]
    assert len(found) == len(lines), lines
    declared = {
        (entry["name"], kind.upper(), tuple(entry["dimensions"]))
        for kind, entries in yaml.safe_load(METRICS.read_text(encoding="utf-8"))["model_metrics"].items()
        for entry in entries
    }
    for line in found:
        labels = tuple(label.split(":")[0] for label in line["labels"].split(","))
        assert (line["name"], line["type"], labels) in declared
    assert {line["name"] for line in found} >= {name for name, _, _ in declared} - {"HandlerTime"}
