"""Reads the frontend's messages as they come, and not field by field.

TorchServe's worker asks its socket for each length and each field of a message: fifty calls for a request
with ten headers, which take longer than its tokens and its JSON together. The frontend sends one message and
waits for the answer, so whatever has come is of this message, and may be read at once.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Optional

AT_ONCE = 1 << 16  # bytes


class Fields:
    """Takes the place of TorchServe's `_retrieve_buffer`: the next bytes of what a socket brings."""

    def __init__(self) -> None:
        self._socket: Optional[Any] = None
        self._came, self._taken = bytearray(), 0

    def __call__(self, socket: Any, length: int) -> bytearray:
        if socket is not self._socket:
            self._socket, self._came, self._taken = socket, bytearray(), 0
        start, end = self._taken, self._taken + length
        if end > len(self._came):
            self._read(length)
            start, end = 0, length
        self._taken = end
        return self._came[start:end]

    def _read(self, length: int) -> None:
        """Read until there are so many bytes that were not taken. The worker ends where the frontend does."""
        del self._came[: self._taken]
        while len(self._came) < length:
            more = self._socket.recv(max(AT_ONCE, length - len(self._came)))  # type: ignore[union-attr]
            if not more:
                logging.info("Frontend disconnected.")
                sys.exit(0)
            self._came += more


def read_at_once() -> None:
    """Let this worker read so from now on; between two messages, such as in `initialize`.

    A TorchServe that reads otherwise goes on as it does.
    """
    from ts.protocol import otf_message_handler  # TorchServe's own, only in workers

    if hasattr(otf_message_handler, "_retrieve_buffer"):
        otf_message_handler._retrieve_buffer = Fields()
