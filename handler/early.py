"""Answers that leave while the rest of their batch still runs.

TorchServe takes a batch's answers in one message, and one in which an answer has `ts_stream_next: true` as
not the last. So an early answer is a stream of two parts, its body and its end, in one message: whole for its
client at once, in chunks. What TorchServe 0.12 makes of it, by its source and by tests/server/test_early.py:

- The frontend keeps the request until the batch ends. A worker that dies before makes it write an error to
  every client of the batch, answered or not. Therefore an early answer ends its connection.
- It writes `Connection: keep-alive` over a header of that name. But it does not check a stream's headers, so
  that a line break in the value of another carries `Connection: close` past it; close wins over keep-alive.
- The requests of a worker that is stopped are handed to another, answered or not, and a second stream for one
  request would end that worker. Therefore what has left is remembered by all workers together.
- A status cannot be told later, and a gRPC call takes one message: only good answers to HTTP leave early.
"""

from __future__ import annotations

import copy
import hashlib
import mmap
import time
from pathlib import Path
from typing import Dict, Optional, Sequence, cast

from anyshape.errors import Refused
from anyshape.items import Ran
from handler.answering import Answering
from handler.batch import Batch
from handler.context import Context, header
from handler.responses import Response, write_headers

WORTH = 0.01  # seconds that the rest must take: a new connection for the client and three writes cost as well
CLOSE = "true\r\nConnection: close"
SLOTS = 1 << 16  # ids that are remembered; each takes the place of one that had the same last 16 bits
DIGEST = 16  # bytes


class SentIds:
    """The requests of one model that were answered early, by all its workers: a file mapped into memory."""

    def __init__(self, path: Path) -> None:
        with path.open("ab") as file:
            file.truncate(SLOTS * DIGEST)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SLOTS * DIGEST)

    def add(self, request_id: str) -> bool:
        """Remember an id. False if it was there already."""
        digest = hashlib.blake2b(request_id.encode(), digest_size=DIGEST).digest()
        start = int.from_bytes(digest[:2], "big") * DIGEST
        if self._map[start : start + DIGEST] == digest:
            return False
        self._map[start : start + DIGEST] = digest
        return True


class EarlyAnswers:
    """The early answers of one batch. Called as each of its calls ends, with what has run so far.

    responses: those that have left, by their requests' places. seconds: when, from the start of the batch.
    spent: the seconds that making and sending them took.
    """

    def __init__(
        self, answering: Answering, batch: Batch, context: Context, sent: SentIds, started: float
    ) -> None:
        self.responses: Dict[int, Response] = {}
        self.seconds: Dict[int, float] = {}
        self.spent = 0.0
        self._answering, self._batch, self._context = answering, batch, context
        self._sent, self._started = sent, started
        # A request without a host is not HTTP/1.1, and most likely gRPC.
        self._open = [i for i in range(len(batch.places)) if header(context, i, "host") is not None]

    def __call__(self, ran: Sequence[Optional[Ran]], left: float) -> None:
        """ran: what came of each input of the batch, None where it has not run. left: seconds of the rest."""
        if left < WORTH:
            return
        started = time.perf_counter()
        for i in self._open[:]:
            outputs = ran[self._batch.places[i]]
            if not outputs or None in outputs:
                continue
            self._open.remove(i)
            if not any(isinstance(output, Refused) for output in outputs):
                self._answer(i, cast(Sequence[Ran], ran))
        self.spent += time.perf_counter() - started

    def _answer(self, i: int, ran: Sequence[Ran]) -> None:
        batch = self._batch
        response = self._answering.response(batch.requests[i], batch, ran, batch.places[i])
        if response.code == 200 and self._sent.add(self._context.request_ids[i]):
            self.responses[i], self.seconds[i] = response, time.perf_counter() - self._started
            send(self._context, i, response)


def send(context: Context, i: int, response: Response) -> None:
    """Send one answer of the batch now. The batch's own message, at its end, will have nothing for it."""
    from ts.context import RequestProcessor  # TorchServe's own, only in workers
    from ts.protocol.otf_message_handler import create_predict_response

    request_id = context.request_ids.pop(i)  # by these the worker makes its message
    parts = copy.copy(context)
    parts.request_processor = [RequestProcessor({}), RequestProcessor({})]
    parts.stopping_criteria = [lambda _: False, lambda _: True]  # by these it tells the parts of a stream
    write_headers(parts, 0, response)
    parts.set_response_header(0, "X-Early-Answer", CLOSE)
    bodies, ids = [response.body, b""], {0: request_id, 1: request_id}
    context.cl_socket.sendall(create_predict_response(bodies, ids, "early", 200, context=parts))
