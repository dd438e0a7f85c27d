"""A request into an answer: who asks, TorchServe's answer or what its error means, and one more try."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Optional, Set, Tuple
from urllib.parse import urlsplit

import orjson

from anyshape.errors import Refused
from anyshape.front.access import AccessLog
from anyshape.front.connection import Connection, Request
from anyshape.front.errors import (
    HOW,
    BadRequest,
    KeyRefused,
    ModelFailed,
    NotFound,
    NotReady,
    ServerDown,
    TimedOut,
    TooManyConnections,
    Unauthorized,
    UnsupportedMediaType,
    WorkerDied,
)
from anyshape.front.meaning import RETRIED, meaning
from anyshape.front.metrics import Counts
from anyshape.front.replies import JSON, Reply, new_id, refusal
from anyshape.front.routes import Route, find_route, words_of
from anyshape.front.settings import FrontSettings
from anyshape.front.tokens import Tokens
from anyshape.front.turns import Share, Turns
from anyshape.front.upstream import Answer, HungUp, Upstream
from anyshape.front.watch import Version, Watch

CALL_BYTES = 2500  # of a text of 512 tokens: what a client may have in bytes for each longest input of a call
FORMS = ("application/x-www-form-urlencoded", "multipart/")
# What of TorchServe's answer's headers is the connection's own, or is made anew.
OWN = {
    *(b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"x-request-id", b"date"),
    *(b"ts_stream_next", b"x-early-answer"),
}
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Front:
    """All that the connections share. `answer` never raises."""

    def __init__(self, settings: FrontSettings) -> None:
        self.settings = settings
        self.tokens = Tokens(settings.tokens)
        self.watch = Watch(settings.management, settings.key_file)
        self.log = AccessLog(settings.log)
        self.draining = False
        self.connections: Set[Connection] = set()
        self.counts = Counts()
        self.turns = Turns()
        self._upstream = Upstream(settings.inference, settings.answer_seconds)
        self._host = urlsplit(settings.inference).netloc

    # Connections.

    def connected(self, connection: Connection) -> Optional[Refused]:
        """Take a connection in. Where there are too many, one that has nothing in hand makes room: of those
        that have shown no token, then of the idle ones, the oldest. An error where all are at work."""
        self.connections.add(connection)
        if len(self.connections) <= self.settings.max_connections:
            return None
        spare = [other for other in self.connections if not other.at_work and other is not connection]
        if spare:
            least = min(spare, key=lambda other: other.claim)
            least.close()
            self.connections.discard(least)  # now: many may come before its end is seen
            return None
        return TooManyConnections(
            f"all {self.settings.max_connections} connections are taken: try again", seconds=2
        )

    def disconnected(self, connection: Connection) -> None:
        self.connections.discard(connection)

    # Requests.

    def refuse_head(self, request: Request) -> Optional[Refused]:
        """What can be refused before the body has come: most of it never comes then."""
        try:
            route = find_route(request.method, request.path)
            if not route.local:
                self._check(request)
            elif request.brings_body:
                raise BadRequest(f"{request.path} takes no body")
        except Refused as error:
            return error
        return None

    def _check(self, request: Request) -> None:
        name = self.tokens.name(request.header(b"authorization"))
        if not name:
            what = "is none that is known" if b"authorization" in request.headers else "is missing"
            raise Unauthorized(f"the token {what}: {HOW}")
        request.who = name
        kind = request.header(b"content-type").strip().lower()
        if kind.startswith(FORMS):
            raise UnsupportedMediaType(
                f"{kind.partition(';')[0]} is not taken: send the body itself, and its Content-Type"
            )
        if request.header(b"content-encoding").strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType("a compressed body is not supported: send it as it is")

    async def answer(self, request: Request) -> Reply:
        """The answer to a request, whatever happens; logged and counted."""
        given = request.header(b"x-request-id")
        request.id = given if _ID.fullmatch(given) else new_id()
        route = Route(words=words_of(request.path))
        self.counts.in_hand += 1
        try:
            if request.refused is not None:
                raise request.refused
            route = find_route(request.method, request.path)
            if route.local:
                reply = self._local(route)
            else:
                name, version = self._find(route)
                async with self.turns.turn((request.who, name), len(request.body), self._share(version)):
                    reply = await self._ask(request, route)
        except Refused as error:
            reply = refusal(error, route.words)
        except asyncio.CancelledError:
            self._note(request, route, Reply(499, [], b"", "ClientGone"))
            raise
        except Exception as error:
            reply = refusal(ModelFailed("the front itself failed: its log says how"), route.words)
            reply.said["raised"] = f"{type(error).__name__}: {error}"[:200]
        finally:
            self.counts.in_hand -= 1
        self._note(request, route, reply)
        return reply

    def _local(self, route: Route) -> Reply:
        if route.local == "live":
            return Reply(200, [JSON], b'{"status":"live"}')
        if route.model and self._unknown(route.model):
            raise NotFound(f"no model {route.model} is served here")
        missing = self.missing(route.model)
        if self.draining:
            raise NotReady("the front is shutting down", 5)
        if missing:
            raise NotReady(f"not READY: {', '.join(missing)}", 2)
        return Reply(200, [JSON], b'{"status":"ready"}')

    def missing(self, model: Optional[str]) -> list[str]:
        """The models (or the one that is named) that cannot answer now; TorchServe where it is not there."""
        if not self.watch.up:
            return ["TorchServe"]
        names = [model] if model else list(self.settings.models or self.watch.models) or ["any model"]
        found = {name: self.watch.find(name) for name in names}
        return [name for name, it in found.items() if it is None or not _ready(it.version())]

    def _unknown(self, name: str) -> bool:
        """Whether a model is neither registered nor expected."""
        return self.watch.up and name not in self.watch.models and name not in self.settings.models

    def _share(self, version: Optional[Version]) -> Optional[Share]:
        """What a version's workers may have of one client at once; None for any.

        One call for each worker and one more keeps all of them busy. Where there is but one client, nobody
        has to wait for it.
        """
        settings = self.settings
        if version is None or not version.ready or settings.share == 0:
            return None
        waiting = version.queue if settings.waiting is None else settings.waiting
        if settings.share is not None:
            return Share(settings.share, waiting=waiting)
        if not self.tokens.several:
            return None
        requests = settings.call_rows * (version.ready + 1)
        return Share(CALL_BYTES * requests, requests, waiting)

    async def _ask(self, request: Request, route: Route) -> Reply:
        """TorchServe's answer. Raises Refused for what its errors mean."""
        for again in (False, True):
            name, version = self._find(route)
            if version is not None and not version.ready:
                raise NotReady(f"no worker of {name} is up", self.watch.wait_seconds(version))
            asked, key = time.perf_counter(), self.watch.key
            try:
                answer = await self._upstream.ask(
                    self._render(request, route, name, version), version.held if version else None
                )
            except NotReady as lost:  # by the watch: the version's last worker is gone
                error: Refused = lost
            except TimeoutError:
                raise TimedOut(f"{name} did not answer in {self.settings.answer_seconds:.0f} s") from None
            except HungUp:
                error = WorkerDied("TorchServe ended while it had the request in hand", 2)
            except OSError:
                error = ServerDown("TorchServe is not there: it is being started", 5)
            else:
                if answer.status < 400:
                    return self._reply(answer, again)
                known = meaning(answer, name, version)
                if known is None:
                    return self._reply(answer, again)
                error = known
            slow = version is not None and time.perf_counter() - asked >= version.response_seconds
            if again or slow or not isinstance(error, RETRIED):
                raise error
            if isinstance(error, KeyRefused):  # see, before a second try, what there is to ask now
                await self.watch.renew(key)
            else:
                await self.watch.look()
            self.counts.retried += 1
        raise AssertionError("a second try ends in an answer or an error")

    def _find(self, route: Route) -> Tuple[str, Optional[Version]]:
        """The model's name and its version, None where it is not known. Raises NotFound, ServerDown."""
        name = route.model or self.settings.model
        if name is None:
            names = list(self.settings.models or self.watch.models)
            if len(names) != 1:
                if not self.watch.up:
                    raise ServerDown("TorchServe is not there: it is being started", 5)
                raise NotFound(
                    f"{len(names)} models are served, and this path names none: ask "
                    f"/predictions/{{model}}/{{version}}/{route.behind}, or name one with --front-model"
                )
            name = names[0]
        model = self.watch.find(name)
        return name, model.version(route.version) if model else None

    def _render(self, request: Request, route: Route, name: str, version: Optional[Version]) -> bytes:
        """The request as TorchServe gets it: a length, the headers that matter, and a key of its own."""
        number = route.version or (version.number if version else "")
        path = f"/predictions/{name}"
        if route.version or route.behind:
            if not number:
                if self._unknown(name):
                    raise NotFound(f"no model {name} is served here")
                raise NotReady(f"{name} is not there", self.watch.wait_seconds(None))
            path += f"/{number}" + (f"/{route.behind}" if route.behind else "")
        head = (
            f"{request.method} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Authorization: Bearer {self.watch.key}\r\nx-request-id: {request.id}\r\n"
            f"Content-Length: {len(request.body)}\r\n"
            f"x-request-start: t={time.time() - time.perf_counter() + request.begun:.3f}\r\n"
        ).encode("ascii")
        for header in (b"content-type", b"traceparent"):
            if header in request.headers:
                head += b"%s: %s\r\n" % (header, request.headers[header])
        return b"%s\r\n%s" % (head, request.body)

    def _reply(self, answer: Answer, again: bool) -> Reply:
        headers = [header for header in answer.headers if header[0] not in OWN]
        kind = ""
        if answer.status >= 400:
            kind = _type_of(answer.body)
        reply = Reply(answer.status, headers, answer.body, kind)
        reply.said["server_id"] = answer.header(b"x-request-id")
        if again:
            reply.said["tries"] = 2
        return reply

    def _note(self, request: Request, route: Route, reply: Reply) -> None:
        seconds = time.perf_counter() - request.begun
        if not route.local:
            self.counts.answered(reply.status, reply.type, seconds)
        elif reply.status == 200:
            return  # a probe every second would fill the log
        line = {
            "id": request.id,
            "client": request.client,
            "who": request.who,
            "method": request.method,
            "path": request.path[:256],
            "status": reply.status,
            "type": reply.type,
            "seconds": round(seconds, 4),
            "bytes_in": len(request.body),
            "bytes_out": len(reply.body),
            **reply.said,
        }
        self.log.add({key: value for key, value in line.items() if value != ""})

    def close(self) -> None:
        self._upstream.close()
        self.watch.close()
        self.log.flush()


def _ready(version: Optional[Version]) -> bool:
    return version is not None and version.ready > 0


def _type_of(body: bytes) -> str:
    """The handler's own name for an error, for the log."""
    try:
        told = orjson.loads(body)
        return str(told.get("type") or told.get("error_type") or told["error"]["code"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
