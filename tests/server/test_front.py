"""The front before a real TorchServe: who gets through, what every error says, what slow clients meet."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from anyshape.server.scrape import Scrape
from tests.server.fronted import Fronted, answers
from tests.server.probe import make_probe, right

LIMITS = ("--front-head-seconds", "1.5", "--front-body-seconds", "2", "--front-max-connections", "40")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("front")
    make_probe(folder, workers=2, queue=4)
    with Fronted(folder, "probe", *LIMITS) as front:
        yield front


def error_of(response: httpx.Response) -> tuple[int, str]:
    """(status, type) of an error that is told as the project tells errors."""
    told = response.json()
    assert set(told) == {"code", "type", "message"}
    assert told["code"] == response.status_code
    assert told["message"]
    return told["code"], told["type"]


def test_a_request_gets_through_whole_and_its_answer_back(front: Fronted) -> None:
    for body in (b"", b"a text", bytes(range(32, 127)) * 9000):
        response = front.post("/predictions/probe", body)
        assert response.status_code == 200, response.text
        assert right(body, response.content)
        assert response.headers["content-type"] == "application/json"
    response = front.post("/predictions/probe/1.0", b"x")
    assert right(b"x", response.content)
    chunked = front.http.post(
        f"{front.url}/predictions/probe",
        content=iter([b"one ", b"two"]),
        headers={**front.bearer, "Content-Type": "text/plain"},
    )
    assert right(b"one two", chunked.content)


def test_what_a_client_sends_beside_the_body_stays_outside(front: Fronted) -> None:
    before = time.time()
    seen = front.post("/predictions/probe", b"x", describe="True", X_Other="1", X_Request_Start="t=1").json()
    assert before - 0.01 <= float(seen["x-request-start"].removeprefix("t=")) <= time.time() + 0.01
    assert seen["describe"] is None
    assert seen["x-other"] is None
    assert seen["content-type"] == "text/plain"


def test_paths_of_other_clients_are_the_models(front: Fronted) -> None:
    for path in ("/v1/embeddings", "/embed", "/rerank", "/predict", "/similarity", "/embeddings"):
        response = front.post(path, b'{"input": "x"}', "application/json")
        assert response.json()["url_path"] == path[1:]
    assert front.http.get(f"{front.url}/info", headers=front.bearer).json()["url_path"] == "info"
    assert front.post("/v2/models/probe/infer", b"{}", "application/json").json()["url_path"] == "infer"
    response = front.post("/v2/models/probe/versions/1.0/infer", b"{}", "application/json")
    assert response.json()["url_path"] == "infer"


def test_health_needs_no_token_and_speaks_of_the_model(front: Fronted) -> None:
    for path in (
        "/livez",
        "/readyz",
        "/readyz/probe",
        "/health",
        "/v2/health/ready",
        "/v2/models/probe/ready",
    ):
        assert httpx.get(front.url + path).status_code == 200, path
    missing = httpx.get(f"{front.url}/readyz/nosuch")
    assert error_of(missing) == (404, "NotFound")
    assert "nosuch" in missing.json()["message"]
    assert httpx.head(f"{front.url}/livez").content == b""


@pytest.mark.parametrize("given", ["", "Bearer wrong-token-of-some-length", "Bearer", "Basic eDp5"])
def test_without_a_token_it_is_401_in_the_words_of_the_path(front: Fronted, given: str) -> None:
    headers = {b"Authorization": given.encode("latin-1")} if given else {}
    response = httpx.post(f"{front.url}/predictions/probe", content=b"x", headers=headers)
    assert error_of(response) == (401, "Unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    openai = httpx.post(f"{front.url}/v1/embeddings", content=b"x", headers=headers)
    assert openai.status_code == 401
    assert openai.json()["error"]["code"] == "invalid_api_key"
    tei = httpx.post(f"{front.url}/embed", content=b"x", headers=headers)
    assert set(tei.json()) == {"error", "error_type"}


def test_torchserves_own_keys_open_nothing(front: Fronted) -> None:
    for entry in json.loads((front.run / "key_file.json").read_text()).values():
        response = front.post("/predictions/probe", b"x", Authorization=f"Bearer {entry['key']}")
        assert response.status_code == 401


def test_what_is_nearly_a_token_opens_nothing(front: Fronted) -> None:
    token = front.token
    for given in (
        *(f"Bearer {token}\xa0", f"Bearer \x85{token}", f"Bearer {token[:-1]}", f"Bearer {token}x"),
        *(f"Bearer {token.swapcase()}", f'Bearer "{token}"', f"Bearer {token}, Bearer x", f"Basic {token}"),
        *(f"Token {token}", "Bearer " + "a" * 15000, "Bearer \xff\xfe\xfd" * 9),
    ):
        headers = {b"Authorization": given.encode("latin-1")}
        response = httpx.post(f"{front.url}/predictions/probe", content=b"x", headers=headers)
        assert response.status_code == 401, given
    asked = httpx.post(f"{front.url}/predictions/probe?token={token}&access_token={token}", content=b"x")
    assert asked.status_code == 401
    headers = {"X-API-Key": token, "Proxy-Authorization": f"Bearer {token}", "Cookie": f"token={token}"}
    asked = httpx.post(f"{front.url}/predictions/probe", content=b"x", headers=headers)
    assert asked.status_code == 401


def test_tokens_overlap_and_end_without_a_restart(front: Fronted) -> None:
    path = front.run / "tokens.txt"
    before = path.read_text()
    try:
        path.write_text(f"{before}another-token-for-a-while second client\n")
        deadline = time.monotonic() + 10
        while front.post("/embed", b"x", Authorization="Bearer another-token-for-a-while").status_code == 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert front.post("/embed", b"x").status_code == 200
        path.write_text(before)
        while front.post("/embed", b"x", Authorization="Bearer another-token-for-a-while").status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert front.post("/embed", b"x").status_code == 200
        bearer = front.bearer["Authorization"]
        path.write_text("short\n")  # no token at all: those that were valid stay
        time.sleep(1.5)
        assert front.post("/embed", b"x", Authorization=bearer).status_code == 200
    finally:
        path.write_text(before)
    assert front.logged(who="second client")


def test_errors_of_the_frontend_are_told_as_the_projects_own(front: Fronted) -> None:
    assert error_of(front.post("/predictions/nosuch", b"x")) == (404, "NotFound")
    assert front.post("/v2/models/nosuch/infer", b"{}").json() == {"error": "no model nosuch is served here"}
    assert front.post("/v2/models/no such/infer", b"{}").status_code == 404
    assert "error" in front.post("/v1/nothing", b"{}").json()["error"]["type"]
    assert error_of(front.post("/predictions/probe/9.0", b"x")) == (404, "VersionNotFound")
    assert error_of(front.post("/nowhere", b"x")) == (404, "NotFound")
    for path in (
        "/models",
        "/predictions/../models",
        "/predictions/probe/1.0/..%2f",
        "/predictions/probe/1.0//embed",
        "/predictions/probe/1.0/.embed",
        "/predictions/probe/1.0/embed/",
        "/api-description",
        "/metrics",
    ):
        assert front.post(path, b"x").status_code == 404, path
    wrong = front.http.get(f"{front.url}/predictions/probe", headers=front.bearer)
    assert error_of(wrong) == (405, "MethodNotAllowed")
    assert wrong.headers["allow"] == "POST"
    assert error_of(front.post("/predictions/probe", b"x", Expect="a-miracle")) == (417, "ExpectationFailed")
    assert error_of(front.post("/predictions/probe", b"x", X_Long="y" * 20000)) == (431, "HeadersTooLarge")
    assert error_of(front.post("/predictions/probe", b"refuse")) == (422, "UnprocessableInput")
    assert error_of(front.post("/predictions/probe", b"raise")) == (500, "ModelFailed")


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=", "Multipart/Mixed"]
)
def test_forms_are_refused_before_their_body_comes(front: Fronted, kind: str) -> None:
    assert error_of(front.post("/predictions/probe", b"&&&", kind)) == (415, "UnsupportedMediaType")


def test_a_body_that_is_too_large_is_refused_with_words(front: Fronted) -> None:
    head = f"POST /predictions/probe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\n"
    (refused,) = answers(front.raw(f"{head}Content-Length: 10485761\r\n\r\nx".encode()))
    assert refused[0] == 413
    assert "10485760 bytes" in json.loads(refused[2])["message"]
    pieces = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    sent = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces * 11
    assert answers(front.raw(sent))[0][0] == 413


def test_expectations_are_met(front: Fronted) -> None:
    head = f"POST /predictions/probe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\n"
    sent = f"{head}Content-Length: 1\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nx".encode()
    received = answers(front.raw(sent))
    assert [status for status, _, _ in received] == [100, 200]


def test_a_full_queue_is_503_with_a_time_to_come_back(front: Fronted) -> None:
    def ask(_: int) -> httpx.Response:
        return front.post("/predictions/probe", b"sleep 0.4")

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(ask, range(32)))
    full = [response for response in responses if response.status_code == 503]
    assert full
    assert {response.status_code for response in responses} == {200, 503}
    for response in full:
        assert error_of(response) == (503, "QueueFull")
        assert "its queue is full" in response.json()["message"]
        assert int(response.headers["retry-after"]) >= 1
    assert all(right(b"sleep 0.4", r.content) for r in responses if r.status_code == 200)


def test_ids_are_taken_from_the_client_or_made_and_logged_without_the_body(front: Fronted) -> None:
    seen = front.post("/predictions/probe", b"a secret text", X_Request_ID="order-66")
    assert seen.headers["x-request-id"] == "order-66"
    assert seen.json()["x-request-id"] == "order-66"
    made = front.post("/predictions/probe", b"x", X_Request_ID="no id: {}").headers["x-request-id"]
    assert len(made) == 32
    time.sleep(1.5)
    (line,) = front.logged(id="order-66")
    assert (line["status"], line["path"], line["bytes_in"]) == (200, "/predictions/probe", 13)
    assert line["server_id"] != "order-66"
    assert front.logged(id=made)
    text = (front.run / "logs" / "front.log").read_text()
    assert "secret text" not in text
    assert front.token not in text


def test_pipelined_requests_are_answered_in_their_order(front: Fronted) -> None:
    head = f"POST /predictions/probe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\n"
    bodies = [b"sleep 0.3", b"b", b"", b"dd"]
    sent = b"".join(
        f"{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        for body in bodies
    )
    received = answers(front.raw(sent + b"nonsense\r\n\r\n"))
    assert [status for status, _, _ in received] == [200] * 4 + [400]
    assert all(right(body, answer[2]) for body, answer in zip(bodies, received))


def test_a_worker_that_dies_costs_an_honest_request_nothing(front: Fronted, tmp_path: Path) -> None:
    first = front.post("/predictions/probe", f"once {tmp_path / 'died'}".encode())
    assert (tmp_path / "died").exists()
    assert first.status_code == 200, first.text
    time.sleep(1)
    front.logged(tries=2)


def test_slow_clients_are_sent_away_and_others_served(front: Fronted) -> None:
    head = f"POST /predictions/probe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\n"
    started = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        slow_head = pool.submit(front.raw, head.encode())
        slow_body = pool.submit(front.raw, f"{head}Content-Length: 9\r\n\r\nx".encode())
        silent = pool.submit(front.raw, b"")
        assert right(b"y", front.post("/embed", b"y").content)
        for what, sent in (("headers", slow_head), ("body", slow_body)):
            (refused,) = answers(sent.result())
            assert refused[0] == 408
            assert what in json.loads(refused[2])["message"]
        assert silent.result() == b""
    assert time.monotonic() - started < 15  # they would have waited 20 seconds


def test_connections_are_bounded(front: Fronted) -> None:
    head = (
        f"POST /embed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.token}\r\nContent-Length: 9\r\n\r\n"
    )
    held = []
    for _ in range(40):
        held.append(socket.create_connection(("127.0.0.1", front.port)))
        held[-1].sendall(head.encode())  # at work: not to be sent away for another
        time.sleep(0.01)
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as one_more:
        (refused,) = answers(one_more.recv(65536))
        assert refused[0] == 503
        assert json.loads(refused[2])["type"] == "TooManyConnections"
    for one in held:
        one.close()
    idle = [socket.create_connection(("127.0.0.1", front.port)) for _ in range(40)]
    assert httpx.get(f"{front.url}/livez").status_code == 200  # one that says nothing made room
    for one in idle:
        one.close()


def test_all_answers_are_counted_for_prometheus_by_status_and_type(front: Fronted) -> None:
    url = f"http://127.0.0.1:{front.metrics_port}/metrics"

    def scrape() -> Scrape:
        page = httpx.get(url)
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        return Scrape.of(page.text)

    before = scrape()
    for body in (b"x", b"y", b"refuse", b"raise"):
        front.post("/predictions/probe", body)
    front.post("/predictions/nosuch", b"x")
    front.post("/embed", b"x", "multipart/form-data; boundary=b")
    front.post("/embed", b"x", Authorization="Bearer of-nobody-whom-it-knows")
    front.raw(b"nonsense\r\n\r\n")
    for path in ("/livez", "/readyz", "/readyz/nosuch"):  # of the front itself: a probe is no request
        front.http.get(front.url + path)
    now = scrape()
    spent = now.since(before)
    counted = {
        (dict(labels)["code"], dict(labels).get("type", "")): value
        for (name, labels), value in spent.values.items()
        if name == "anyshape_front_requests_total" and value
    }
    assert counted == {
        ("200", ""): 2,
        ("400", "BadRequest"): 1,
        ("401", "Unauthorized"): 1,
        ("404", "NotFound"): 1,
        ("415", "UnsupportedMediaType"): 1,
        ("422", "UnprocessableInput"): 1,
        ("500", "ModelFailed"): 1,
    }
    assert spent.total("anyshape_front_request_duration_seconds_count") == 8
    assert spent.histogram("anyshape_front_request_duration_seconds")[-1] == (float("inf"), 8)
    assert now.total("anyshape_front_model_ready", model_name="probe") == 1
    assert now.total("anyshape_front_torchserve_up") == 1

    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(front.post, "/predictions/probe", b"sleep 1") for _ in range(2)]
        deadline = time.monotonic() + 10
        while scrape().total("anyshape_front_requests_in_hand") != 2:
            assert time.monotonic() < deadline
        assert all(each.result().status_code == 200 for each in slow)
    assert scrape().total("anyshape_front_requests_in_hand") == 0

    assert httpx.post(url, content=b"x").status_code == 405
    assert httpx.get(url.replace("/metrics", "/livez")).status_code == 404
    assert front.http.get(f"{front.url}/metrics", headers=front.bearer).status_code == 404
