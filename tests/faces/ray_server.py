"""Ray Serve with one archive, in a process of its own: `python -m tests.faces.ray_server ARCHIVE PORT`.

Prints READY when it answers, and ends when its standard input does.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

MEMORY = 80 * 1024 * 1024  # Ray's shared memory, the least that it takes


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def ray_server(archive: Path, name: str, log: Path) -> Iterator[str]:
    """The address of Ray Serve with an archive, for as long as the block runs."""
    port = free_port()
    command = [sys.executable, "-m", "tests.faces.ray_server", str(archive), name, str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True
        )
        try:
            assert server.stdout is not None
            said = next((line for line in server.stdout if line.strip() == "READY"), None)
            assert said, log.read_text(encoding="utf-8")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.communicate(timeout=120)


def main(archive: str, name: str, port: str) -> None:
    import ray
    from ray import serve

    from anyshape.ray import app

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=MEMORY, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(app({"archive": archive, "name": name, "waiting": "100"}))
    print("READY", flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    import os

    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="240",  # of a machine with much else to do
    )
    main(*sys.argv[1:])
