"""`anyshape front` as a process, before a TorchServe that may not be there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

import httpx

from anyshape.server.ports import free_ports
from tests.conftest import ROOT


class FrontAlone:
    """A front with one token; `server` are TorchServe's inference and management ports."""

    def __init__(
        self, folder: Path, token: Optional[str], *options: str, server: Optional[tuple[int, int]] = None
    ) -> None:
        self.port, *unused = free_ports(3)
        inference, management = server or unused
        self.folder = folder
        if token:
            (folder / "tokens.txt").write_text(f"{token}\n")
        self.command = [
            *(sys.executable, "-m", "anyshape", "front", "--port", str(self.port)),
            *("--inference", f"http://127.0.0.1:{inference}"),
            *("--management", f"http://127.0.0.1:{management}"),
            *("--key-file", str(folder / "key_file.json"), "--tokens", str(folder / "tokens.txt")),
            *("--log", str(folder / "front.log"), *options),
        ]

    def __enter__(self) -> FrontAlone:
        self.process = subprocess.Popen(self.command, cwd=ROOT)
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/livez")
                return self
            except httpx.TransportError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(40)

    def fails(self) -> str:
        """What it says when it cannot start."""
        done = subprocess.run(self.command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        return done.stderr
