"""What Prometheus sees: TorchServe's numbers and ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tests.server.harness import Server

OURS = ("bucket_items", "request_errors", "padding_ratio", "model_seconds", "handler_seconds")


def value_of(text: str, pattern: str) -> float:
    """The first sample whose name and labels match; 0 if there is none yet."""
    found = re.search(rf"^{pattern} ([0-9.eE+-]+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def test_metrics_count_items_by_bucket_and_refusals_by_status(
    server: Server, minilm: str, text_of: Callable[[int], str]
) -> None:
    items = r'bucket_items\{Bucket="64",ModelName="minilm".*\}'
    refused = r'request_errors\{Code="413",ModelName="minilm".*\}'
    url = f"{server.torchserve.metrics}/metrics"
    before = server.http.get(url).text  # needs no token
    for _ in range(3):
        assert server.predict_text(minilm, text_of(40)).status_code == 200
    assert server.predict_text(minilm, text_of(600)).status_code == 413

    deadline = time.monotonic() + 30  # the worker's numbers arrive a moment after its answers
    while time.monotonic() < deadline:
        after = server.http.get(url).text
        if value_of(after, refused) == value_of(before, refused) + 1:
            break
        time.sleep(0.2)
    assert value_of(after, items) == value_of(before, items) + 3, after
    assert value_of(after, refused) == value_of(before, refused) + 1, after
    for name in OURS:
        assert re.search(rf'^{name}(_count)?\{{.*ModelName="minilm"', after, re.MULTILINE), name
    assert re.search(r'^ts_inference_requests_total\{model_name="minilm"', after, re.MULTILINE)
