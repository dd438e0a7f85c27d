"""What TorchServe has written to its logs since this server started."""

from __future__ import annotations

import re
from pathlib import Path

# The last line of a traceback, in model_log.log: `… W-9000-minilm_1.0-stdout - package.ConfigError: why`.
RAISED = re.compile(r" - (?:\w+\.)*(\w*(?:Error|Exception|Exit|Interrupt)(?:: .*)?)$")
OF_TORCHSERVE = re.compile(r"RuntimeError: \d{3} - ")  # what its own code raises after that


class ServerLogs:
    """ts_log.log and model_log.log in `folder`, from where they end now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starts = {path: path.stat().st_size for path in folder.glob("*.log")}

    def tail(self, lines: int = 30) -> str:
        """The last lines of the server's and the workers' logs, for an error message."""
        parts = []
        for name in ("ts_log.log", "model_log.log"):
            tail = self._text(name).splitlines()[-lines:]
            if tail:
                parts.append("\n".join([f"--- the end of {self.folder / name}", *tail]))
        return "\n".join(parts) or f"The logs in {self.folder} say nothing."

    def worker_died(self, model: str, version: str = "") -> bool:
        """Whether a worker of the model, or of that version, failed to load it. (describe says UNLOADING.)"""
        text = self._text("model_log.log") + self._text("ts_log.log")
        lines = [line for line in text.splitlines() if f"-{model}_{version}" in line]  # W-9000-minilm_1.0
        signs = ("Backend worker process died", "Auto recovery failed")
        return any(sign in line for line in lines for sign in signs)

    def why_worker_died(self, model: str, version: str = "") -> str:
        """The last error that a worker of the model raised, `Error: message`; "" where none is logged."""
        lines = self._text("model_log.log").splitlines()
        found = [RAISED.search(line) for line in lines if f"-{model}_{version}" in line]
        raised = [match.group(1) for match in found if match]
        own = [error for error in raised if not OF_TORCHSERVE.match(error)]
        return (own or raised or [""])[-1]

    def why_not_loaded(self, archive: Path) -> str:
        """Why TorchServe could not load an archive: what it logs in the line after the one that says so."""
        lines = self._text("ts_log.log").splitlines()
        failed = f"Failed to load model: {archive.name}"
        reasons = [after for line, after in zip(lines, lines[1:]) if line.endswith(failed)]
        return reasons[-1] if reasons else f"its log does not say why.\n{self.tail()}"

    def _text(self, name: str) -> str:
        path = self.folder / name
        if not path.is_file():
            return ""
        data = path.read_bytes()
        start = self._starts.get(path, 0)
        return data[start if start <= len(data) else 0 :].decode(errors="replace")  # shorter: rolled over
