"""TorchServe's face: initialize, preprocess, inference, postprocess, describe.

TorchServe imports this module and takes the one class in it. Everything else is in the package `handler`,
which travels beside it in the archive.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from ts.torch_handler.base_handler import BaseHandler

from anyshape import archive
from anyshape.buckets import bucket_name
from anyshape.settings import HandlerConfig
from anyshape.errors import BadRequest, ModelFailed, RequestError
from anyshape.failures import EXITS, log_failure, survived
from handler.metrics import report
from anyshape.model import BucketedModel
from anyshape.padding import Item
from anyshape.process import prepare_process
from handler.requests import Request, read_request
from handler.responses import JSON, Response, answer_response, error_response
from handler.traffic import Traffic

logger = logging.getLogger(__name__)

ReadRequest = Union[Request, RequestError]  # read, or the error that it deserves


class BucketedHandler(BaseHandler):  # type: ignore[misc]  # TorchServe is untyped
    """Serves an archive of bucketed models. Every request of a batch gets its own answer or its own error."""

    def initialize(self, context: Any) -> None:
        """Load the bucketed models beside this file, check them against buckets.json, warm every shape.

        Raises ConfigError: TorchServe logs it and does not call the worker ready.
        """
        folder = Path(context.system_properties["model_dir"])
        recipe = context.model_yaml_config or archive.read_recipe(folder / archive.RECIPE)
        config = HandlerConfig.from_mapping(recipe.get("handler"))
        prepare_process(config, int(recipe.get("maxWorkers") or recipe.get("minWorkers") or 1))
        started = time.perf_counter()
        self.model = BucketedModel(folder, config)
        self.model.warm_up(
            lambda bucket, rows, seconds: logger.info(
                "warmed bucket %s with %d rows: %.2f ms", bucket_name(bucket), rows, seconds * 1e3
            )
        )
        self.traffic = Traffic(folder, len(self.model.buckets[0]))
        self.context = context
        self.initialized = True
        logger.info("ready after %.1f s: %s", time.perf_counter() - started, self.model.describe())

    def handle(self, data: List[Dict[str, Any]], context: Any) -> List[Any]:
        """Answer a batch. Never raises for a prediction: whatever escaped would fail the whole batch."""
        if _is_description(data, context):
            return self.describe_handle()
        started = time.perf_counter()
        requests = self.preprocess(data, context)
        responses = self._respond(requests, context.metrics, started)
        self._send(responses, context)
        return [response.body for response in responses]

    def _respond(self, requests: List[ReadRequest], metrics: Any, started: float) -> List[Response]:
        """One response per request. If something fails that nobody thought of, each is answered alone."""
        try:
            items, places = self._items(requests)
            read = time.perf_counter()
            outputs = self.inference(items)
            ran = time.perf_counter()
            responses = self.postprocess(requests, items, outputs, places)
        except EXITS:
            raise
        except BaseException as error:
            log_failure(f"a batch of {len(requests)} failed", error)
            if len(requests) == 1:
                return [error_response(ModelFailed("the request failed; the server's log says why"))]
            each = [self._respond([request], metrics, time.perf_counter()) for request in requests]
            return [response for (response,) in each]
        with survived("the sizes of a batch were not counted"):
            self.traffic.record(item.size for item in items if isinstance(item, Item))
        with survived("the metrics of a batch were not counted"):
            seconds = time.perf_counter() - started
            report(metrics, self.model, items, outputs, responses, ran - read, seconds)
        return responses

    def preprocess(self, data: List[Dict[str, Any]], context: Any) -> List[ReadRequest]:
        """Read the rows of the batch into requests, or into the error that each one deserves."""
        task, config = self.model.task, self.model.config
        most = config.max_request_characters or 2 * config.max_characters
        requests: List[ReadRequest] = []
        for i, row in enumerate(data):
            try:
                content_type = _header(context, i, "content-type")
                request = read_request(row, content_type, task.body, config.max_items, most)
                request.parameters = task.check_parameters(request.parameters)
                requests.append(request)
            except RequestError as error:
                requests.append(error)
            except EXITS:
                raise
            except BaseException as error:
                log_failure("a request could not be read", error)
                requests.append(BadRequest("the request could not be read; the server's log says why"))
        return requests

    def _items(self, requests: List[ReadRequest]) -> Any:
        """All inputs of the batch as items, in one call of the task, and where each request's items are."""
        inputs: List[Any] = []
        parameters: List[Dict[str, Any]] = []
        places: List[slice] = []
        for request in requests:
            start = len(inputs)
            if isinstance(request, Request):
                inputs.extend(request.inputs)
                parameters.extend([request.parameters] * len(request.inputs))
            places.append(slice(start, len(inputs)))
        return self.model.task.read(inputs, parameters), places

    def inference(self, items: Any) -> Any:
        """Pack the items into calls and run them."""
        return self.model.run(items)

    def postprocess(self, requests: Any, items: Any, outputs: Any, places: Any) -> List[Response]:
        """One response per request, in the order of the batch."""
        responses = []
        for request, place in zip(requests, places):
            try:
                responses.append(self._answer(request, items[place], outputs[place]))
            except RequestError as error:
                responses.append(error_response(error))
            except Exception as error:
                log_failure("an answer failed", error)
                failed = ModelFailed("the answer could not be made; the server's log says why")
                responses.append(error_response(failed))
        return responses

    def _answer(self, request: Any, items: Any, outputs: Any) -> Response:
        if isinstance(request, RequestError):
            raise request
        answers = []
        for i, (item, output) in enumerate(zip(items, outputs)):
            if isinstance(output, RequestError):
                raise type(output)(f"inputs[{i}]: {output}") if request.many else output
            answers.append(self.model.task.answer(output.row, item, request.parameters))
        return answer_response(self.model, answers if request.many else answers[0], items, outputs)

    def _send(self, responses: List[Response], context: Any) -> None:
        for i, response in enumerate(responses):
            with survived("the headers of an answer could not be set"):
                if response.code != 200:
                    context.set_response_status(response.code, response.phrase, i)
                context.set_response_content_type(i, JSON)
                for key, value in response.headers.items():
                    context.set_response_header(i, key, value)

    def describe_handle(self) -> List[Any]:
        """What is served, what sizes were seen since the model was registered, and since when that is."""
        described = self.model.describe()
        with survived("the sizes that were seen could not be read"):
            described.update(seen=self.traffic.seen(), seen_since=self.traffic.since())
        return [described]


def _header(context: Any, i: int, name: str) -> Optional[str]:
    """A request's header. The frontend passes names on as the client wrote them: many write lower case."""
    for key, value in context.get_all_request_header(i).items():
        if key.lower() == name and isinstance(value, str):
            return value
    return None


def _is_description(data: List[Dict[str, Any]], context: Any) -> bool:
    """Whether the management API asks what is served: alone, with an empty row and the header `describe`.

    A prediction that has the header is answered as if it had not. Its row has a body, be it an empty one;
    only a form without fields leaves it empty, and text may.
    """
    if data != [{}] or _header(context, 0, "describe") != "True":
        return False
    return (_header(context, 0, "content-type") or JSON).startswith(JSON)
