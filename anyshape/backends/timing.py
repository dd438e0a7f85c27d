"""Which of two ways is faster on this machine: the quickest of some calls of each."""

from __future__ import annotations

import time
from typing import Callable


def least_seconds(call: Callable[[], object], rounds: int) -> float:
    """Seconds of the quickest of so many calls: whatever else the machine does makes the others longer."""
    return min(_seconds(call) for _ in range(rounds))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
