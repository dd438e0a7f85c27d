"""TorchServe's worker without its server: bytes in and bytes out, through TorchServe's own code.

worker = Worker(folder)
worker.predict([Sent(b'{"inputs": "a"}', "application/json")])[0].status    # 200
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.protocol.otf_message_handler import _retrieve_request
from ts.service import Service

from handler.bucketed_handler import BucketedHandler

METRICS = Path(__file__).resolve().parents[2] / "anyshape" / "server" / "metrics.yaml"


@dataclass
class Sent:
    """A request as the frontend passes it on. `parameters` instead of a body: form fields, or none."""

    body: bytes = b""
    content_type: str | None = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)
    parameters: list[tuple[str, str, bytes]] | None = None
    id: str = "a request's id"

    def frame(self) -> io.BytesIO:
        kind = self.content_type or ""
        headers = {**({"Content-Type": kind} if kind else {}), **self.headers}
        fields = self.parameters
        if fields is None:
            fields = [("body", kind.split(";")[0], self.body)]
        parts = [self.id.encode(), *(p.encode() for pair in headers.items() for p in pair), None]
        parts += [p for name, kind, value in fields for p in (name.encode(), kind.encode(), value)] + [None]
        return io.BytesIO(
            b"".join(struct.pack("!i", -1 if p is None else len(p)) + (p or b"") for p in parts)
        )


@dataclass
class Received:
    """What the frontend gets for one request."""

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Worker:
    """A worker that serves the unpacked archive in `folder`."""

    def __init__(self, folder: Path, recipe: Any = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves the file open
            self.metrics = MetricsCacheYamlImpl(config_file_path=str(METRICS))
        self.metrics.initialize_cache()
        self.handler = BucketedHandler()
        self.service = Service(
            model_name="small",
            model_dir=str(folder),
            manifest={},
            entry_point=self.handler.handle,
            gpu=None,
            batch_size=8,
            metrics_cache=self.metrics,
        )
        self.service.set_cl_socket(None)
        path = folder / "model-config.yaml"
        self.service.context.model_yaml_config = recipe or yaml.safe_load(path.read_text(encoding="utf-8"))
        self.handler.initialize(self.service.context)

    def predict(self, sent: list[Sent]) -> list[Received]:
        """Send a batch. An error of the whole batch is an AssertionError."""
        received = read_message(self.predict_bytes(sent))
        assert len(received) == len(sent)
        return [answer for _, answer in received]

    def predict_bytes(self, sent: list[Sent]) -> bytes:
        """Send a batch; the message that ends it."""
        requests = []
        for request in sent:
            frame = request.frame()
            frame.recv = frame.read  # type: ignore[attr-defined]
            requests.append(_retrieve_request(frame))
        return bytes(self.service.predict(requests))


def read_message(written: bytes) -> list[tuple[str, Received]]:
    """A worker's message as the frontend reads it: the ids of requests, and what each is answered."""
    message = io.BytesIO(written)
    code, reason = _int(message), _part(message)
    assert code == 200, f"the whole batch failed: {code} {reason!r}"
    received = []
    while (length := _int(message)) != -1:
        received.append((message.read(length).decode(), _received(message)))
    assert not message.read()
    return received


def _received(message: io.BytesIO) -> Received:
    _part(message)  # the Content-Type, which is among the headers, too
    status, phrase = _int(message), _part(message).decode("ascii")
    headers = {}
    for _ in range(_int(message)):
        key = _part(message).decode("ascii")
        headers[key] = _part(message).decode("ascii")
    return Received(status, phrase, headers, _part(message))


def _int(message: io.BytesIO) -> int:
    (value,) = struct.unpack("!i", message.read(4))
    return int(value)


def _part(message: io.BytesIO) -> bytes:
    return message.read(_int(message))
