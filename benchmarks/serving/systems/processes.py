"""Servers as child processes: readiness, memory, and a stop that leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

READY_SECONDS = 400.0


class ServerFailed(RuntimeError):
    """A server did not become ready; the message ends with the last lines of its log."""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A clean environment of the server's own: temporary folder, no token keys, one thread by default."""
    own = folder / "tmp"
    own.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**inherited, "TEMP": str(own), "TMPDIR": str(own), **threads, **offline, **more}


def get_text(port: int, path: str) -> str | None:
    """The body at that path, or None if the server does not answer with 200 yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        return body if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def get_json(port: int, path: str) -> Any:
    """The JSON at that path, or None if there is none yet."""
    text = get_text(port, path)
    return json.loads(text) if text else None


class Server:
    """One running server and its children.

    `ready_seconds` is the time from the start of the process to the moment when every worker was ready.
    """

    def __init__(
        self, command: list[str], folder: Path, env: dict[str, str], is_ready: Callable[[], bool]
    ) -> None:
        self.log = folder / "server.log"
        self.started = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.ready_seconds = self.wait(is_ready)
        except BaseException:
            self.stop()
            raise

    def wait(self, is_ready: Callable[[], bool]) -> float:
        while (waited := time.perf_counter() - self.started) < READY_SECONDS:
            if is_ready():
                return waited
            if self.process.poll() is not None or "Load model failed" in self.said():
                break
            time.sleep(0.05)
        raise ServerFailed(f"not ready after {waited:.0f} s; {self.log} ends:\n{self.said()[-1500:]}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """The server's processes, children first. Raises psutil.NoSuchProcess if it has ended."""
        parent = psutil.Process(self.process.pid)
        return [*parent.children(recursive=True), parent]

    def memory_mb(self) -> float:
        """Memory of the whole tree without counting shared pages twice (PSS), in MB."""
        total = 0
        for process in self.family():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6

    def stop(self) -> None:
        try:
            family = self.family()
        except psutil.NoSuchProcess:
            family = []
        for process in family:
            try:
                process.send_signal(signal.SIGTERM)
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        self.process.wait()
