"""The front's log: one line of JSON for every answer, and never a byte of a body or a token."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Dict, List

import orjson

LARGEST = 50 * 1024 * 1024  # bytes of one file
KEPT = 5  # older files: front.log.1 is the youngest
AT_ONCE = 1000  # lines that may wait to be written


class AccessLog:
    """Lines are collected, and written once a second (see flush) or when many wait.

    A disk that is full costs lines, and no request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped = 0
        self._lines: List[bytes] = []
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, line: Dict[str, Any]) -> None:
        line["time"] = round(time.time(), 3)
        self._lines.append(orjson.dumps(line))
        if len(self._lines) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        data = b"\n".join(lines) + b"\n"
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(file).st_size
                if os.write(file, data) < len(data):  # the disk is full now: no half lines
                    os.ftruncate(file, size)
                    self.dropped += len(lines)
            finally:
                os.close(file)
            if size > LARGEST:
                self._roll()
        except OSError:
            self.dropped += len(lines)

    def _roll(self) -> None:
        for number in range(KEPT - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
