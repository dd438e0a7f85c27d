"""The front as a child process, with the settings of the TorchServe that it stands before."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Optional

from anyshape.front.settings import FrontSettings
from anyshape.front.tokens import first
from anyshape.server.checks import ServeError
from anyshape.server.torchserve import TorchServe

START_SECONDS = 20.0


class FrontProcess:
    """Started, watched, drained. `options` are the settings that differ from FrontSettings' defaults."""

    def __init__(self, server: TorchServe, options: dict[str, Any]) -> None:
        self.options: dict[str, Any] = {
            "tokens": server.run / "tokens.txt",
            "max_body": int(server.properties.get("max_request_size", FrontSettings.max_body)),
            **options,
        }
        self.server = server
        self.log = server.logs / "front.log"
        self.ready = list(server.archives)  # also where others are loaded when it is started again
        self.process: Optional[subprocess.Popen[bytes]] = None

    @property
    def encrypted(self) -> bool:
        return "tls_cert" in self.options

    @property
    def url(self) -> str:
        host = self.options.get("host", FrontSettings.host)
        scheme = "https" if self.encrypted else "http"
        return f"{scheme}://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}"

    @property
    def port(self) -> int:
        return int(self.options.get("port", FrontSettings.port))

    @property
    def tokens(self) -> Path:
        return Path(self.options["tokens"])

    def token(self) -> str:
        """A token of the file; "" where it holds hashes alone."""
        return first(self.tokens)

    def start(self) -> None:
        """Start it and wait until it listens. Raises ServeError."""
        command = [sys.executable, "-m", "anyshape", "front", "--with-parent"]
        command += ["--inference", self.server.inference, "--management", self.server.management]
        command += ["--key-file", str(self.server.key_file), "--log", str(self.log)]
        for name in self.ready:
            command += ["--ready", name]
        for setting, value in self.options.items():
            command += [f"--{setting.replace('_', '-')}", str(value)]
        # In a session of its own it does not see Ctrl-C: stop() ends it in order.
        self.process = subprocess.Popen(command, start_new_session=True)
        self._wait("/livez", f"did not listen at {self.url}")

    def wait_ready(self) -> None:
        """Wait until it has seen what is READY, and so lets requests through. Raises ServeError."""
        self._wait("/readyz", f"did not see that {', '.join(self.ready)} is READY")

    def _wait(self, path: str, otherwise: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._good(path):
            if not self.alive:
                raise ServeError("the front does not start: see the error above")
            if time.monotonic() > deadline:
                raise ServeError(f"the front {otherwise} within {START_SECONDS:.0f} seconds")
            time.sleep(0.05)

    def _good(self, path: str) -> bool:
        context = ssl._create_unverified_context() if self.encrypted else None  # itself, on this machine
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Let it answer what is in hand, and end it."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(float(self.options.get("drain_seconds", FrontSettings.drain_seconds)) + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
