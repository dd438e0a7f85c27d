"""The worker's reading of messages, beside TorchServe's own."""

from __future__ import annotations

import importlib.util
import random
import socket
import struct
import threading

import pytest
from ts.protocol import otf_message_handler
from ts.protocol.otf_message_handler import retrieve_msg

from handler.reading import AT_ONCE, Fields, read_at_once
from tests.handler.frontend import Sent

HEADERS = {"Host": "here", "Accept": "*/*", "X-Empty": ""}
BATCHES = [
    [Sent(b"a text", headers=HEADERS, id="one")],
    [Sent(b'{"inputs": ["a", "b"]}', "application/json", id="two"), Sent(b"", id="three")],
    [Sent(bytes(3 * AT_ONCE), "application/octet-stream", id="large"), Sent(b"x", parameters=[], id="four")],
    [Sent(f"text {i}".encode(), headers=HEADERS, id=str(i)) for i in range(40)],
    [
        Sent(b'{"cut": ', "application/json"),
        Sent(b"\xff", "text/plain"),
        Sent(b"[" * 9999, "application/json"),
    ],
    [Sent(parameters=[("data", "image/png", b"\xff"), ("top_k", "text/plain", b"3"), ("empty", "", b"")])],
]


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker, for one test: both functions read from the same place."""
    for name in ("_retrieve_buffer", "_retrieve_request"):
        monkeypatch.setattr(otf_message_handler, name, getattr(otf_message_handler, name))
    read_at_once()


def written(batch: list[Sent]) -> bytes:
    return b"I" + b"".join(sent.frame().getvalue() for sent in batch) + struct.pack("!i", -1)


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_messages_are_read_as_torchserve_reads_them(pieces: int) -> None:
    """In whatever pieces they come, one after the other on one connection, and then on another one."""
    messages = [written(batch) for batch in BATCHES]
    expected = [read_by_torchserve(message) for message in messages]
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for message, wanted in zip(messages, expected):
                sender = threading.Thread(target=send, args=(theirs, message, pieces))
                sender.start()
                assert retrieve_msg(ours) == wanted
                sender.join()


def send(there: socket.socket, message: bytes, pieces: int) -> None:
    cuts = sorted(random.Random(pieces).choices(range(len(message)), k=pieces - 1))
    for start, end in zip([0, *cuts], [*cuts, len(message)]):
        there.sendall(message[start:end])


def read_by_torchserve(message: bytes) -> object:
    """By a copy of its module that no worker has changed."""
    spec = importlib.util.find_spec("ts.protocol.otf_message_handler")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=send, args=(theirs, message, 1))
        sender.start()
        found = module.retrieve_msg(ours)
        sender.join()
        return found


def test_the_worker_ends_with_the_frontend() -> None:
    assert isinstance(otf_message_handler._retrieve_buffer, Fields)
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(written(BATCHES[0])[:-3])
        theirs.close()
        with pytest.raises(SystemExit) as ended:
            retrieve_msg(ours)
    assert ended.value.code == 0
