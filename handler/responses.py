"""Answers and errors out: strict JSON bytes, statuses and headers for one place in the batch each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Sequence, Tuple

import numpy as np
import orjson

from anyshape.buckets import bucket_name
from anyshape.errors import InputTooLarge, Refused
from anyshape.items import Answer, Item, Parts, Ran, Read, done_items, padding_ratio
from handler.apis.base import OWN, Api

JSON = "application/json"


@dataclass
class Response:
    """What one request is answered. The body is bytes, so that the worker does not encode it again."""

    body: bytes
    code: int = 200
    phrase: str = "OK"
    headers: Dict[str, str] = field(default_factory=dict)


def encode(value: Answer) -> bytes:
    """Strict JSON. Numpy arrays are written as nested lists, float32 with the digits that float32 has."""
    return orjson.dumps(value, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)


def _contiguous(value: object) -> Answer:
    """orjson writes only contiguous arrays itself; a cut-off piece of a larger one is not."""
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value) if value.ndim else value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def error_response(error: Refused, api: Api = OWN) -> Response:
    """A refusal, as the API says it that was asked."""
    return Response(encode(api.error(error)), error.code, error.phrase)


def answer_response(
    answer: Answer, inputs: Sequence[Tuple[Read, Ran]], limit: int, notes: Mapping[str, str]
) -> Response:
    """A good answer, with headers that say how it came about; `notes` are those that every answer carries.

    `inputs` are what the request's inputs became and what came of them; none was refused.

    Raises InputTooLarge if it has more than `limit` bytes: TorchServe kills a worker that sends more than
    max_response_size.
    """
    body = encode(answer)
    if len(body) > limit:
        raise InputTooLarge(
            f"the answer has {len(body)} bytes, more than the limit of {limit}: send fewer inputs at once"
        )
    done = list(done_items(inputs))
    if not done:  # nothing was run, as for a description
        return Response(body)
    headers = {
        **notes,
        "X-Bucket": ",".join(bucket_name(output.bucket) for _, output in done),
        "X-Batch-Size": ",".join(str(output.batch_size) for _, output in done),
        "X-Padding-Ratio": f"{padding_ratio(done):.3f}",
    }
    read = [one for one, _ in inputs if isinstance(one, (Item, Parts))]
    changed = [f"{i}: {one.changed}" for i, one in enumerate(read) if one.changed]
    if changed:
        headers["X-Truncated"] = "; ".join(changed)
    windows = [len(one.items) if isinstance(one, Parts) and one.windows else 1 for one in read]
    if max(windows, default=1) > 1:
        headers["X-Windows"] = ",".join(map(str, windows))
    return Response(body, headers=headers)
