"""TorchServe's face: initialize, preprocess, inference, postprocess, describe.

TorchServe imports this module and takes the one class in it. What else knows TorchServe is in the package
`handler`, the engine in `anyshape`; both travel beside this file in the archive.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

from anyshape.buckets import bucket_name
from anyshape.errors import ModelFailed
from anyshape.failures import EXITS, log_failure, survived
from anyshape.items import items_of
from anyshape.model import BucketedModel
from anyshape.packed import RECIPE
from anyshape.process import prepare_process
from anyshape.recipe import Recipe, read_yaml
from anyshape.settings import Settings
from handler.answering import Answering
from handler.apis.base import Request, Served
from handler.base_handler import BaseHandler
from handler.batch import Answered
from handler.context import Context, header, headers, url_path
from handler.early import EarlyAnswers, SentIds
from handler.logs import keep_short
from handler.metrics import WorkerMetrics, waits
from handler.reading import read_at_once
from handler.requests import Sent
from handler.responses import JSON, Response, error_response, write_headers
from handler.tracing import create_tracing
from handler.traffic import Traffic
from handler.writing import write_at_once

COSTS = "costs.json"  # what a start of a worker settled on, for the next ones of this server
logger = logging.getLogger(__name__)
Description = Dict[str, Any]  # what is served, as JSON


class BucketedHandler(Answering, BaseHandler):  # type: ignore[misc]  # TorchServe is untyped
    """Serves an archive of bucketed models. Every request of a batch gets its own answer or its own error.

    `preprocess`, `inference` and `postprocess` are those of `answering`, which knows no TorchServe.
    """

    def initialize(self, context: Context) -> None:
        """Load the bucketed models beside this file, check them against buckets.json, warm every shape.

        Raises ConfigError: TorchServe logs it and does not call the worker ready.
        """
        folder = Path(context.system_properties["model_dir"])
        given = context.model_yaml_config or read_yaml(folder / RECIPE)
        recipe = Recipe.from_mapping(given)
        settings = Settings.of(recipe.handler)
        keep_short()
        prepare_process(settings, recipe.workers, folder)
        started = time.perf_counter()
        model = BucketedModel(folder, settings)
        model.warm_up(
            lambda bucket, rows, seconds: logger.info(
                "warmed bucket %s with %d rows: %.2f ms", bucket_name(bucket), rows, seconds * 1e3
            ),
            keep=folder / COSTS,
        )
        self.answer_for(Served(context.model_name, model, int(given.get("jobQueueSize", Served.queue))))
        self.sent = SentIds(folder / "early.ids") if settings.early_answers else None
        self.traffic = Traffic(folder, len(self.model.buckets[0]))
        self.metrics = WorkerMetrics(context, self.model)
        self.metrics.counts.start()
        self.tracing = create_tracing(*self.metrics.labels)
        self.context = context
        read_at_once()
        write_at_once()
        self.initialized = True
        logger.info("ready after %.1f s: %s", time.perf_counter() - started, self.model.describe())

    def handle(self, data: Sequence[Sent], context: Context) -> Sequence[Union[bytes, Description]]:
        """Answer a batch. Never raises for a prediction: whatever escaped would fail the whole batch."""
        if _is_description(data, context):
            return self.describe_handle()
        waited = waits(context, len(data))
        self.metrics.took(len(data))
        started = time.perf_counter()
        answered = self._respond(self._read(data, context), started, context)
        self._count(answered, waited, context)
        responses = answered.responses
        self._send(responses, context)
        return [response.body for response in responses]

    def _respond(
        self, requests: Sequence[Request], started: float, context: Optional[Context] = None
    ) -> Answered:
        """One response per request. If something fails that nobody thought of, each is answered alone.

        started: when the batch began, by time.perf_counter. context: the batch's, to send early answers by.
        """
        early: Optional[EarlyAnswers] = None
        try:
            batch = self.preprocess(requests)
            if self.sent is not None and context is not None and len(requests) > 1:
                early = EarlyAnswers(self, batch, context, self.sent, started)
            read = time.perf_counter()
            outputs = self.inference(batch, early)
            ran = time.perf_counter()
            responses = self.postprocess(batch, outputs, early.responses if early else None)
            spent = early.spent if early else 0.0
            stages = (read - started, ran - read - spent, time.perf_counter() - ran + spent)
            return Answered(responses, batch.items, stages, early.seconds if early else {})
        except EXITS:
            raise
        except BaseException as error:
            log_failure(f"a batch of {len(requests)} failed", error)
            before = Answered([], [], (time.perf_counter() - started, 0.0, 0.0))
            if len(requests) == 1:
                failed = ModelFailed("the request failed; the server's log says why")
                return before + Answered([error_response(failed, requests[0].api)])
            left = early.responses if early else {}
            alone = (
                Answered([left[i]]) if i in left else self._respond([request], time.perf_counter())
                for i, request in enumerate(requests)
            )
            return sum(alone, before)

    def _count(self, answered: Answered, waited: Sequence[Optional[float]], context: Context) -> None:
        """Whatever fails here fails no answer. waited: seconds of each request in front of this worker, None
        where that is not known."""
        with survived("the sizes of a batch were not counted"):
            self.traffic.record(item.size for item in items_of(answered.read))
        with survived("the metrics of a batch were not counted"):
            self.metrics.answered(answered, waited)
        if self.tracing is not None:
            with survived("the traces of a batch were not made"):
                self.tracing.record(answered, waited, context)

    def _read(self, data: Sequence[Sent], context: Context) -> List[Request]:
        """The rows of the batch as requests, some with the error that they deserve."""
        requests = []
        for i, row in enumerate(data):
            said = headers(context, i)
            request = self.read(row, said.get("content-type"), url_path(context, i), said.get("accept"))
            requests.append(request)
        return requests

    def _send(self, responses: List[Response], context: Context) -> None:
        for i, response in enumerate(responses):
            with survived("the headers of an answer could not be set"):
                write_headers(context, i, response)

    def describe_handle(self) -> List[Description]:
        """What is served, what sizes were seen since the model was registered, and since when that is."""
        described = self.model.describe()
        with survived("the sizes that were seen could not be read"):
            described.update(seen=self.traffic.seen(), seen_since=self.traffic.since())
        return [described]


def _is_description(data: Sequence[Sent], context: Context) -> bool:
    """Whether the management API asks what is served: alone, with an empty row and the header `describe`.

    A prediction that has the header is answered as if it had not. Its row has a body, be it an empty one;
    only a form without fields leaves it empty, and text may.
    """
    if data != [{}] or header(context, 0, "describe") != "True":
        return False
    return (header(context, 0, "content-type") or JSON).startswith(JSON)
