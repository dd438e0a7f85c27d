"""What TorchServe's own errors mean, which it tells with other statuses, other words, or none."""

from __future__ import annotations

from typing import Any, Optional, Tuple, Type

import orjson

from anyshape.errors import Refused
from anyshape.front.errors import (
    BadGateway,
    BadRequest,
    InputTooLarge,
    KeyRefused,
    ModelFailed,
    NotFound,
    NotReady,
    QueueFull,
    WorkerDied,
)
from anyshape.front.upstream import Answer
from anyshape.front.watch import Version


class VersionNotFound(NotFound):
    """A version that is no longer there: the default one may be another by now."""


# After these a request is sent once more. A prediction changes nothing, so that it may run twice.
RETRIED: Tuple[Type[Refused], ...] = (WorkerDied, NotReady, KeyRefused, VersionNotFound)


def meaning(answer: Answer, name: str, version: Optional[Version]) -> Optional[Refused]:
    """The error that an answer with a status of 400 and above means.

    None where the handler gave it, in the words of the path's own clients.
    """
    told = _told(answer.body)
    kind, says = str(told.get("type", "")), str(told.get("message", ""))
    if told and not kind.endswith(("Exception", "Error")):
        return None  # the handler's
    status = answer.status
    if status in (401, 403) or "InvalidKey" in kind or "Token" in kind:
        return KeyRefused("TorchServe refused the front's own key, which is being renewed: try again")
    if kind == "ModelNotFoundException":
        return NotFound(f"no model {name} is served here")
    if kind == "ModelVersionNotFoundException":
        return VersionNotFound(f"{name} has no such version")
    if status == 404:
        return NotFound("nothing is at this path")
    if status == 413:
        return InputTooLarge("the request has more bytes than max_request_size of config.properties")
    if status == 503 and "no worker" not in says:  # what escapes from a handler is told to its whole batch
        return ModelFailed(f"the handler of {name} failed for the batch that the request was in")
    if status == 503 and version is not None and version.ready:
        return QueueFull(
            f"every worker of {name} is busy, and its queue is full (jobQueueSize of its recipe): try again"
        )
    if status == 503:
        return NotReady(f"no worker of {name} is up", 5)
    if status in (500, 507) and "orker died" in says:
        return WorkerDied(f"the worker of {name} ended while it had the request in hand: try again", 1)
    if status < 500:
        return BadRequest(f"TorchServe cannot read the request ({kind or status})")
    return BadGateway(f"TorchServe failed ({kind or status}): its log says why")


def _told(body: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
