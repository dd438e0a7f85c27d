"""TorchServe metrics of a batch, sent once per batch: they are declared in metrics.yaml."""

from __future__ import annotations

from collections import Counter
from typing import Sequence

from anyshape.buckets import bucket_name
from anyshape.items import Ran, Read, done_items, padding_ratio
from handler.context import Metrics
from handler.responses import Response

_UNITS = {"counter": "Count", "histogram": "Seconds"}


def report(
    metrics: Metrics,
    items: Sequence[Read],
    outputs: Sequence[Ran],
    responses: Sequence[Response],
    model_seconds: float,
    total_seconds: float,
) -> None:
    """Items per bucket, errors per status, padding ratio, seconds in and outside the model."""
    done = list(done_items(zip(items, outputs)))
    for bucket, count in Counter(output.bucket for _, output in done).items():
        _add(metrics, "bucket_items", count, "counter", Bucket=bucket_name(bucket))
    for code, count in Counter(r.code for r in responses if r.code != 200).items():
        _add(metrics, "request_errors", count, "counter", Code=str(code))
    if done:
        _add(metrics, "padding_ratio", padding_ratio(done), "histogram")
    _add(metrics, "model_seconds", model_seconds, "histogram")
    _add(metrics, "handler_seconds", total_seconds - model_seconds, "histogram")


def _add(metrics: Metrics, name: str, value: float, kind: str, **labels: str) -> None:
    from ts.metrics.dimension import Dimension  # TorchServe's own, only in its workers
    from ts.metrics.metric_type_enum import MetricTypes

    dimensions = [Dimension(key, label) for key, label in labels.items()]
    # Rounded to what Python writes without an exponent: the frontend cannot read 5e-05.
    metrics.add_metric(
        name, round(value, 4), _UNITS[kind], dimensions=dimensions, metric_type=MetricTypes(kind)
    )
