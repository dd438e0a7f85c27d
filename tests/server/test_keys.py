"""`anyshape keys` against the server of swap: a renewed key works, what it replaced does not."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any, Callable

import httpx
import pytest

from anyshape.cli.main import main
from anyshape.server.client import Client
from anyshape.server.keys import expiry, keep_renewed
from tests.conftest import ROOT
from tests.server.conftest import options
from tests.server.harness import Server


def client_of(server: Server) -> Client:
    served = server.torchserve
    return Client(served.management, served.key_file, served.inference, served.metrics)


def ask(server: Server, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "text/plain"}
    url = f"{server.torchserve.inference}/predictions/tiny"
    return server.http.post(url, headers=headers, content="a text").status_code


def documented_client(server: Server) -> Callable[[str], httpx.Response]:
    """The client of docs/operate.md, which reads the key file again where a key is refused."""
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(def ask\(text\):.*?)```", page, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {
        "httpx": server.http,
        "json": json,
        "time": time,
        "url": f"{server.torchserve.inference}/predictions/tiny",
        "Path": lambda _: server.torchserve.key_file,
    }
    exec(found[1], names)
    return names["ask"]  # type: ignore[no-any-return]


def test_a_renewed_key_works_and_the_old_one_does_not(
    operated: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    client = client_of(operated)
    old = {kind: client.key(kind) for kind in ("inference", "management", "API")}
    ends = expiry(client, "inference")
    assert ends is not None
    assert 0 < ends - time.time() <= 3600
    assert ask(operated, old["inference"]) == 200

    assert main(["keys", "renew", "inference", *options(operated)]) == 0
    assert client.key("management") == old["management"]
    assert ask(operated, old["inference"]) in (400, 401)
    assert ask(operated, client.key("inference")) == 200
    renewed = expiry(client, "inference")
    assert renewed is not None
    assert renewed > ends

    assert main(["keys", "renew", *options(operated)]) == 0
    assert client.key("management") != old["management"]
    assert client.models() == ["tiny"]
    assert client.key("API") == old["API"]
    assert main(["keys", "show", *options(operated)]) == 0
    said = capsys.readouterr().out
    assert "inference   ends in 60 minutes" in said
    assert not any(key in said for key in (*old.values(), client.key("inference"), client.key("management")))


def test_kept_renewed_a_client_that_reads_the_file_is_always_answered(operated: Server) -> None:
    """Longer than a key lives, were time faster: what is slept until a renewal is cut to a second."""
    client, documented = client_of(operated), documented_client(operated)
    told: list[str] = []
    first = client.key("inference")
    stop, slept = threading.Event(), [0.0]  # before each renewal

    class Stopped(Exception):
        pass

    def sleep(seconds: float) -> None:
        slept[-1] += seconds
        if stop.wait(seconds / 4000):
            raise Stopped

    def tell(line: str) -> None:
        told.append(line)
        slept.append(0.0)

    def keep() -> None:
        with pytest.raises(Stopped):
            keep_renewed(client, ["inference"], 300.0, tell, sleep, lambda: time.time() + slept[-1])

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        keys, answered = {first}, 0
        deadline = time.monotonic() + 60
        while len(keys) < 4 and time.monotonic() < deadline:
            keys.add(client.key("inference"))
            answer = documented("a text")
            assert answer.status_code == 200, answer.text
            answered += 1
    finally:
        stop.set()
        thread.join()
    assert len(keys) >= 4
    assert answered > len(keys)
    assert told.count("renewed the inference key") >= 3
    assert all(3600 - 300 - 60 < seconds <= 3600 - 300 for seconds in slept[:-1]), slept


def test_a_clock_that_is_set_while_it_waits_is_seen(operated: Server) -> None:
    """TorchServe ends keys by the clock of the day: hours that it leaves out are of their life."""
    client = client_of(operated)
    before = client.key("inference")
    ahead, slept, told = 0.0, list[float](), list[str]()

    class Stopped(Exception):
        pass

    def sleep(seconds: float) -> None:
        nonlocal ahead
        slept.append(seconds)
        if len(slept) > 1:
            raise Stopped
        ahead = 7200.0

    with pytest.raises(Stopped):
        keep_renewed(client, ["inference"], 300.0, told.append, sleep, lambda: time.time() + ahead)
    assert told == ["renewed the inference key"]
    assert client.key("inference") != before


def test_a_key_file_of_another_server_is_named(
    operated: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "renew", "API", *options(operated)]) == 1
    assert "no key API to renew" in capsys.readouterr().err
    other = str(tmp_path / "key_file.json")
    assert main(["keys", "show", *options(operated), "--key-file", other]) == 1
    assert "--key-file" in capsys.readouterr().err
