"""Hostile requests, by the thousand from a seed: broken HTTP, broken bodies, and what lies between."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.server.fronted import answers, raw

Draw = random.Random
WORDS = [
    "null",
    "NaN",
    "1e999",
    '"\\ud800"',
    "[]",
    "{}",
    '"' + "x" * 300 + '"',
    "-0",
    "true",
    "1" * 400,
    '""',
]
FIELDS = [
    "inputs",
    "input",
    "parameters",
    "texts",
    "query",
    "text",
    "text_pair",
    "truncate",
    "dimensions",
    "model",
]


def any_json(draw: Draw, depth: int = 0) -> str:
    """JSON of whatever shape, often with the fields that mean something here."""
    kind = draw.random()
    if depth > 4 or kind < 0.4:
        return draw.choice(WORDS)
    count = draw.choice((0, 1, 2, 5, 70))
    if kind < 0.6:
        return "[" + ",".join(any_json(draw, depth + 2) for _ in range(count)) + "]"
    pairs = (f'"{draw.choice(FIELDS)}":{any_json(draw, depth + 1)}' for _ in range(min(count, 5)))
    return "{" + ",".join(pairs) + "}"


def damaged(draw: Draw, data: bytes) -> bytes:
    """Some of the bytes cut, repeated or changed."""
    place = draw.randrange(len(data) + 1)
    how = draw.randrange(4)
    if how == 0:
        return data[:place]
    if how == 1:
        return data[:place] + draw.randbytes(draw.choice((1, 3, 60))) + data[place:]
    if how == 2:
        return data[:place] + data[place // 2 :]
    return data.replace(
        draw.choice((b"\r\n", b":", b" ", b'"', b"{")), draw.choice((b"\n", b"", b"\x00", b"::")), 1
    )


BODIES: list[Callable[[Draw], bytes]] = [
    lambda draw: any_json(draw).encode(),
    lambda draw: draw.randbytes(draw.choice((0, 1, 7, 500, 9000))),
    lambda draw: b"[" * draw.choice((50, 1100, 90000)),
    lambda draw: b"\x1f\x8b" + draw.randbytes(40),
    lambda draw: b"\xef\xbb\xbf" + any_json(draw).encode(),
    lambda draw: any_json(draw).encode(draw.choice(("utf-16", "utf-32", "cp037")), "replace"),
    lambda draw: json.dumps({"inputs": "word " * draw.choice((1, 40, 20000))}).encode(),
    lambda draw: json.dumps({"inputs": ["a"] * draw.choice((0, 1, 64, 65, 5000))}).encode(),
    lambda draw: damaged(draw, json.dumps({"inputs": ["a text", "and another"]}).encode()),
    lambda draw: "".join(chr(draw.randrange(1, 0xD7FF)) for _ in range(60)).encode(),
]
TYPES = [
    "application/json",
    "text/plain",
    "application/octet-stream",
    "",
    "image/jpeg",
    "application/json; charset=utf-7",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=",
    "multipart/form-data",
    ";",
    "text/plain;;;=",
]
PATHS = [
    "/predictions/{}",
    "/predictions/{}/1.0",
    "/predictions/{}/9.9",
    "/v1/embeddings",
    "/v1/models",
    "/embed",
    "/rerank",
    "/similarity",
    "/info",
    "/v2/models/{}/infer",
    "/predictions/{}/1.0/v1/embeddings",
    "/predictions/{}/1.0/nothing",
    "/models",
    "/",
    "//",
    "/predictions/{}/1.0/../..",
    "/predictions/%00",
    "/predictions/{}?describe=True",
    "*",
    "/livez",
]
HEADERS = [
    "describe: True",
    "explain: True",
    "Expect: 100-continue",
    "Expect: x",
    "Transfer-Encoding: chunked",
    "X-Request-ID: \x7f",
    "Content-Encoding: gzip",
    "Content-Length: 3",
    "Connection: close, Content-Length",
    "Upgrade: h2c",
    "Host: y",
    "X-Forwarded-For: 127.0.0.1",
    "Range: bytes=0-1",
    "Accept-Encoding: gzip;q=0",
    "Cookie: " + "a=b;" * 900,
    "traceparent: 0",
]


def hostile(draw: Draw, model: str, token: str) -> bytes:
    """The bytes of one request."""
    body = draw.choice(BODIES)(draw)
    method = draw.choice(
        ("POST",) * 12 + ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "post")
    )
    path = draw.choice(PATHS).replace("{}", model)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    if draw.random() < 0.95:
        lines.append(f"Authorization: Bearer {token}")
    if kind := draw.choice(TYPES):
        lines.append(f"Content-Type: {kind}")
    lines.append(f"Content-Length: {len(body)}")
    if draw.random() < 0.3:
        lines += draw.sample(HEADERS, draw.choice((1, 1, 3)))
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if draw.random() < 0.15:
        head = damaged(draw, head)
    return head + body


class Hostile:
    """Sends `count` of them from threads. bad: answers of 5xx, or that say nothing; silent: none came."""

    def __init__(self, port: int, model: str, token: str, *, count: int, seed: int, threads: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self.bad: list[tuple[bytes, int, bytes]] = []
        self.silent: list[bytes] = []
        self._port, self._model, self._token = port, model, token
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._send, args=(random.Random(seed * 100 + i), count // threads))
            for i in range(threads)
        ]

    def run(self) -> Hostile:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return self

    def _send(self, draw: Draw, count: int) -> None:
        for _ in range(count):
            sent = hostile(draw, self._model, self._token)
            if not sent:
                continue  # who says nothing is told nothing
            started = time.monotonic()
            received = raw(self._port, sent, seconds=60)
            with self._lock:
                if not received or time.monotonic() - started > 55:
                    self.silent.append(sent)
                    continue
                for status, _, body in answers(received):
                    self.statuses[status] += 1
                    if status >= 500 or (status >= 400 and not sent.startswith(b"HEAD") and not told(body)):
                        self.bad.append((sent[:400], status, body[:300]))


def told(body: bytes) -> bool:
    """Whether an error says something."""
    try:
        said = json.loads(body)
    except ValueError:
        return False
    return bool(said.get("message") or said.get("error"))
