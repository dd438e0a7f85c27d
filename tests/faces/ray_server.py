"""Ray Serve with one archive, in a process of its own: `python -m tests.faces.ray_server ARCHIVE NAME PORT`.

Prints READY when it answers, and ends when its standard input does.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyshape.server.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]  # tests.conftest would bring torch along
MEMORY = 80 * 1024 * 1024  # Ray's shared memory, the least that it takes


@contextmanager
def ray_server(archive: Path, name: str, log: Path) -> Iterator[str]:
    """The address of Ray Serve with an archive, for as long as the block runs."""
    (port,) = free_ports(1)
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
    from anyshape.scoring.cluster import start_ray

    start_ray(2, object_store_memory=MEMORY)
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
        RAY_SERVE_ENABLE_HA_PROXY="1",  # these two as docs/faces.md has them
        RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
        RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="240",  # of a machine with much else to do
    )
    main(*sys.argv[1:])
