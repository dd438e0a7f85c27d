"""KServe's own server around an archive: versions 1 and 2 of its protocol, and OpenAI's words below /openai.

    python -m anyshape.kserve --model_dir /mnt/models --model_name minilm

Needs the package `kserve`, whose pins are older than this project's: see docs/faces.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import kserve
import orjson
from kserve.model_server import app
from starlette.requests import Request
from starlette.responses import JSONResponse

from anyshape.errors import ConfigError, UnprocessableInput
from anyshape.faces.asgi import Face
from anyshape.faces.load import load_answering
from handler.responses import Response


class Answered(Exception):
    """A refusal on its way to KServe's client."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.code)
        self.response = response


class Runtime(kserve.Model):  # type: ignore[misc]  # KServe's base is untyped
    """One archive as KServe's model. `cores`: threads of a call."""

    def __init__(self, name: str, archive: Path, cores: Optional[int] = None) -> None:
        super().__init__(name)
        self.archive, self.cores = archive, cores

    def load(self) -> bool:
        """Load and warm the archive, and answer. Raises ConfigError if it cannot be loaded."""
        self.face = Face(load_answering(self.archive, self.cores, self.name))
        app.mount("/openai", self.face)
        app.add_exception_handler(Answered, _refuse)
        self.ready = True
        return True

    async def predict(
        self,
        payload: Any,
        headers: Optional[Dict[str, str]] = None,
        response_headers: Optional[Dict[str, str]] = None,
    ) -> Dict[str, Any]:
        """Version 1: `instances`, each an input of the task; version 2: tensors of texts. Raises Answered."""
        if isinstance(payload, kserve.InferRequest):
            answer: Dict[str, Any] = await self._ask(_tensors(payload), "infer")
            return answer
        if not isinstance(payload, dict) or "instances" not in payload:
            raise Answered(_refused('send {"instances": [...]}'))
        asked = {"inputs": payload["instances"], "parameters": payload.get("parameters")}
        if not isinstance(asked["inputs"], list):
            raise Answered(_refused("instances must be a list"))
        return {"predictions": await self._ask(asked, "")}

    async def _ask(self, body: Dict[str, Any], path: str) -> Any:
        response = await self.face.ask({"body": body}, "application/json", path)
        if response.code != 200:
            raise Answered(response)
        return orjson.loads(response.body)


def _tensors(request: Any) -> Dict[str, Any]:
    """A decoded request of version 2 as the JSON that it came from, or would have come from."""
    inputs = [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
            "data": [_text(each) for each in tensor.data or []],
        }
        for tensor in request.inputs
    ]
    body: Dict[str, Any] = {"inputs": inputs, "parameters": dict(request.parameters or {})}
    return body if request.id is None else {**body, "id": str(request.id)}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _refused(says: str) -> Response:
    error = UnprocessableInput(says)
    return Response(orjson.dumps(error.body()), error.code, error.phrase)


async def _refuse(_: Request, answered: Any) -> JSONResponse:
    """The refusal with its status, worded as KServe words errors."""
    response: Response = answered.response
    said = orjson.loads(response.body)
    return JSONResponse({"error": said.get("error", said.get("message"))}, response.code, response.headers)


def find_archive(folder: Path) -> Path:
    """The one archive that KServe's storage initialiser put into the model's folder.

    Raises ConfigError where there is none, or several.
    """
    if folder.suffix == ".mar" or (folder / "buckets.json").is_file():
        return folder
    found = sorted(folder.glob("*.mar"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"{folder} must hold one archive, a .mar file; it holds {names}")
    return found[0]
