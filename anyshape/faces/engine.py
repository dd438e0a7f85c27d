"""Answers requests one compiled call at a time: what waits is packed anew before each call, and an answer
leaves as soon as its last call has ended.

    engine = Engine(answering)
    response = engine.submit(request).result()

One thread runs the model. Which call comes next is decided by the highest response ratio, (waiting + cost) ÷
cost: short texts do not wait for long ones, and no long one waits for ever (Brinch Hansen, 1971).
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

from anyshape.buckets import fits
from anyshape.errors import ModelFailed, Refused, Unavailable
from anyshape.failures import EXITS, log_failure
from anyshape.items import Item, OutputOrRefused, Parts, Ran, Read
from anyshape.packing import Call
from anyshape.running import together
from handler.answering import Answering
from handler.apis.base import Request
from handler.batch import Batch
from handler.responses import Response, error_response

AT_ONCE = 64  # items that are packed together; planning more takes longer than it gains
BUDGET = 1.0  # seconds that these may take: what came last waits outside of the plan


@dataclass
class _Waiting:
    """A request in hand: what its inputs became, and what came of each so far."""

    request: Request
    future: Future[Response]
    read: List[Read]
    left: int = 0
    done: Dict[Tuple[int, int], OutputOrRefused] = field(default_factory=dict)


@dataclass
class _Place:
    """An item that waits for its call: whose it is, and which part of which input."""

    item: Item
    of: _Waiting
    place: Tuple[int, int]
    since: float


class Engine:
    """The thread that runs a model, and the requests that wait for it.

    waiting: as many requests as may wait; more are refused with Unavailable.
    """

    def __init__(self, answering: Answering, waiting: int = 1000) -> None:
        self.answering = answering
        self.model = answering.model
        self.most = waiting
        self.inbox: queue.SimpleQueue[Union[Tuple[Request, Future[Response]], None]] = queue.SimpleQueue()
        self.pool: List[_Place] = []
        self.open = 0  # requests that wait or are in hand
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, name="anyshape-engine", daemon=True)
        self.thread.start()

    def submit(self, request: Request) -> Future[Response]:
        """The response to a request, when it is there. A future never holds an exception."""
        future: Future[Response] = Future()
        with self.lock:
            full = self.open >= self.most
            self.open += not full
        if full:
            refused = Unavailable(f"{self.most} requests wait already: try again in a second")
            response = error_response(refused, request.api)
            response.headers["Retry-After"] = "1"
            future.set_result(response)
        else:
            self.inbox.put((request, future))
        return future

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def close(self) -> None:
        """Answer what is in hand and end the thread."""
        self.inbox.put(None)
        self.thread.join()

    def _run(self) -> None:
        going = True
        while going or self.pool:
            arrived: List[Tuple[Request, Future[Response]]] = []
            while going:
                try:
                    one = self.inbox.get(block=not self.pool and not arrived)
                except queue.Empty:
                    break
                if one is None:
                    going = False
                else:
                    arrived.append(one)
            if arrived:
                self._take(arrived)
            if self.pool:
                self._step()

    def _take(self, arrived: Sequence[Tuple[Request, Future[Response]]]) -> None:
        """Read new requests, all their inputs at once, and put their items with those that wait."""
        try:
            batch = self.answering.preprocess([request for request, _ in arrived])
        except EXITS:
            raise
        except BaseException as error:
            log_failure(f"reading {len(arrived)} requests failed", error)
            if len(arrived) > 1:
                for one in arrived:
                    self._take([one])
            else:
                request, future = arrived[0]
                self._failed(_Waiting(request, future, []))
            return
        now = time.monotonic()
        for (request, future), place in zip(arrived, batch.places):
            waiting = _Waiting(request, future, batch.items[place])
            for i, read in enumerate(waiting.read):
                for j, item in enumerate(read.items if isinstance(read, Parts) else [read]):
                    self._place(item, waiting, (i, j), now)
            if not waiting.left:
                self._answer(waiting)

    def _place(
        self, item: Union[Item, Refused], waiting: _Waiting, place: Tuple[int, int], now: float
    ) -> None:
        if isinstance(item, Refused):
            waiting.done[place] = item
        elif not fits(item.size, self.model.buckets, self.model.costs.unpadded):
            waiting.done[place] = self.model.runner().too_large(item)
        else:
            waiting.left += 1
            self.pool.append(_Place(item, waiting, place, now))

    def _step(self) -> None:
        """Run the call that is due, and answer the requests whose last it was."""
        runner, costs = self.model.runner(), self.model.costs
        planned, seconds = 0, 0.0
        while planned < min(AT_ONCE, len(self.pool)) and seconds < BUDGET:
            seconds += costs.per_call(costs.cheapest(self.pool[planned].item.size))
            planned += 1
        try:
            calls = runner.policy([one.item.size for one in self.pool[:planned]], costs)
            call = max(calls, key=self._ratio(time.monotonic()))
            taken = [self.pool[i] for i in call.items]
            outputs = runner.run_or_fail(call, [one.item for one in taken])
        except EXITS:
            raise
        except BaseException as error:  # a panic in compiled code, or a plan that cannot be made
            log_failure("a call could not be run", error)
            taken = self.pool[:planned]
            outputs = [ModelFailed("the request failed; the server's log says why")] * len(taken)
        gone = set(map(id, taken))
        self.pool = [one for one in self.pool if id(one) not in gone]
        for one, output in zip(taken, outputs):
            one.of.done[one.place] = output
            one.of.left -= 1
            if not one.of.left:
                self._answer(one.of)

    def _ratio(self, now: float) -> Callable[[Call], float]:
        def ratio(call: Call) -> float:
            cost = self.model.costs.cost(call.bucket, call.batch_size)
            return (now - min(self.pool[i].since for i in call.items) + cost) / cost

        return ratio

    def _answer(self, waiting: _Waiting) -> None:
        outputs: List[Ran] = []
        for i, one in enumerate(waiting.read):
            if isinstance(one, Parts):
                outputs.append(together([waiting.done[i, j] for j in range(len(one.items))]))
            else:
                outputs.append(waiting.done[i, 0])
        whole = slice(0, len(waiting.read))
        batch = Batch([waiting.request], waiting.read, [whole])
        try:
            response: Optional[Response] = self.answering.response(waiting.request, batch, outputs, whole)
        except EXITS:
            raise
        except BaseException as error:
            log_failure("an answer failed", error)
            response = None
        if response is None:
            self._failed(waiting)
        else:
            self._leave(waiting, response)

    def _failed(self, waiting: _Waiting) -> None:
        failed = ModelFailed("the request failed; the server's log says why")
        self._leave(waiting, error_response(failed, waiting.request.api))

    def _leave(self, waiting: _Waiting, response: Response) -> None:
        with self.lock:
            self.open -= 1
        if not waiting.future.cancelled():
            waiting.future.set_result(response)
