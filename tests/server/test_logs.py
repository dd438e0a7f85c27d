"""The logs: nothing that clients sent, one line for what cannot be read, never more than so many bytes."""

from __future__ import annotations

import gzip
import socket
import time
from pathlib import Path

import pytest

from handler.logs import SECONDS
from tests.server.harness import ECHO, Server, make_archive

SECRET = "attack-at-dawn"
ROLLED_AT, KEPT = 10 * 2**20, 3  # bytes; older files beside the one that is written, see log4j2.xml

LOUD = ECHO.replace(
    "        return [",
    "        for n in range(300):\n            print(f'line {n:03d} ' + 'x' * 50000)\n        return [",
)


class Logs:
    """What the server writes from now on, by file."""

    def __init__(self, server: Server) -> None:
        self.paths = [server.torchserve.logs / name for name in ("ts_log.log", "model_log.log")]
        self.before = [path.stat().st_size for path in self.paths]

    def new(self) -> tuple[list[str], list[str]]:
        """The lines of the server's log and of the workers'."""
        time.sleep(1)  # what comes just after the answer
        texts = [
            path.read_bytes()[start:].decode() for path, start in zip(self.paths, self.before, strict=True)
        ]
        return texts[0].splitlines(), texts[1].splitlines()


def send(port: int, request: str) -> str:
    """The first line of what the server answers to these very bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        return connection.makefile("rb").readline().decode().strip()


def test_a_request_that_cannot_be_read_is_one_line_without_its_text(server: Server) -> None:
    form = f"Content-Type: application/x-www-form-urlencoded\nContent-Length: {len(SECRET) + 4}\n"
    (token,) = server.token("inference").values()
    unreadable = {
        f"GET /predictions/%zz{SECRET} HTTP/1.1\nHost: x\n\n": 403,  # without a token
        f"POST /predictions/logged HTTP/1.1\nHost: x\nAuthorization: {token}\n{form}\n%{SECRET}=%q": 500,
    }
    server.register("logged", archive="echo.mar")
    logs = Logs(server)
    for request, status in unreadable.items():
        assert send(server.ports[0], request).startswith(f"HTTP/1.1 {status}")
    assert send(server.ports[2], f"GET /metrics?{SECRET}[]=%zz HTTP/1.1\nHost: x\n\n").startswith(
        "HTTP/1.1 403"
    )
    of_server, of_workers = logs.new()
    assert len(of_server) == 3
    assert all("a request failed in io.netty" in line for line in of_server)
    assert SECRET not in "".join(of_server + of_workers)

    for _ in range(100):
        send(server.ports[0], next(iter(unreadable)))
    assert len(logs.new()[0]) < 50
    assert server.manage("DELETE", "/models/logged").status_code == 200


def test_json_that_cannot_be_read_is_one_line_without_its_text(server: Server, minilm: str) -> None:
    time.sleep(SECONDS)  # since whatever another test sent
    logs = Logs(server)
    for body in (f'{{"inputs": "{SECRET}', f'["{SECRET}" 3]', "[" * 100_000, f'"{SECRET}\x01"'):
        for _ in range(5):
            response = server.predict(minilm, content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 400, server.explain(response)
    of_server, of_workers = logs.new()
    assert of_server == []
    assert SECRET not in "".join(of_workers)
    assert sum("could not be decoded" in line for line in of_workers) == 1
    assert len(of_workers) <= 2


@pytest.mark.slow
def test_logs_roll_over_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    make_archive(tmp_path / "store", "loud", LOUD, work=tmp_path)
    with Server(tmp_path / "server", tmp_path / "store") as server:
        server.register("loud")
        for _ in range(6):  # 15 MB each
            assert server.predict_text("loud", "x").status_code == 200
        time.sleep(2)  # the last lines, and the compressing
        logs = sorted(server.torchserve.logs.glob("model_log*"))
        names = [path.name for path in logs]
        assert names == [*(f"model_log.{n + 1}.log.gz" for n in range(KEPT)), "model_log.log"]
        sizes = [len(gzip.decompress(path.read_bytes())) for path in logs[:-1]] + [logs[-1].stat().st_size]
        assert max(sizes) < ROLLED_AT + 100_000
        assert min(sizes[:-1]) >= ROLLED_AT
        assert "line 299" in server.torchserve.log_tail(1)
