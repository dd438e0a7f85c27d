"""`anyshape serve` as a process, on free ports, with an archive of `folder/store`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

import psutil

from tests.conftest import ROOT
from tests.server.harness import write_config


class Served:
    """A running `anyshape serve` and what it has printed.

    Its package is that of this checkout, whether or not it is installed: `-m` finds it in the working folder,
    and PYTHONPATH names `project` where that is another one.
    """

    def __init__(
        self, folder: Path, model: str, environment: Optional[dict[str, str]] = None, *options: str
    ) -> None:
        self.store, self.run = folder / "store", folder / "run"
        self.folder = self.project = ROOT  # the working folder, and the one with the package
        self.ports = write_config(folder / "config.properties")
        self.command = [
            *(sys.executable, "-m", "anyshape", "serve", "--config", str(folder / "config.properties")),
            *("--store", str(self.store), "--run", str(self.run), "--model", model, *options),
        ]
        self.environment = dict(os.environ if environment is None else environment)
        self._out = folder / "out.txt"

    def start(self) -> None:
        environment = self.environment
        if self.folder != self.project:
            environment = {**environment, "PYTHONPATH": str(self.project)}
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=self.folder
            )

    @property
    def output(self) -> str:
        return self._out.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 120
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def ask(self) -> str:
        """What the command that it printed answers, pasted into a shell."""
        line = re.search(r"^curl .*$", self.output, re.MULTILINE)
        assert line, self.output
        pasted = subprocess.run(["bash", "-c", line.group()], capture_output=True, text=True, timeout=60)
        return pasted.stdout

    def stop(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        return self.process.wait(60)

    def family(self, name: str) -> list[psutil.Process]:
        """Its processes whose command names this."""
        processes = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in processes if name in " ".join(process.cmdline())]

    def leftovers(self) -> list[str]:
        """Processes that still mention the run folder, and ports that still listen."""
        left = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if str(self.run) in line:
                left.append(line)
        for port in self.ports:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    left.append(f"port {port}")
        return left
