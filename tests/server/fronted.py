"""`anyshape serve --front` as a process, and clients that speak to it over plain sockets."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any, Optional

import httpx

from anyshape.front.tokens import first
from anyshape.server.ports import free_ports
from tests.server.served import Served


class Fronted(Served):
    """A server with the front before it; `options` as on the command line."""

    def __init__(
        self,
        folder: Path,
        model: str,
        *options: str,
        environment: Optional[dict[str, str]] = None,
        run: Optional[Path] = None,
    ):
        self.port, self.metrics_port = free_ports(2)
        ports = ("--front-port", str(self.port), "--front-metrics-port", str(self.metrics_port))
        super().__init__(folder, model, environment, "--front", *ports, *options)
        if run is not None:
            self.command[self.command.index("--run") + 1] = str(run)
            self.run = run
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(timeout=90, limits=httpx.Limits(max_connections=128), trust_env=False)

    def __enter__(self) -> Fronted:
        self.start()
        self.wait_for("Ctrl-C stops the server.")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(90)

    @property
    def token(self) -> str:
        return first(self.run / "tokens.txt")

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def post(
        self, path: str, body: bytes | str, kind: str = "text/plain", **headers: Optional[str]
    ) -> httpx.Response:
        """With the token, unless `Authorization` says otherwise; underscores in headers are dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        return self.http.post(
            self.url + path, content=body, headers={**self.bearer, "Content-Type": kind, **given}
        )

    def logged(self, **fields: Any) -> list[dict[str, Any]]:
        """The lines of the front's log that have these values."""
        lines = [json.loads(line) for line in (self.run / "logs" / "front.log").read_text().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]

    def raw(self, sent: bytes, *, seconds: float = 20, context: Optional[ssl.SSLContext] = None) -> bytes:
        """All that comes back for these bytes until the front hangs up, or says nothing for `seconds`."""
        return raw(self.port, sent, seconds=seconds, context=context)


def raw(port: int, sent: bytes, *, seconds: float = 20, context: Optional[ssl.SSLContext] = None) -> bytes:
    plain = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    with context.wrap_socket(plain, server_hostname="localhost") if context else plain as connection:
        received = b""
        try:
            connection.sendall(sent)
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        return received


def answers(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Every answer in what came over one connection: status, headers, body."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        found.append((int(lines[0].split()[1]), headers, received[:length]))
        received = received[length:]
    return found
