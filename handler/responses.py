"""Answers and errors out: strict JSON or raw numbers, with statuses and headers, one for each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
import orjson

from anyshape.buckets import bucket_name
from anyshape.errors import InputTooLarge, NotAcceptable, Refused
from anyshape.items import Answer, Item, Parts, Ran, Read, done_items, padding_ratio
from handler.apis.base import OWN, Api
from handler.context import Context

JSON = "application/json"
RAW = "application/octet-stream"


@dataclass
class Response:
    """What one request is answered. The body is bytes, so that the worker does not encode it again."""

    body: bytes
    code: int = 200
    phrase: str = "OK"
    headers: Dict[str, str] = field(default_factory=dict)
    content_type: str = JSON


def wants_raw(accept: Optional[str]) -> bool:
    """Whether a request's `Accept` names raw numbers, and JSON not before them."""
    if accept is None or RAW not in accept.lower():
        return False
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    return RAW in kinds and JSON not in kinds[: kinds.index(RAW)]


def raw_numbers(answer: Answer) -> np.ndarray:
    """The numbers of an answer as one array: float32, little-endian, in C order.

    Raises NotAcceptable for an answer that is no array, or a list of arrays that differ in shape.
    """
    each = answer if isinstance(answer, list) else [answer]
    arrays = [one for one in each if isinstance(one, np.ndarray) and one.dtype.kind == "f"]
    if not arrays or len(arrays) < len(each):
        raise NotAcceptable(f"this task answers in more than numbers: leave out `Accept: {RAW}`")
    if len({array.shape for array in arrays}) > 1:
        raise NotAcceptable("the answers have different shapes: ask one input at a time, or take JSON")
    return np.ascontiguousarray(np.stack(arrays) if isinstance(answer, list) else arrays[0], "<f4")


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
    answer: Answer,
    inputs: Sequence[Tuple[Read, Ran]],
    limit: int,
    notes: Mapping[str, str],
    raw: bool = False,
) -> Response:
    """A good answer, with headers that say how it came about; `notes` are those that every answer carries.
    raw: in bytes of float32, whose shape is a header, and not in JSON.

    `inputs` are what the request's inputs became and what came of them; none was refused.

    Raises InputTooLarge if it has more than `limit` bytes: TorchServe kills a worker that sends more than
    max_response_size. Raises NotAcceptable for an answer that is not raw numbers.
    """
    shape: Dict[str, str] = {}
    if raw:
        numbers = raw_numbers(answer)
        body, shape = numbers.tobytes(), {"X-Shape": ",".join(map(str, numbers.shape))}
    else:
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
        **shape,
        "X-Bucket": ",".join([bucket_name(output.bucket) for _, output in done]),
        "X-Batch-Size": ",".join([str(output.batch_size) for _, output in done]),
        "X-Padding-Ratio": f"{padding_ratio(done):.3f}",
    }
    read = [one for one, _ in inputs if isinstance(one, (Item, Parts))]
    changed = [f"{i}: {one.changed}" for i, one in enumerate(read) if one.changed]
    if changed:
        headers["X-Truncated"] = "; ".join(changed)
    windows = [len(one.items) if isinstance(one, Parts) and one.windows else 1 for one in read]
    if max(windows, default=1) > 1:
        headers["X-Windows"] = ",".join(map(str, windows))
    return Response(body, headers=headers, content_type=RAW if raw else JSON)


def write_headers(context: Context, i: int, response: Response) -> None:
    """Tell TorchServe the status and the headers of an answer."""
    if response.code != 200:
        context.set_response_status(response.code, response.phrase, i)
    context.set_response_content_type(i, response.content_type)
    for key, value in response.headers.items():
        context.set_response_header(i, key, value)
