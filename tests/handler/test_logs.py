from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# The worker's own logging (ts/model_service_worker.py) and TorchServe's own reader of requests.
WORKER = """
import logging, socket, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
from ts.protocol.otf_message_handler import retrieve_msg
from handler import logs
if sys.argv[1] == "short":
    logs.keep_short()
    logs.keep_short()
here, there = socket.socketpair()
for _ in range(3):
    there.sendall(sys.stdin.buffer.read(int(sys.argv[2])))
    _, (request,) = retrieve_msg(here)
    assert isinstance(request["parameters"][0]["value"], bytearray)
logs.SECONDS = 0
there.sendall(sys.stdin.buffer.read())
retrieve_msg(here)
try:
    raise ValueError("a failure of our own")
except ValueError:
    logging.exception("this stays whole")
"""


def request(content_type: bytes, body: bytes) -> bytes:
    """A request of one row on TorchServe's wire; see _retrieve_request in ts/protocol."""

    def sized(data: bytes) -> bytes:
        return struct.pack("!i", len(data)) + data

    end = struct.pack("!i", -1)
    return b"I" + sized(b"id") + end + sized(b"body") + sized(content_type) + sized(body) + end + end


def log_of(how: str, message: bytes) -> List[str]:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, how, str(len(message))],
        input=message * 4,
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    return [line for line in done.stdout.decode().splitlines() if not line.startswith("Backend received")]


@pytest.mark.slow
def test_a_body_that_cannot_be_decoded_is_one_line_and_not_one_per_request() -> None:
    for message in (
        request(b"application/json", b'{"inputs": "se\x01cret'),
        request(b"text/plain", b"secret \xff"),
    ):
        before = log_of("as it is", message)
        assert sum(line.startswith("Traceback") for line in before) == 5
        lines = log_of("short", message)
        assert lines[:3] == [
            "a body could not be decoded as the content type that it came with (0 more since the last)",
            "a body could not be decoded as the content type that it came with (2 more since the last)",
            "this stays whole",
        ]
        assert lines[3].startswith("Traceback")
        assert lines[-1] == "ValueError: a failure of our own"
        assert "secret" not in "".join(lines)
