"""Reads the frontend's messages as they come, and not field by field.

TorchServe's worker asks its socket for each length and each field of a message: fifty calls for a request
with ten headers, which take longer than its tokens and its JSON together. The frontend sends one message and
waits for the answer, so whatever has come is of this message, and may be read at once.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import sys
from functools import partial
from typing import Any, Dict, List, Optional

AT_ONCE = 1 << 16  # bytes
END = -1  # in the place of a length, behind the last of a list
_length = struct.Struct("!i").unpack_from


class Fields:
    """Takes the place of TorchServe's `_retrieve_buffer`: the next bytes of what a socket brings."""

    def __init__(self) -> None:
        self._socket: Optional[Any] = None
        self._came, self._taken = b"", 0

    def __call__(self, socket: Any, length: int) -> bytes:
        self._begin(socket)
        start, end = self._taken, self._taken + length
        if end > len(self._came):
            self._read(length)
            start, end = 0, length
        self._taken = end
        return self._came[start:end]

    def list(self, socket: Any) -> List[bytes]:
        """All fields up to the end of a list: of a request its id and headers, or its parameters.

        In one loop: with calls for each of some twenty fields it took three times as long.
        """
        self._begin(socket)
        while True:
            came, at = self._came, self._taken
            fields: List[bytes] = []
            try:
                while True:
                    (length,) = _length(came, at)
                    at += 4
                    if length == END:
                        self._taken = at
                        return fields
                    fields.append(came[at : at + length])
                    at += length
            except struct.error:  # what comes next is not here yet, nor perhaps the end of the last field
                self._read(at + 4 - self._taken)

    def _begin(self, socket: Any) -> None:
        if socket is not self._socket:
            self._socket, self._came, self._taken = socket, b"", 0

    def _read(self, length: int) -> None:
        """Read until there are so many bytes that were not taken. The worker ends where the frontend does."""
        pieces = [self._came[self._taken :]]
        missing = length - len(pieces[0])
        while missing > 0:
            pieces.append(self._socket.recv(max(AT_ONCE, missing)))  # type: ignore[union-attr]
            if not pieces[-1]:
                logging.info("Frontend disconnected.")
                sys.exit(0)
            missing -= len(pieces[-1])
        self._came, self._taken = b"".join(pieces), 0


def read_request(fields: Fields, socket: Any) -> Optional[Dict[str, Any]]:
    """Takes the place of TorchServe's `_retrieve_request`: the same dict, bodies decoded as it does."""
    named = fields.list(socket)
    if not named:
        return None
    given = fields.list(socket)
    return {
        "requestId": named[0],
        "headers": [{"name": name, "value": value} for name, value in zip(named[1::2], named[2::2])],
        "parameters": [
            _parameter(name.decode(), kind.decode(), value)
            for name, kind, value in zip(given[::3], given[1::3], given[2::3])
        ],
    }


def _parameter(name: str, kind: str, value: bytes) -> Dict[str, Any]:
    decoded: Any = value
    try:
        if kind == "application/json":
            decoded = json.loads(value.decode())
        elif kind.startswith("text"):
            decoded = value.decode()
    except Exception:  # a RecursionError among them; in TorchServe's words, which `logs` looks for
        what = "json" if kind == "application/json" else "utf-8"
        logging.warning("Failed %s decoding of input data. Forwarding encoded payload", what, exc_info=True)
    return {"name": name, "contentType": kind, "value": decoded}


def read_at_once() -> None:
    """Let this worker read so from now on; between two messages, such as in `initialize`.

    A TorchServe that reads otherwise goes on as it does.
    """
    from ts.protocol import otf_message_handler as its  # TorchServe's own, only in workers

    fields = Fields()
    if hasattr(its, "_retrieve_buffer"):
        its._retrieve_buffer = fields
    if hasattr(its, "_retrieve_request") and os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true":
        its._retrieve_request = partial(read_request, fields)
