"""Many connections at once: who has shown no token keeps nobody out, and descriptors do not run short."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.server.front_alone import FrontAlone
from tests.server.fronted import answers, raw

TOKEN = "a-token-of-the-test"
HEAD = b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1\r\n"
ASKED = HEAD % TOKEN.encode() + b"Connection: close\r\n\r\nx"
# `anyshape` that may open few files, as a shell's `ulimit` has it: at first, and at most.
FEW = """
import resource, sys
from anyshape.cli.main import main
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def crowd(port: int, sent: bytes, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that have said no more than this."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]
        for one in held:
            one.sendall(sent)
        yield held


def statuses(received: bytes) -> list[int]:
    return [status for status, _, _ in answers(received)]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAlone]:
    """Nothing is behind it, so that who gets through is answered with 503."""
    limits = ("--max-connections", "20", "--head-seconds", "60", "--idle-seconds", "60")
    with FrontAlone(tmp_path_factory.mktemp("crowds"), TOKEN, *limits) as front:
        yield front


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HT",
        HEAD % b"nobody's",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["silent", "a line begun", "headers begun", "health", "refused"],
)
def test_who_has_shown_no_token_makes_room(front: FrontAlone, sent: bytes) -> None:
    with crowd(front.port, sent, 60):
        for _ in range(5):
            (answer,) = answers(raw(front.port, ASKED))
            assert b"ServerDown" in answer[2]


def test_who_has_shown_one_stays_while_others_come(front: FrontAlone) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as known:
        known.sendall(ASKED.replace(b"Connection: close\r\n", b""))
        while b"ServerDown" not in known.recv(65536):
            pass
        with crowd(front.port, b"GET /livez HT", 60):
            known.sendall(ASKED)
            assert statuses(known.recv(65536)) == [503]


@pytest.mark.parametrize(("soft", "hard"), [(100, 3000), (300, 300)], ids=["at first", "at most"])
def test_files_do_not_run_short(tmp_path: Path, soft: int, hard: int) -> None:
    program = ("-c", FEW.format(soft=soft, hard=hard))
    with FrontAlone(tmp_path, TOKEN, program=program) as front, crowd(front.port, b"GET /livez HT", 500):
        time.sleep(0.5)
        for _ in range(5):
            assert statuses(raw(front.port, ASKED)) == [503]
