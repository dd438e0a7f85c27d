"""Keeps the worker's log short, whatever clients send."""

from __future__ import annotations

import logging
import time

SECONDS = 10.0


class Undecoded(logging.Filter):
    """TorchServe logs a traceback for every body that is not the JSON or the text that it says it is.

    This leaves one line, and at most one in SECONDS, so that nobody can make the log roll over by sending
    such bodies; their senders are told in their answers. Everything else passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = -SECONDS
        self._more = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).endswith("decoding of input data. Forwarding encoded payload"):
            return True
        now = time.monotonic()
        if now - self._last < SECONDS:
            self._more += 1
            return False
        record.msg = (
            "a body could not be decoded as the content type that it came with (%d more since the last)"
        )
        record.args, record.exc_info, record.exc_text = (self._more,), None, None
        self._last, self._more = now, 0
        return True


UNDECODED = Undecoded()


def keep_short() -> None:
    """Let the process's log have one line where TorchServe writes a traceback for a client's mistake."""
    logging.getLogger().addFilter(UNDECODED)  # once, however often it is called
