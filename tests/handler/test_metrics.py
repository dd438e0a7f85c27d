"""What a worker hands to TorchServe, line by line, and that its frontend can read it."""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from anyshape.model import BucketedModel
from handler.counts import Counts, steps_of
from handler.metrics import planned_waste, worker_name
from tests.conftest import BUCKETS, TextOf
from tests.handler.frontend import METRICS, Sent, Worker

# What the frontend reads: digits and no plus sign, and labels without a colon or a comma.
LINE = re.compile(
    r"\[METRICS\](?P<name>\w+)\.(?P<unit>\w+):(?P<value>[0-9\-.e]+)\|#(?P<labels>\w+:[^:,|]+(,\w+:[^:,|]+)*)"
    r"\|#type:(?P<type>\w+)\|#hostname:.*"
)
Values = dict[tuple[str, ...], float]  # (name, the labels' values but for the model's name and version)


@pytest.fixture
def worker(embedding_archive_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr("handler.counts.SECONDS", 3600.0)  # nothing is handed over but by the tests
    return Worker(embedding_archive_folder)


def flushed(worker: Worker, caplog: pytest.LogCaptureFixture) -> Values:
    """What the worker has counted since the last time, as the frontend adds it up."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        worker.handler.metrics.counts.flush()
    declared = {
        (entry["name"], kind.upper()): entry["dimensions"]
        for kind, entries in yaml.safe_load(METRICS.read_text(encoding="utf-8"))["model_metrics"].items()
        for entry in entries
    }
    found: Values = defaultdict(float)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("[METRICS]anyshape")]
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, line
        labels = [label.split(":") for label in match["labels"].split(",")]
        assert [key for key, _ in labels] == declared[match["name"], match["type"]], line
        assert labels[-2] == ["model_name", "small"]
        found[(match["name"], *(value for _, value in labels[:-2]))] += float(match["value"])
    return found


@pytest.fixture
def worker_and_lines(worker: Worker, caplog: pytest.LogCaptureFixture) -> tuple[Worker, Values]:
    return worker, flushed(worker, caplog)


def test_everything_that_is_declared_appears_at_once(
    worker_and_lines: tuple[Worker, Values],
) -> None:
    _, first = worker_and_lines
    names = {name for name, *_ in first}
    declared = yaml.safe_load(METRICS.read_text(encoding="utf-8"))["model_metrics"]
    ours = {e["name"] for entries in declared.values() for e in entries if e["name"].startswith("anyshape")}
    later = {n for n in ours if n.startswith(("anyshape_request_duration", "anyshape_queue_duration"))}
    assert names == ours - later - {"anyshape_planned_waste_ratio"}  # no plan in this archive
    assert first.pop(("anyshape_worker_starts_total", "0")) == 1
    assert set(first.values()) == {0}
    assert ("anyshape_request_errors_total", "413", "InputTooLarge") in first
    for bucket in BUCKETS:
        key = ("anyshape_call_duration_seconds_bucket", str(bucket))
        steps = [float(labels[0]) for name, *labels in first if (name, *labels[1:]) == key]
        assert steps == [*steps_of(key[0][: -len("_bucket")]), float("inf")]
        assert ("anyshape_items_total", str(bucket)) in first


def test_a_batch_is_counted(
    worker_and_lines: tuple[Worker, Values], text_of: TextOf, caplog: pytest.LogCaptureFixture
) -> None:
    worker, _ = worker_and_lines
    waited = {"X-Request-Start": f"t={time.time() - 0.4:.3f}"}
    sent = [
        Sent(text_of(3).encode()),
        Sent(text_of(4).encode(), headers=waited),
        Sent(b"{", "application/json"),
        Sent(text_of(30).encode()),
        Sent(text_of(99).encode()),
    ]
    statuses = [received.status for received in worker.predict(sent)]
    assert statuses == [200, 200, 400, 200, 413]
    found = flushed(worker, caplog)
    assert found["anyshape_requests_total",] == 5
    assert found["anyshape_request_errors_total", "400", "BadRequest"] == 1
    assert found["anyshape_request_errors_total", "413", "InputTooLarge"] == 1
    assert found["anyshape_request_duration_seconds_count", "worker"] == 4
    assert found["anyshape_request_duration_seconds_count", "front"] == 1
    assert 0.4 <= found["anyshape_queue_duration_seconds_sum",] < 0.5
    assert found["anyshape_queue_duration_seconds_bucket", "0.3"] == 0
    assert found["anyshape_queue_duration_seconds_bucket", "0.5"] == 1
    assert found["anyshape_queue_duration_seconds_bucket", "+Inf"] == 1

    def total(name: str) -> float:
        return sum(value for (found_name, *_), value in found.items() if found_name == name)

    assert total("anyshape_items_total") == 3
    assert total("anyshape_real_positions_total") == 3 + 4 + 30
    padded, executed = total("anyshape_padded_positions_total"), total("anyshape_executed_positions_total")
    assert 4 + 4 + 32 <= padded <= executed
    calls = total("anyshape_call_duration_seconds_count")
    assert calls == found["anyshape_call_rows_count",] >= 1
    assert found["anyshape_call_rows_sum",] >= 3
    model = total("anyshape_call_duration_seconds_sum")
    assert 0 < model <= found["anyshape_stage_seconds_total", "run"] + 1e-4
    assert total("anyshape_call_duration_ratio_count") == calls
    costs = worker.handler.model.costs.rows()
    least, most = min(row.seconds for row in costs), max(row.seconds for row in costs)
    assert model / most - 1e-4 <= total("anyshape_call_duration_ratio_sum") <= model / least + 1e-4
    spent = total("anyshape_stage_seconds_total")
    assert found["anyshape_request_duration_seconds_sum", "worker"] == pytest.approx(4 * spent, abs=1e-4)
    assert found["anyshape_requests_in_hand", "0"] == 0
    assert not flushed(worker, caplog), "what was handed over is not handed over again"


def test_what_a_policy_changed_is_counted(
    worker_and_lines: tuple[Worker, Values], text_of: TextOf, caplog: pytest.LogCaptureFixture
) -> None:
    worker, _ = worker_and_lines
    (received,) = worker.predict(
        [
            Sent(
                b'{"inputs": "%s", "parameters": {"truncation": true}}' % text_of(60).encode(),
                "application/json",
            )
        ]
    )
    assert "X-Truncated" in received.headers
    found = flushed(worker, caplog)
    assert found["anyshape_changed_inputs_total", "truncated"] == 1
    assert found["anyshape_changed_inputs_total", "windowed"] == 0


@pytest.mark.parametrize("said", ["", "yesterday", "t=", "t=nan", "t=-inf", "t=1", "t=99999999999", "é"])
def test_a_start_that_cannot_be_is_none(
    said: str, worker_and_lines: tuple[Worker, Values], caplog: pytest.LogCaptureFixture
) -> None:
    worker, _ = worker_and_lines
    (received,) = worker.predict([Sent(b"a text", headers={"X-Request-Start": said})])
    assert received.status == 200
    found = flushed(worker, caplog)
    assert found["anyshape_request_duration_seconds_count", "worker"] == 1
    assert ("anyshape_queue_duration_seconds_count",) not in found


@pytest.mark.parametrize("value", [0.0, 1e-9, 5e-7, 2e-5, 0.0123456789, 3.0, 1234.5, 1e14, 1e15, 3e20])
def test_the_frontend_can_read_any_number(
    value: float, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    counts = Counts(worker.metrics, ("small", "1.0"))
    counts.add("anyshape_stage_seconds_total", value, "run")
    with caplog.at_level(logging.INFO):
        counts.flush()
    match = LINE.fullmatch(caplog.messages[-1])
    assert match, caplog.messages
    assert float(match["value"]) == pytest.approx(value, abs=1e-6)


def test_another_metrics_file_is_no_error(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    counts = Counts(worker.metrics, ("small", "1.0"))
    counts.add("anyshape_nobody_declared_total", 1)
    counts.add("anyshape_requests_total", 1)
    counts.flush()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_worker_keeps_its_name() -> None:
    assert worker_name(["w.py", "--sock-type", "unix", "--sock-name", "/tmp/x.y/.ts.sock.9001"]) == "9001"
    assert worker_name(["w.py", "--sock-type", "tcp", "--port", "9002"]) == "9002"
    assert worker_name(["pytest"]) == "0"


def test_the_planned_waste_is_one_of_positions(
    embedding: BucketedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding.index, "plan", {"histogram": [[[3], 2], [[8], 1], [[99], 5]]})
    assert planned_waste(embedding) == (4 + 4 + 8) / (3 + 3 + 8)  # 99 fits none
