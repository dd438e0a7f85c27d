"""The front with TLS: what is asked encrypted is answered as in plain words, and nothing weaker gets in."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, TextOf
from tests.server.front_alone import FrontAlone
from tests.server.fronted import answers, raw
from tests.server.harness import Server

TLS = ROOT / "tests" / "data" / "tls"
TOKEN = "a-token-of-the-test"
HEAD = f"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
OWN = {"date", "server"}  # what may differ from answer to answer


def trusting(*certificates: Path) -> ssl.SSLContext:
    """A client's context that trusts these alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in certificates:
        context.load_verify_locations(certificate)
    return context


@pytest.fixture(scope="module")
def plain(operated: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAlone]:
    with before(operated, tmp_path_factory.mktemp("plain")) as front:
        yield front


@pytest.fixture(scope="module")
def encrypted(operated: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAlone]:
    folder = tmp_path_factory.mktemp("encrypted")
    for name in ("cert.pem", "key.pem"):
        shutil.copy(TLS / name, folder)
    files = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    context = trusting(TLS / "cert.pem", TLS / "renewed-cert.pem")
    with before(operated, folder, *files, context=context) as front:
        yield front


def before(server: Server, folder: Path, *options: str, **more: Any) -> FrontAlone:
    """A front before the server that tests share."""
    keys = ("--key-file", str(server.torchserve.key_file), "--head-seconds", "1.5")
    return FrontAlone(folder, TOKEN, *keys, *options, server=(server.ports[0], server.ports[1]), **more)


def test_an_encrypted_request_is_answered_as_a_plain_one(
    plain: FrontAlone, encrypted: FrontAlone, text_of: TextOf
) -> None:
    wait_ready(plain, encrypted)
    text = {"Content-Type": "text/plain"}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/livez", {}),
        ("GET", "/readyz/tiny", {}),
        ("POST", "/predictions/tiny", {"content": text_of(9), "headers": text}),
        ("POST", "/predictions/tiny", {"content": text_of(99), "headers": text}),
        ("POST", "/v1/embeddings", {"json": {"input": [text_of(5), text_of(8)]}}),
        ("POST", "/predictions/nosuch", {"content": b"x"}),
        ("POST", "/predictions/tiny", {"data": {"a": "form"}}),
        ("POST", "/embed", {"content": b"x", "headers": {"Authorization": "Bearer of-nobody-whom-it-knows"}}),
        ("DELETE", "/predictions/tiny", {}),
    ]
    statuses = []
    for method, path, options in asked:
        headers = {**options.pop("headers", {}), "X-Request-ID": "the-same"}
        said = [f.http.request(method, f.url + path, headers=headers, **options) for f in (plain, encrypted)]
        first, second = ({k: v for k, v in one.headers.items() if k not in OWN} for one in said)
        assert first == second
        assert said[0].content == said[1].content
        statuses.append(said[1].status_code)
        assert said[0].status_code == said[1].status_code
    assert statuses == [200, 200, 200, 413, 200, 404, 415, 401, 405]


def wait_ready(*fronts: FrontAlone) -> None:
    deadline = time.monotonic() + 30
    for front in fronts:
        while front.http.get(f"{front.url}/readyz/tiny").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_plain_words_at_the_encrypted_port_get_no_answer_and_it_serves_on(encrypted: FrontAlone) -> None:
    for sent in (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"\x16\x03\x01" + bytes(600)):
        received = raw(encrypted.port, sent)
        assert len(received) <= 7, received  # a TLS alert at most
        assert not received.startswith(b"H")
    assert encrypted.http.get(f"{encrypted.url}/livez").status_code == 200


def test_who_says_nothing_at_the_encrypted_port_is_sent_away(encrypted: FrontAlone) -> None:
    assert raw(encrypted.port, b"") == b""


def version_of(port: int, version: ssl.TLSVersion) -> str | None:
    """The version of TLS that a client and a server agree on where the client has this one alone."""
    context = trusting(TLS / "cert.pem", TLS / "renewed-cert.pem")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old ones
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")  # what it forbids otherwise is not the server's doing
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as wrapped,
    ):
        return wrapped.version()


@pytest.fixture
def anything_goes() -> Iterator[int]:
    """The port of a server that speaks every TLS there is, to see that the clients of this test do so too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.recv(1)

        thread = threading.Thread(target=take)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(20)


@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(encrypted: FrontAlone, anything_goes: int, name: str) -> None:
    version = ssl.TLSVersion[name]
    assert version_of(anything_goes, version) == {"TLSv1": "TLSv1", "TLSv1_1": "TLSv1.1"}[name]
    with pytest.raises(
        ssl.SSLError, match=r"(?i)protocol.version|unexpected.eof"
    ):  # an alert, or just an end
        version_of(encrypted.port, version)


def test_new_tls_is_spoken(encrypted: FrontAlone) -> None:
    assert version_of(encrypted.port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version_of(encrypted.port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_the_certificate_is_its_own(encrypted: FrontAlone) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{encrypted.url}/livez", trust_env=False)


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 40\r\n\r\nabc",
        HEAD + b"X-A: b\nContent-Length: 3\r\n\r\nabc",
    ],
    ids=["a length and chunks", "two lengths", "a line feed alone"],
)
def test_ambiguous_requests_are_refused_inside_of_tls_too(encrypted: FrontAlone, sent: bytes) -> None:
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    (refused,) = answers(raw(encrypted.port, sent + smuggled, context=trusting(TLS / "cert.pem")))
    assert refused[0] == 400
    assert json.loads(refused[2])["type"] == "BadRequest"


def test_a_renewed_certificate_counts_for_new_connections_and_old_ones_stay(encrypted: FrontAlone) -> None:
    """One file comes after the other, and the pair does not fit in between."""

    def opened(*trusted: str) -> httpx.Client:
        return httpx.Client(verify=trusting(*(TLS / name for name in trusted)), timeout=20, trust_env=False)

    url = f"{encrypted.url}/livez"
    with opened("cert.pem") as before, opened("cert.pem") as newcomer:
        assert before.get(url).status_code == 200
        shutil.copy(TLS / "renewed-cert.pem", encrypted.folder / "cert.pem")
        time.sleep(1.2)
        assert newcomer.get(url).status_code == 200, "half a pair took the place of a whole one"
        shutil.copy(TLS / "renewed-key.pem", encrypted.folder / "key.pem")
        deadline = time.monotonic() + 20
        while True:
            with opened("renewed-cert.pem") as after:
                try:
                    assert after.get(url).status_code == 200
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        assert before.get(url).status_code == 200
