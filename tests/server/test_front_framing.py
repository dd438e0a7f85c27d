"""Requests that two readers could take differently get one answer, a refusal, and the connection's end."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyshape.server.ports import free_ports
from tests.server.front_alone import FrontAlone
from tests.server.fronted import answers, raw

P = b"POST /predictions/m HTTP/1.1\r\n"
H = b"Host: x\r\nAuthorization: Bearer a-token-of-the-test\r\n"
SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
TE = b"Transfer-Encoding: chunked\r\n"

AMBIGUOUS = {
    "a length and chunks": P + H + b"Content-Length: 3\r\n" + TE + b"\r\n" + CHUNKS,
    "chunks and a length": P + H + TE + b"Content-Length: 3\r\n\r\n" + CHUNKS,
    "two lengths": P + H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two different lengths": P + H + b"Content-Length: 3\r\nContent-Length: 40\r\n\r\nabc",
    "a list of lengths": P + H + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": P + H + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": P + H + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": P + H + b"Content-Length: 0x3\r\n\r\nabc",
    "a huge length": P + H + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "an empty length": P + H + b"Content-Length: \r\n\r\nabc",
    "a space before the colon": P + H + b"Content-Length : 3\r\n\r\nabc",
    "a folded header": P + H + b"X-A: b\r\n Content-Length: 3\r\n\r\nabc",
    "a line feed alone": P + H + b"X-A: b\nContent-Length: 3\r\n\r\nabc",
    "line feeds alone": (P + H).replace(b"\r\n", b"\n") + b"\n",
    "a carriage return alone": P + H + b"X-A: b\rContent-Length: 3\r\n\r\nabc",
    "a null": P + H + b"X-A: b\x00c\r\n\r\n",
    "another coding": P + H + b"Transfer-Encoding: identity\r\n\r\nabc",
    "a coding before chunked": P + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "a coding that looks like chunked": P + H + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "a coding with a tab inside": P + H + b"Transfer-Encoding: chun\tked\r\n\r\n" + CHUNKS,
    "chunked twice": P + H + TE + TE + b"\r\n" + CHUNKS,
    "chunked, chunked": P + H + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS,
    "chunks in HTTP/1.0": b"POST /predictions/m HTTP/1.0\r\n" + H + TE + b"\r\n" + CHUNKS,
    "a chunk size with 0x": P + H + TE + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a space": P + H + TE + b"\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": P + H + TE + b"\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size that overflows": P + H + TE + b"\r\nfffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": P + H + TE + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunks with line feeds": P + H + TE + b"\r\n3\nabc\n0\n\n",
    "a line feed in a chunk's extension": P + H + TE + b"\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a trailer": P + H + TE + b"\r\n3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
    "two hosts": P + b"Host: y\r\n" + H + b"\r\n",
    "no host": P + b"Authorization: Bearer a-token-of-the-test\r\n\r\n",
    "two tokens": P + H + b"Authorization: Bearer another\r\n\r\n",
    "two content types": P + H + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    "an absolute URL": b"POST http://x/predictions/m HTTP/1.1\r\n" + H + b"\r\n",
    "a space in the URL": b"POST /predictions/m x HTTP/1.1\r\n" + H + b"\r\n",
    "a URL that is no ASCII": b"POST /predictions/\xff HTTP/1.1\r\n" + H + b"\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "an upgrade without a connection": b"GET /livez HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n",
    "a header without a name": P + H + b": x\r\n\r\n",
    "a header without a colon": P + H + b"nothing\r\n\r\n",
    "a folded first header": P + b" Host: x\r\n\r\n",
    "no method that is known": b"FETCH /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "a star": b"DELETE * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body where none belongs": b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "chunks where none belong": b"GET /livez HTTP/1.1\r\nHost: x\r\n" + TE + b"\r\n" + CHUNKS,
}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAlone]:
    with FrontAlone(tmp_path_factory.mktemp("front"), "a-token-of-the-test") as front:
        yield front


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_requests_are_refused_and_what_follows_is_not_read(front: FrontAlone, name: str) -> None:
    received = answers(raw(front.port, AMBIGUOUS[name] + SMUGGLED))
    (refused,) = received
    assert refused[0] == 400, refused
    assert refused[1]["connection"] == "close"
    assert refused[1]["content-type"] == "application/json"
    told = json.loads(refused[2])
    assert (told["code"], told["type"]) == (400, "BadRequest")


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_they_are_refused_however_they_are_cut(front: FrontAlone, name: str) -> None:
    """Byte by byte, as a reader sees it that decides too early."""
    import socket

    with socket.create_connection(("127.0.0.1", front.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        try:
            for i in range(len(AMBIGUOUS[name])):
                connection.sendall(AMBIGUOUS[name][i : i + 1])
            connection.sendall(SMUGGLED)
            while piece := connection.recv(65536):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert [status for status, _, _ in answers(received)] == [400]


@pytest.mark.parametrize(
    "chunk", [b"1;" + b"a" * 15000 + b"\r\nx\r\n", b"0" * 15000 + b"1\r\nx\r\n"], ids=["extensions", "zeros"]
)
def test_chunks_bring_little_beside_the_body(front: FrontAlone, chunk: bytes) -> None:
    """One of them is borne, as by other servers."""
    head = P + H + TE + b"\r\n"
    (answered,) = answers(raw(front.port, head + chunk + b"0\r\n\r\n", seconds=3))
    assert answered[0] == 503, "nothing is behind this front: it was read"
    (refused,) = answers(raw(front.port, head + chunk * 300))
    assert refused[0] == 400
    assert "extensions" in json.loads(refused[2])["message"]


def test_a_body_of_small_chunks_is_read(front: FrontAlone) -> None:
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in b"abcdefgh" * 40_000)
    (answered,) = answers(raw(front.port, P + H + TE + b"\r\n" + pieces + b"0\r\n\r\n", seconds=3))
    assert answered[0] == 503


def test_the_same_requests_without_their_fault_are_read(front: FrontAlone) -> None:
    """Nothing listens behind this front, so that what is read is answered with 503."""
    plain = P + H + b"Content-Length: 3\r\n\r\nabc"
    chunks = P + H + TE + b"\r\n" + CHUNKS
    received = answers(raw(front.port, plain + chunks + SMUGGLED, seconds=3))
    assert [status for status, _, _ in received] == [503, 503, 200]
    assert json.loads(received[0][2])["type"] == "ServerDown"
    assert received[0][1]["retry-after"]


def test_a_request_that_was_under_way_when_it_was_told_to_stop_is_answered(tmp_path: Path) -> None:
    with FrontAlone(tmp_path, "a-token-of-the-test") as front:
        assert front.http.get(f"{front.url}/livez").headers.get("Connection") != "close"
        front.process.send_signal(signal.SIGTERM)
        while not refuses(front.port):
            time.sleep(0.01)
        last = front.http.get(f"{front.url}/livez")  # on the connection that was idle
        assert (last.status_code, last.headers["Connection"]) == (200, "close")
        assert front.process.wait(30) == 0


def refuses(port: int) -> bool:
    """Whether nobody takes connections there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_front_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "tokens.txt").write_text("short\n")
    front = FrontAlone(tmp_path, None, "--port", str(port))
    assert front.fails().startswith(f"error: {tmp_path}/tokens.txt, line 1: a token has at least 16")
    (tmp_path / "tokens.txt").unlink()
    alone = FrontAlone(tmp_path, None, "--tls-cert", str(tmp_path / "nosuch.pem"))
    assert "--tls-cert and --tls-key" in alone.fails()
