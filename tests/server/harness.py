"""A real TorchServe for the tests, and archives that cost nothing to build.

    with Server(folder, store) as server:
        server.register("echo")
        assert server.predict("echo", content=b"hello").status_code == 200

It runs the project's own settings (token authorization included) through TorchServe, as
`anyshape serve` does; only the ports are free ones and the run folder is the test's.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from anyshape.building.pack import run_archiver
from anyshape.server.ports import free_ports
from anyshape.server.torchserve import TorchServe
from tests.conftest import ROOT

WAIT_SECONDS = 180.0

RECIPE = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 8\nmaxBatchDelay: 1\n"

ECHO = """
class Echo:
    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        return ["echo" for _ in data]
"""

BROKEN = """
class Broken:
    def initialize(self, context):
        raise RuntimeError("this worker cannot start")

    def handle(self, data, context):
        return ["never" for _ in data]
"""


def write_config(path: Path) -> list[int]:
    """Write the project's config.properties with five free ports and no models; returns the ports.

    Order: inference, management, metrics, gRPC inference, gRPC management.
    """
    ports = free_ports(5)
    text = (ROOT / "config.properties").read_text(encoding="utf-8")
    for usual, free in zip((8080, 8081, 8082, 7070, 7071), ports):
        assert f"{usual}\n" in text, f"config.properties no longer names port {usual}"
        text = text.replace(f":{usual}\n", f":{free}\n").replace(f"={usual}\n", f"={free}\n")
    lines = [line for line in text.splitlines() if not line.startswith("load_models=")]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ports


def make_archive(
    store: Path, name: str, handler: str, *, work: Path, version: str = "1.0", recipe: str = RECIPE
) -> Path:
    """Pack a handler of a few lines into `store/name.mar`, with no model in it."""
    source = work / f"{name}_source"
    source.mkdir(parents=True)
    (source / f"{name}_handler.py").write_text(handler, encoding="utf-8")
    config = source / "model-config.yaml"
    config.write_text(recipe, encoding="utf-8")
    packed = run_archiver(source, name, version, handler=source / f"{name}_handler.py", recipe=config)
    return packed.replace(store / f"{name}.mar")


class Server:
    """A TorchServe under `folder` that serves archives of `store`; no model at first."""

    def __init__(self, folder: Path, store: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = write_config(folder / "config.properties")
        self.store = store
        self._output = (folder / "server.out").open("wb")
        self.torchserve = TorchServe(
            folder / "config.properties",
            store=store,
            run=folder / "run",
            models=[],
            model_api=True,
            output=self._output,
        )
        self.http = httpx.Client(timeout=WAIT_SECONDS, limits=httpx.Limits(max_connections=128))

    def __enter__(self) -> Server:
        self.torchserve.__enter__()
        try:
            self.torchserve.wait_started(seconds=WAIT_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.torchserve.stop()
        self._output.close()

    def token(self, kind: str) -> dict[str, str]:
        """The header that a call to the "inference" or the "management" API needs."""
        return {"Authorization": f"Bearer {self.torchserve.key(kind)}"}

    def predict(
        self, model: str, *, version: str = "", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """POST to the prediction API with the token; `body` is httpx's content=, json=, files="""
        url = f"{self.torchserve.inference}/predictions/{model}{'/' + version if version else ''}"
        return self.http.post(url, headers={**self.token("inference"), **(headers or {})}, **body)

    def predict_text(self, model: str, text: str, **options: Any) -> httpx.Response:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return self.predict(model, content=text.encode(), headers=headers, **options)

    def predict_all(self, model: str, requests: list[dict[str, Any]]) -> list[httpx.Response]:
        """Send all requests (arguments of `predict`) at once; the responses in the same order."""
        with ThreadPoolExecutor(len(requests)) as pool:
            futures = [pool.submit(self.predict, model, **request) for request in requests]
            return [future.result() for future in futures]

    def manage(self, method: str, path: str, **query: Any) -> httpx.Response:
        """A call to the management API, with the token; `path` starts at /models."""
        url = f"{self.torchserve.management}{path}"
        return self.http.request(method, url, headers=self.token("management"), params=query)

    def register(self, name: str, *, archive: str = "", workers: int = 1, version: str = "") -> None:
        """Register `archive` (default: NAME.mar) and wait until its workers are READY."""
        response = self.manage(
            "POST",
            "/models",
            url=archive or f"{name}.mar",
            model_name=name,
            initial_workers=workers,
        )
        assert response.status_code == 200, self.explain(response)
        self.wait_ready(name, version)

    def wait_ready(self, name: str, version: str = "") -> None:
        self.torchserve.wait_ready(name, version, seconds=WAIT_SECONDS)

    def explain(self, response: httpx.Response) -> str:
        """An unexpected response, with what the server logged."""
        return f"{response.status_code}: {response.text}\n{self.torchserve.log_tail()}"
