"""Scores chunks: their rows as one batch, sorted and packed together, the answers as a table.

A row that is refused is a row of the output, with the status, the type and the message that a server would
have answered; so is one that cannot be read.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from anyshape.buckets import bucket_name
from anyshape.errors import ModelFailed, Refused, UnprocessableInput
from anyshape.faces.load import load_answering
from anyshape.failures import EXITS, log_failure
from anyshape.items import Answer, Input, Item, Parts, done_items
from anyshape.scoring.chunks import Chunk, Row
from anyshape.scoring.job import Job
from anyshape.scoring.sources import KINDS
from anyshape.tasks.base import TO_CUT
from handler.answering import Answering
from handler.apis.base import Request
from handler.requests import one_input
from handler.responses import encode

VECTORS = ("sentence-embedding",)  # tasks whose answer is one vector; others are written as JSON
_OK = 200
_TO_CUT = """, or score with --parameters '{"truncation": true}'"""  # what `TO_CUT` is here


class Scorer:
    """One archive, loaded, and the job that it is asked for.

    cores: threads of a call. Raises ConfigError if the archive cannot be loaded, UnprocessableInput if the
    job's parameters are none of the task's.
    """

    def __init__(self, job: Job, cores: Optional[int] = None) -> None:
        self.job = job
        self.answering: Answering = load_answering(Path(job.archive), cores)
        self.model = self.answering.model
        self.parameters = self.model.task.check_parameters(job.parameters)
        vectors = self.model.task.name in VECTORS
        self.kind = pa.list_(pa.float32()) if vectors else pa.string()

    def write(self, chunk: Chunk) -> Tuple[int, int]:
        """Score a chunk and write its part, whole or not at all; how many rows it has, and how many errors.

        A part that is there already is left as it is: it was written before a fault that was told later.
        """
        path = self.job.folder / chunk.part
        if not path.is_file():
            table = self.score(chunk)
            work = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
            try:
                with work.open("wb") as file:
                    pq.write_table(table, file)
                    file.flush()
                    os.fsync(file.fileno())
                work.replace(path)
            finally:
                work.unlink(missing_ok=True)
        status = pq.read_table(path, columns=["status"])["status"].to_pylist()
        return len(status), sum(code != _OK for code in status)

    def score(self, chunk: Chunk) -> pa.Table:
        """The answers to all rows of a chunk, in their order."""
        rows = list(KINDS[chunk.kind].rows(chunk, self.job.columns))
        found = self._answered([self._request(row) for row in rows])
        columns: Dict[str, Any] = {
            "file": pa.array([chunk.path] * len(rows), pa.string()),
            "row": pa.array(range(chunk.first, chunk.first + len(rows)), pa.int64()),
            "key": pa.array([row.key for row in rows], pa.string()),
        }
        for name in self.job.keep:
            columns[f"input_{name}"] = pa.array([_shown(row, name) for row in rows], pa.string())
        columns["answer"] = pa.array([self._written(one) for one, _, _ in found], self.kind)
        columns["status"] = pa.array([one.code if _bad(one) else _OK for one, _, _ in found], pa.int16())
        columns["error"] = pa.array([type(one).__name__ if _bad(one) else None for one, _, _ in found])
        columns["message"] = pa.array([_said(one) if _bad(one) else None for one, _, _ in found], pa.string())
        columns["bucket"] = pa.array([bucket for _, bucket, _ in found], pa.string())
        columns["changed"] = pa.array([changed for _, _, changed in found], pa.string())
        columns["error"] = columns["error"].cast(pa.string())
        return pa.table(columns)

    def _request(self, row: Row) -> Request:
        """What a row asks for, or why it is refused."""
        try:
            value = self._input(row)
            task = self.model.task
            request = one_input(value, self.parameters, task.body, self.model.settings)
            task.check_request(request.inputs, request.parameters)
            return request
        except Refused as error:
            return Request([], refused=error)
        except EXITS:
            raise
        except BaseException as error:
            log_failure("a row could not be read", error)
            return Request([], refused=UnprocessableInput("the row could not be read; the log says why"))

    def _input(self, row: Row) -> Input:
        if isinstance(row.values, Refused):
            raise row.values
        value: Input = self._value(row.values, self.job.column)
        if self.job.pair is None:
            return value
        return {"text": value, "text_pair": self._value(row.values, self.job.pair)}

    def _value(self, values: Dict[str, Any], name: str) -> Any:
        if name not in values:
            raise UnprocessableInput(f"the row has no {name!r}")
        value = values[name]
        if isinstance(value, Refused):
            raise value
        if self.model.task.body.is_bytes and isinstance(value, dict) and "bytes" in value:
            value = value["bytes"]  # how the library `datasets` writes a picture
        return value

    def _answered(self, requests: Sequence[Request]) -> List[Tuple[Any, Optional[str], Optional[str]]]:
        """Of each request the answer or the Refused, the bucket, and how a policy changed the input."""
        try:
            batch = self.answering.preprocess(requests)
            outputs = self.answering.inference(batch)
        except EXITS:
            raise
        except BaseException as error:
            log_failure(f"{len(requests)} rows failed together", error)
            if len(requests) == 1:
                return [(ModelFailed("the row failed; the log says why"), None, None)]
            return [found for request in requests for found in self._answered([request])]
        answered: List[Tuple[Any, Optional[str], Optional[str]]] = []
        for request, place in zip(batch.requests, batch.places):
            try:
                (answer,) = self.answering.answers(request, batch, outputs, place)
            except Refused as error:
                answered.append((error, None, None))
                continue
            except Exception as error:
                log_failure("an answer failed", error)
                answered.append((ModelFailed("the answer could not be made; the log says why"), None, None))
                continue
            done = zip(batch.items[place], outputs[place])
            buckets = ",".join(bucket_name(output.bucket) for _, output in done_items(done))
            (item,) = batch.items[place]
            assert isinstance(item, (Item, Parts))
            answered.append((answer, buckets, item.changed))
        return answered

    def _written(self, answer: Answer) -> Any:
        if _bad(answer):
            return None
        return answer if pa.types.is_list(self.kind) else encode(answer).decode()


def _bad(answer: Any) -> bool:
    return isinstance(answer, Refused)


def _said(error: Refused) -> str:
    """What a server would say, where it says how to ask otherwise in the words of the command."""
    return str(error).replace(TO_CUT, _TO_CUT)


def _shown(row: Row, name: str) -> Optional[str]:
    """A column that is kept, as text."""
    value = row.values.get(name) if isinstance(row.values, dict) else None
    if value is None or isinstance(value, Refused):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return orjson.dumps(value, default=str).decode()
