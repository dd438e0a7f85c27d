"""What can be registered over the management API: nothing by default; with the model API on, no URL."""

from __future__ import annotations

import signal
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from anyshape.cli.serve import MODEL_API
from tests.server.harness import ECHO, Server, make_archive
from tests.server.served import Served

ELSEWHERE = ECHO.replace('"echo"', '"code from elsewhere"') + (
    "\n\ndef function(data, context):\n    return ['code from elsewhere' for _ in data or []]\n"
)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the store: evil.mar, the same unpacked in evil/, and in a zip."""
    folder = tmp_path_factory.mktemp("elsewhere")
    make_archive(folder, "evil", ELSEWHERE, work=tmp_path_factory.mktemp("work"))
    with zipfile.ZipFile(folder / "evil.mar") as archive:
        archive.extractall(folder / "evil")
    with zipfile.ZipFile(folder / "wrapped.zip", "w") as wrapped:
        wrapped.write(folder / "evil.mar", "evil.mar")
    return folder


@pytest.fixture(scope="module")
def web(elsewhere: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server for that folder, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(elsewhere))

        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    make_archive(store, "echo", ECHO, work=tmp_path_factory.mktemp("work"))
    return store


@pytest.fixture(scope="module")
def opened(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the model API."""
    with Server(tmp_path_factory.mktemp("opened"), store) as server:
        yield server


@pytest.fixture(scope="module")
def closed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as `make serve` starts it: without the model API."""
    server = Server(tmp_path_factory.mktemp("closed"), store)
    server.torchserve.model_api = False
    with server:
        yield server


def urls(elsewhere: Path, store: Path, host: str) -> list[str]:
    """Every way to name an archive that does not lie in the store."""
    return [
        f"{elsewhere}/evil.mar",
        f"file://{elsewhere}/evil.mar",
        f"FILE://{elsewhere}/evil.mar",
        f"file:{elsewhere}/evil.mar",
        f"file://{elsewhere}/evil",
        f"file:{elsewhere}/evil",
        f"file://{store}/../{elsewhere.name}/evil.mar",
        f"file://{store}/%2e%2e/{elsewhere.name}/evil.mar",
        f"../{elsewhere.name}/evil.mar",
        f"../{elsewhere.name}/evil",
        f"{store}/../{elsewhere.name}/evil",
        f"http://{host}/evil.mar",
        f"HTTP://{host}/evil.mar",
        f"https://{host}/evil.mar",
        f"ftp://{host}/evil.mar",
        f"jar:http://{host}/wrapped.zip!/evil.mar",
        f"jar:file:{elsewhere}/wrapped.zip!/evil.mar",
        f"jar:file://{elsewhere}/wrapped.zip!/evil.mar",
        f"s3://{host}/evil.mar",
        "none",
        "",
    ]


def test_no_url_brings_an_archive_into_the_store(
    opened: Server, elsewhere: Path, web: tuple[str, list[str]]
) -> None:
    host, asked = web
    before = set(opened.store.iterdir())
    for url in urls(elsewhere, opened.store, host):
        response = opened.manage("POST", "/models", url=url, model_name="evil", initial_workers=1)
        assert response.status_code == 404, f"{url}: {opened.explain(response)}"
        assert opened.manage("GET", "/models/evil").status_code == 404
    assert asked == []
    assert set(opened.store.iterdir()) == before


def test_what_no_setting_closes(opened: Server, elsewhere: Path) -> None:
    """It is said where the key is handed out; should TorchServe close it one day, those words can go."""
    folder = {"url": f"{elsewhere}/evil"}
    file = {"url": "echo.mar", "handler": f"{elsewhere}/evil/evil_handler.py:function"}
    for query in (folder, file):
        response = opened.manage("POST", "/models", model_name="evil", initial_workers=1, **query)
        assert response.status_code == 200, opened.explain(response)
        assert "code from elsewhere" in opened.predict_text("evil", "x").text
        assert opened.manage("DELETE", "/models/evil").status_code == 200


@pytest.mark.slow
def test_the_operator_is_told_what_the_key_is_worth(store: Path, tmp_path: Path) -> None:
    served = Served(tmp_path, "echo")
    served.store.symlink_to(store)
    served.command.append("--enable-model-api")
    served.start()
    try:
        served.wait_for("Ctrl-C stops the server.")
        assert MODEL_API in served.output
    finally:
        served.stop(signal.SIGTERM)


def test_nothing_is_registered_without_the_model_api(
    closed: Server, elsewhere: Path, web: tuple[str, list[str]]
) -> None:
    host, asked = web
    handler = f"{elsewhere}/evil/evil_handler.py:function"
    for url in [*urls(elsewhere, closed.store, host), f"{elsewhere}/evil", "echo.mar"]:
        for query in ({}, {"handler": handler}):
            response = closed.manage(
                "POST", "/models", url=url, model_name="evil", initial_workers=1, **query
            )
            assert response.status_code == 405, f"{url}: {closed.explain(response)}"
    assert closed.manage("GET", "/models").json() == {"models": []}
    assert asked == []


def register_by_grpc(server: Server, url: str) -> None:
    """Raises grpc.RpcError."""
    fields = {5: b"by-grpc", 9: url.encode()}  # model_name and url in TorchServe's management.proto
    request = b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in fields.items())
    with grpc.insecure_channel(f"127.0.0.1:{server.ports[4]}") as channel:
        call = channel.unary_unary("/org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel")
        metadata = [(key.lower(), value) for key, value in server.token("management").items()]
        # The gRPC API opens a moment after the other one.
        call(request, metadata=metadata, timeout=60, wait_for_ready=True)


def test_grpc_registers_nothing_either(opened: Server, closed: Server, elsewhere: Path) -> None:
    register_by_grpc(opened, "echo.mar")  # what the call does where it may
    assert opened.manage("DELETE", "/models/by-grpc").status_code == 200
    for url in ("echo.mar", f"{elsewhere}/evil"):
        with pytest.raises(grpc.RpcError) as raised:
            register_by_grpc(closed, url)
        assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert closed.manage("GET", "/models").json() == {"models": []}


def test_no_workflow_is_found(closed: Server) -> None:
    """Workflows name models by url, and the model API's switch does not concern them."""
    workflow = closed.store / "any.war"
    with zipfile.ZipFile(workflow, "w") as archive:
        archive.writestr("WAR-INF/MANIFEST.json", "{}")
    try:
        response = closed.manage("POST", "/workflows", url="any.war", workflow_name="any")
    finally:
        workflow.unlink()
    assert response.status_code == 404, closed.explain(response)
    assert "Workflow not found in workflow store" in response.text
