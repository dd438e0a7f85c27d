"""Requests in, responses out, whichever server brings them: TorchServe's handler and other faces share it.

answering = Answering()
answering.answer_for(Served("minilm", model))
request = answering.read({"body": "a text"}, "text/plain", "")
batch = answering.preprocess([request])
responses = answering.postprocess(batch, answering.inference(batch))
"""

from __future__ import annotations

from typing import List, Mapping, Optional, Sequence

from anyshape.errors import BadRequest, ModelFailed, Refused
from anyshape.failures import EXITS, log_failure
from anyshape.items import Answer, Input, Ran
from anyshape.running import Ended
from anyshape.tasks.base import Parameters
from handler.apis import find_api
from handler.apis.base import OWN, Api, Request, Served
from handler.batch import Batch
from handler.requests import Sent, read_request
from handler.responses import Response, answer_response, error_response, wants_raw


class Answering:
    """One model's answers. Every request of a batch gets its own answer or its own error."""

    def answer_for(self, served: Served) -> None:
        """Answer with this model from now on."""
        self.served = served
        self.model = served.model
        self.settings = served.model.settings
        self.notes = {} if self.model.index.exact else {"X-Inexact": self.model.index.why_inexact}

    def read(
        self, row: Sent, content_type: Optional[str], path: Optional[str], accept: Optional[str] = None
    ) -> Request:
        """A row as a request, or with the error that it deserves. `path` is as `find_api` takes it.

        content_type, accept: the headers; the latter counts for this project's own answers alone.
        """
        api = OWN
        try:
            api = find_api(path, row.get("body"), self.served)
            request = read_request(row, content_type, self.model.task.body, self.settings, api)
            request.raw = api is OWN and wants_raw(accept)
            return self.checked(request)
        except Refused as error:
            return Request([], api=api, refused=error)
        except EXITS:
            raise
        except BaseException as error:
            log_failure("a request could not be read", error)
            return _unreadable(api)

    def checked(self, request: Request) -> Request:
        """The same request, its parameters checked by the task. Raises the Refused that it deserves."""
        request.parameters = self.model.task.check_parameters(request.parameters)
        self.model.task.check_request(request.inputs, request.parameters)
        return request

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

    def inference(self, batch: Batch, ended: Optional[Ended] = None) -> List[Ran]:
        """Pack the items into calls and run them. ended: who is told as each call ends."""
        return self.model.run(batch.items, ended)

    def postprocess(
        self, batch: Batch, outputs: Sequence[Ran], made: Optional[Mapping[int, Response]] = None
    ) -> List[Response]:
        """One response per request, in the order of the batch. made: those that are there, by their place."""
        made = made or {}
        return [
            made.get(i) or self.response(request, batch, outputs, place)
            for i, (request, place) in enumerate(zip(batch.requests, batch.places))
        ]

    def response(self, request: Request, batch: Batch, outputs: Sequence[Ran], place: slice) -> Response:
        """What one request of the batch is answered; `place` is where its inputs are. Never raises."""
        try:
            answers = self.answers(request, batch, outputs, place)
            answer = request.api.answer(answers, request, batch.items[place])
            done = list(zip(batch.items[place], outputs[place]))
            return answer_response(answer, done, self.settings.max_response_bytes, self.notes, request.raw)
        except Refused as error:
            return error_response(error, request.api)
        except Exception as error:
            log_failure("an answer failed", error)
            failed = ModelFailed("the answer could not be made; the server's log says why")
            return error_response(failed, request.api)

    def answers(self, request: Request, batch: Batch, outputs: Sequence[Ran], place: slice) -> List[Answer]:
        """The task's answer to each input of one request. Raises the Refused of the first bad one."""
        if request.refused is not None:
            raise request.refused
        answers = []
        for i, (item, output) in enumerate(zip(batch.items[place], outputs[place])):
            if isinstance(output, Refused):
                raise _placed(output, request.api.place(i)) if request.many else output
            answers.append(self.model.answer(item, output, request.parameters))
        return answers


def _unreadable(api: Api) -> Request:
    refused = BadRequest("the request could not be read; the server's log says why")
    return Request([], api=api, refused=refused)


def _placed(error: Refused, place: str) -> Refused:
    """The same refusal, saying which of a request's inputs it is about."""
    return type(error)(f"{place}: {error}")
