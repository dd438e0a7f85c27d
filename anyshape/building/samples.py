"""Sample requests with their answers, packed into the archive: they prove a new version before it serves.

    samples.json: {"tolerance": 0.001, "samples": [{"request": {"inputs": "a text"}, "answer": [0.1, ...]}]}

The answers are those of the compiled model that was compared with the unpadded one. `anyshape swap` asks the
requests again of what it is about to put into service.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import orjson

from anyshape.archive import SAMPLES
from anyshape.buckets import Bucket
from anyshape.building.tasks.base import TaskBuilder
from anyshape.errors import Refused
from anyshape.items import Input
from anyshape.model import BucketedModel

MOST = 6  # requests
MOST_BYTES = 200_000  # of one request with its answer; what has more is left out
# How far an answer may be from the build's, relative to the largest magnitude in it: another machine rounds
# otherwise.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}


def write_samples(model: BucketedModel, builder: TaskBuilder, folder: Path) -> None:
    """Write samples.json into `folder`, an archive to be; an empty list where the task makes no requests."""
    made = [_sample(model, builder.sample_request(bucket)) for bucket in _spread(model.buckets)]
    samples = [sample for sample in made if sample is not None]
    tolerance = max(TOLERANCES.get(model.index.dtype, 5e-2), model.index.tolerance)
    written = {"tolerance": tolerance, "samples": samples}
    (folder / SAMPLES).write_text(json.dumps(written), encoding="utf-8")


def _spread(buckets: Sequence[Bucket]) -> List[Bucket]:
    """Some of them, the smallest and the largest among them."""
    places = np.linspace(0, len(buckets) - 1, min(MOST, len(buckets)))
    return [buckets[round(float(place))] for place in places]


def _sample(model: BucketedModel, request: Optional[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    if request is None:
        return None
    value: Input = request["inputs"]
    try:
        answer = model(value, **request.get("parameters", {}))
    except Refused:
        return None
    if isinstance(value, bytes):
        request = {**request, "inputs": base64.b64encode(value).decode("ascii")}
    kept = {
        "request": request,
        "answer": orjson.loads(
            orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=np.ndarray.tolist)
        ),
    }
    return kept if len(json.dumps(kept)) <= MOST_BYTES else None
