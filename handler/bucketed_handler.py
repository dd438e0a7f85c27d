"""TorchServe's face: initialize, preprocess, inference, postprocess, describe.

TorchServe imports this module and takes the one class in it. What else knows TorchServe is in the package
`handler`, the engine in `anyshape`; both travel beside this file in the archive.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Union

from ts.torch_handler.base_handler import BaseHandler

from anyshape.buckets import bucket_name
from anyshape.errors import BadRequest, ModelFailed, Refused
from anyshape.failures import EXITS, log_failure, survived
from anyshape.items import Input, Ran, items_of
from anyshape.model import BucketedModel
from anyshape.packed import RECIPE
from anyshape.process import prepare_process
from anyshape.recipe import Recipe, read_yaml
from anyshape.settings import Settings
from anyshape.tasks.base import Parameters
from handler.apis import find_api
from handler.apis.base import OWN, Request, Served
from handler.batch import Batch
from handler.context import Context, Metrics, header, url_path
from handler.logs import keep_short
from handler.metrics import report
from handler.requests import Sent, read_request
from handler.responses import JSON, Response, answer_response, error_response
from handler.traffic import Traffic

logger = logging.getLogger(__name__)
Description = Dict[str, Any]  # what is served, as JSON


class BucketedHandler(BaseHandler):  # type: ignore[misc]  # TorchServe is untyped
    """Serves an archive of bucketed models. Every request of a batch gets its own answer or its own error."""

    def initialize(self, context: Context) -> None:
        """Load the bucketed models beside this file, check them against buckets.json, warm every shape.

        Raises ConfigError: TorchServe logs it and does not call the worker ready.
        """
        folder = Path(context.system_properties["model_dir"])
        given = context.model_yaml_config or read_yaml(folder / RECIPE)
        recipe = Recipe.from_mapping(given)
        self.settings = Settings.of(recipe.handler)
        keep_short()
        prepare_process(self.settings, recipe.workers, folder)
        started = time.perf_counter()
        self.model = BucketedModel(folder, self.settings)
        self.model.warm_up(
            lambda bucket, rows, seconds: logger.info(
                "warmed bucket %s with %d rows: %.2f ms", bucket_name(bucket), rows, seconds * 1e3
            )
        )
        self.served = Served(context.model_name, self.model, int(given.get("jobQueueSize", Served.queue)))
        self.notes = {} if self.model.index.exact else {"X-Inexact": self.model.index.why_inexact}
        self.traffic = Traffic(folder, len(self.model.buckets[0]))
        self.context = context
        self.initialized = True
        logger.info("ready after %.1f s: %s", time.perf_counter() - started, self.model.describe())

    def handle(self, data: Sequence[Sent], context: Context) -> Sequence[Union[bytes, Description]]:
        """Answer a batch. Never raises for a prediction: whatever escaped would fail the whole batch."""
        if _is_description(data, context):
            return self.describe_handle()
        started = time.perf_counter()
        requests = self._read(data, context)
        responses = self._respond(requests, context.metrics, started)
        self._send(responses, context)
        return [response.body for response in responses]

    def _respond(self, requests: Sequence[Request], metrics: Metrics, started: float) -> List[Response]:
        """One response per request. If something fails that nobody thought of, each is answered alone."""
        try:
            batch = self.preprocess(requests)
            read = time.perf_counter()
            outputs = self.inference(batch)
            ran = time.perf_counter()
            responses = self.postprocess(batch, outputs)
        except EXITS:
            raise
        except BaseException as error:
            log_failure(f"a batch of {len(requests)} failed", error)
            if len(requests) == 1:
                failed = ModelFailed("the request failed; the server's log says why")
                return [error_response(failed, requests[0].api)]
            each = [self._respond([request], metrics, time.perf_counter()) for request in requests]
            return [response for (response,) in each]
        with survived("the sizes of a batch were not counted"):
            self.traffic.record(item.size for item in items_of(batch.items))
        with survived("the metrics of a batch were not counted"):
            seconds = time.perf_counter() - started
            report(metrics, batch.items, outputs, responses, ran - read, seconds)
        return responses

    def _read(self, data: Sequence[Sent], context: Context) -> List[Request]:
        """The rows of the batch as requests, some with the error that they deserve."""
        requests: List[Request] = []
        for i, row in enumerate(data):
            api = OWN
            try:
                api = find_api(url_path(context, i), row.get("body"), self.served)
                content_type = header(context, i, "content-type")
                request = read_request(row, content_type, self.model.task.body, self.settings, api)
                request.parameters = self.model.task.check_parameters(request.parameters)
                self.model.task.check_request(request.inputs, request.parameters)
                requests.append(request)
            except Refused as error:
                requests.append(Request([], api=api, refused=error))
            except EXITS:
                raise
            except BaseException as error:
                log_failure("a request could not be read", error)
                failed = BadRequest("the request could not be read; the server's log says why")
                requests.append(Request([], api=api, refused=failed))
        return requests

    def preprocess(self, requests: Sequence[Request]) -> Batch:
        """All inputs of the batch as items, in one call of the task, and where each request's inputs are."""
        inputs: List[Input] = []
        parameters: List[Parameters] = []
        places: List[slice] = []
        for request in requests:
            start = len(inputs)
            inputs.extend(request.inputs)
            parameters.extend([request.parameters] * len(request.inputs))
            places.append(slice(start, len(inputs)))
        return Batch(list(requests), self.model.task.read(inputs, parameters), places)

    def inference(self, batch: Batch) -> List[Ran]:
        """Pack the items into calls and run them."""
        return self.model.run(batch.items)

    def postprocess(self, batch: Batch, outputs: Sequence[Ran]) -> List[Response]:
        """One response per request, in the order of the batch."""
        responses = []
        for request, place in zip(batch.requests, batch.places):
            try:
                responses.append(self._answer(request, batch, outputs, place))
            except Refused as error:
                responses.append(error_response(error, request.api))
            except Exception as error:
                log_failure("an answer failed", error)
                failed = ModelFailed("the answer could not be made; the server's log says why")
                responses.append(error_response(failed, request.api))
        return responses

    def _answer(self, request: Request, batch: Batch, outputs: Sequence[Ran], place: slice) -> Response:
        if request.refused is not None:
            raise request.refused
        done, answers = list(zip(batch.items[place], outputs[place])), []
        for i, (item, output) in enumerate(done):
            if isinstance(output, Refused):
                raise _placed(output, request.api.place(i)) if request.many else output
            answers.append(self.model.answer(item, output, request.parameters))
        answer = request.api.answer(answers, request, batch.items[place])
        return answer_response(answer, done, self.settings.max_response_bytes, self.notes)

    def _send(self, responses: List[Response], context: Context) -> None:
        for i, response in enumerate(responses):
            with survived("the headers of an answer could not be set"):
                if response.code != 200:
                    context.set_response_status(response.code, response.phrase, i)
                context.set_response_content_type(i, JSON)
                for key, value in response.headers.items():
                    context.set_response_header(i, key, value)

    def describe_handle(self) -> List[Description]:
        """What is served, what sizes were seen since the model was registered, and since when that is."""
        described = self.model.describe()
        with survived("the sizes that were seen could not be read"):
            described.update(seen=self.traffic.seen(), seen_since=self.traffic.since())
        return [described]


def _placed(error: Refused, place: str) -> Refused:
    """The same refusal, saying which of a request's inputs it is about."""
    return type(error)(f"{place}: {error}")


def _is_description(data: Sequence[Sent], context: Context) -> bool:
    """Whether the management API asks what is served: alone, with an empty row and the header `describe`.

    A prediction that has the header is answered as if it had not. Its row has a body, be it an empty one;
    only a form without fields leaves it empty, and text may.
    """
    if data != [{}] or header(context, 0, "describe") != "True":
        return False
    return (header(context, 0, "content-type") or JSON).startswith(JSON)
