"""`anyshape front` as a process, before a TorchServe that may not be there."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

import httpx

from anyshape.server.ports import free_ports
from tests.conftest import ROOT


class FrontAlone:
    """A front with one token. server: TorchServe's inference and management ports. context: what trusts its
    certificate, where it has one. program: what Python runs in the place of the package."""

    def __init__(
        self,
        folder: Path,
        token: Optional[str],
        *options: str,
        server: Optional[tuple[int, int]] = None,
        context: Optional[ssl.SSLContext] = None,
        program: tuple[str, ...] = ("-m", "anyshape"),
        environment: Optional[dict[str, str]] = None,
    ) -> None:
        self.port, self.metrics_port, *unused = free_ports(4)
        inference, management = server or unused
        self.folder, self.environment = folder, {**os.environ, **(environment or {})}
        self.url = f"{'https' if context else 'http'}://localhost:{self.port}"
        self.http = httpx.Client(
            verify=context or True, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )
        if token:
            (folder / "tokens.txt").write_text(f"{token}\n")
        self.command = [
            *(sys.executable, *program, "front", "--port", str(self.port)),
            *("--metrics-port", str(self.metrics_port)),
            *("--inference", f"http://127.0.0.1:{inference}"),
            *("--management", f"http://127.0.0.1:{management}"),
            *("--key-file", str(folder / "key_file.json"), "--tokens", str(folder / "tokens.txt")),
            *("--log", str(folder / "front.log"), *options),
        ]

    def __enter__(self) -> FrontAlone:
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.http.get(f"{self.url}/livez")
                return self
            except httpx.TransportError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(40)

    def fails(self) -> str:
        """What it says when it cannot start."""
        done = subprocess.run(self.command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        return done.stderr
