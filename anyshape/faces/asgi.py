"""An HTTP face in the words of the wire: an ASGI application, for Ray Serve or any ASGI server.

    face = Face(load_answering(Path("model_store/minilm.mar")))      # uvicorn.run(face)

Paths, bodies, statuses and headers are those of docs/wire.md, made by the same code. The paths of other
people's clients are found at the root as well as behind the model's version.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Any, Dict, Optional, Tuple

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

from anyshape.errors import NotFound, Refused
from anyshape.faces.engine import Engine
from anyshape.faces.rows import row_of
from handler.answering import Answering
from handler.apis import find_api, offered
from handler.apis.base import OWN
from handler.apis.base import Request as Asked
from handler.requests import Sent
from handler.responses import Response, encode, error_response

MAX_BODY = 10_000_000  # bytes, as `max_request_size` of config.properties has it
_PREDICTIONS = re.compile(r"/predictions/([^/]+)(?:/([^/]+)(?:/(.*))?)?")
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")
_ALIVE = ("/ping", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready")


class Face:
    """One model behind HTTP. `max_body`: the most bytes of a request; `waiting`: the most that may wait."""

    def __init__(self, answering: Answering, max_body: int = MAX_BODY, waiting: int = 1000) -> None:
        self.answering = answering
        self.name = answering.served.name
        self.max_body = max_body
        self.engine = Engine(answering, waiting)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            response = await self.respond(HttpRequest(scope, receive))
            await response(scope, receive, send)

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The answer to one HTTP request. Raises nothing that its client caused."""
        said = request.headers.get("x-request-id") or str(uuid.uuid4())
        try:
            response = await self._respond(request)
        except Refused as error:
            response = error_response(error)
        except ClientDisconnect:
            return HttpResponse(status_code=499)
        headers = {**response.headers, "x-request-id": said}
        return HttpResponse(response.body, response.code, headers, response.content_type)

    async def _respond(self, request: HttpRequest) -> Response:
        path = _path(request)
        if path in _ALIVE and request.method in ("GET", "HEAD"):
            return Response(encode({"status": "Healthy" if self.engine.alive else "Unhealthy"}))
        if path == f"/models/{self.name}" and request.method == "GET":
            return Response(encode([self.answering.model.describe()]))
        api_path = self._api_path(path)
        try:
            row = await row_of(request, self.max_body) if request.method == "POST" else {}
        except Refused as error:
            return error_response(error, self._words(api_path))
        if request.method not in ("GET", "POST"):
            raise NotFound(f"{request.method} is not answered here: POST {path}")
        headers = request.headers
        return await self.ask(row, headers.get("content-type"), api_path, headers.get("accept"))

    async def ask(
        self, row: Sent, content_type: Optional[str], path: str, accept: Optional[str] = None
    ) -> Response:
        """The response to a row, as TorchServe's worker would have it. Raises nothing."""
        asked: Asked = self.answering.read(row, content_type, path, accept)
        return await asyncio.wrap_future(self.engine.submit(asked))

    def _api_path(self, path: str) -> str:
        """What `find_api` takes. Raises NotFound for another model, or a path that nobody has."""
        name, rest = self._split(path)
        if name is not None and name != self.name:
            raise NotFound(f"no model is called {name[:80]!r} here; {self.name} is")
        if rest is None:
            paths = ", ".join(sorted(offered(self.answering.served)))
            raise NotFound(f"nothing is at {path[:80]!r}: POST /predictions/{self.name}, or one of {paths}")
        return rest

    def _split(self, path: str) -> Tuple[Optional[str], Optional[str]]:
        """The model that a path names, if any, and what of it says whose words are spoken."""
        if found := _PREDICTIONS.fullmatch(path.rstrip("/")):
            return found[1], found[3] or ""
        if found := _INFER.fullmatch(path):
            return found[1], "infer"
        rest = path.strip("/")
        return None, rest if rest in offered(self.answering.served) else None

    def _words(self, path: str) -> Any:
        try:
            return find_api(path, None, self.answering.served)
        except Refused:
            return OWN


def _path(request: HttpRequest) -> str:
    """The path below the one that the application is mounted at."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message: Dict[str, Any] = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
