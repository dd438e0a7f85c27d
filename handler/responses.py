"""Answers and errors out: strict JSON bytes, statuses and headers for one place in the batch each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Sequence

import numpy as np
import orjson

from anyshape.buckets import bucket_name
from anyshape.errors import InputTooLarge, RequestError
from anyshape.model import BucketedModel, Output
from anyshape.padding import Item

JSON = "application/json"


@dataclass
class Response:
    """What one request is answered. The body is bytes, so that the worker does not encode it again."""

    body: bytes
    code: int = 200
    phrase: str = "OK"
    headers: Dict[str, str] = field(default_factory=dict)


def encode(value: Any) -> bytes:
    """Strict JSON. Numpy arrays are written as nested lists, float32 with the digits that float32 has."""
    return orjson.dumps(value, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)


def _contiguous(value: Any) -> Any:
    """orjson writes only contiguous arrays itself; a cut-off piece of a larger one is not."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value) if value.ndim else value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def error_response(error: RequestError) -> Response:
    return Response(encode(error.body()), error.code, error.phrase)


def answer_response(
    model: BucketedModel, answer: Any, items: Sequence[Item], outputs: Sequence[Output]
) -> Response:
    """A good answer, with headers that say how it came about.

    Raises InputTooLarge if it is larger than the recipe allows: TorchServe kills a worker that sends more
    than max_response_size.
    """
    body = encode(answer)
    limit = model.config.max_response_bytes
    if len(body) > limit:
        raise InputTooLarge(
            f"the answer has {len(body)} bytes, more than the limit of {limit}: send fewer inputs at once"
        )
    headers = {
        "X-Bucket": ",".join(bucket_name(output.bucket) for output in outputs),
        "X-Batch-Size": ",".join(str(output.batch_size) for output in outputs),
        "X-Padding-Ratio": f"{model.padding_ratio(items, outputs):.3f}",
    }
    changed = [f"{i}: {item.changed}" for i, item in enumerate(items) if item.changed]
    if changed:
        headers["X-Truncated"] = "; ".join(changed)
    if not model.index.exact:
        compared = all(program.deviation is not None for program in model.index.programs)
        why = (
            "the archive was built with allow_inexact" if compared else "nothing was compared off the device"
        )
        headers["X-Inexact"] = why
    return Response(body, headers=headers)
