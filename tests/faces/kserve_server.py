"""KServe's own server with one archive, in the environment that KSERVE names (`make test-kserve`)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from anyshape.server.ports import free_ports
from tests.conftest import ROOT

WAIT_SECONDS = 240


@contextmanager
def kserve_server(archive: Path, name: str, log: Path) -> Iterator[str]:
    """The address of KServe's server with an archive, alone in its folder, for as long as the block runs."""
    (port,) = free_ports(1)
    python = Path(os.environ["KSERVE"]).absolute() / "bin" / "python"
    command = [str(python), "-m", "anyshape.kserve", "--model_dir", str(archive.parent)]
    command += ["--model_name", name, "--http_port", str(port), "--cores", "1"]
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + WAIT_SECONDS
            while not _ready(f"{address}/v2/models/{name}/ready"):
                assert server.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.5)
            yield address
        finally:
            server.terminate()
            server.wait(60)


def _ready(url: str) -> bool:
    try:
        return httpx.get(url).json().get("ready") is True
    except (httpx.HTTPError, ValueError, AttributeError):
        return False
