"""`anyshape top` against the server that the tests share."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from anyshape.cli.main import main
from anyshape.server.client import Client
from anyshape.server.scrape import Scrape
from anyshape.server.watch import look
from tests.server.conftest import options
from tests.server.harness import Server


@pytest.fixture
def traffic(server: Server, minilm: str, text_of: Callable[[int], str]) -> Iterator[None]:
    """A client that asks again and again: fifteen times with 40 tokens, then with too many."""
    stop = threading.Event()

    def ask() -> None:
        for i in range(10**6):
            if stop.is_set():
                return
            server.predict_text(minilm, text_of(600 if i % 16 == 15 else 40))

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_once_prints_figures_of_live_traffic(
    server: Server, minilm: str, traffic: None, capsys: pytest.CaptureFixture[str]
) -> None:
    time.sleep(1)
    ask = ["top", *options(server), "--once", "--interval", "4", "--model", minilm]
    assert main([*ask, "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert (figures["model"], figures["version"], figures["default"]) == (minilm, "1.0", True)
    assert figures["requests_per_second"] > 1
    assert figures["errors_per_second"] > 0
    assert list(figures["errors"]) == ["InputTooLarge"]
    assert 0 < figures["p50"] <= figures["p95"] <= figures["p99"] < 30
    assert figures["queue"] > 0.02  # it waits 25 ms for company
    assert figures["waste"] == pytest.approx(64 / 40, abs=1e-3)
    busy = {bucket["bucket"] for bucket in figures["buckets"] if bucket["items_per_second"]}
    assert busy == {"64"}
    (worker,) = figures["workers"]
    assert (worker["status"], worker["starts"]) == ("READY", 1)
    assert 0 < figures["busy"] <= 1.5

    assert main(ask) == 0
    shown = capsys.readouterr().out
    assert "minilm 1.0" in shown
    assert "InputTooLarge" in shown
    assert "READY" in shown


class Torn:
    """A client whose first scrapes fall into the midst of a worker's hand-over."""

    def __init__(self, *scrapes: str) -> None:
        self.scrapes = list(scrapes)

    def models(self) -> list[str]:
        return []

    def scrape(self) -> Scrape:
        return Scrape.of(self.scrapes.pop(0))


def test_a_look_in_the_midst_of_a_hand_over_looks_again() -> None:
    half, whole = "anyshape_a_total 1\nts_b 1", "anyshape_a_total 1\nanyshape_c_total 2\nts_b 2"
    client = Torn(half, whole, whole.replace("ts_b 2", "ts_b 3"), "anyshape_a_total 9")
    found = look(cast(Client, client))
    assert (found.scrape.total("anyshape_c_total"), found.scrape.total("ts_b")) == (2.0, 3.0)
    assert len(client.scrapes) == 1


def keys_of(value: str, folder: Path) -> Path:
    """A key file as TorchServe writes it."""
    path = folder / "key_file.json"
    path.write_text(json.dumps({kind: {"key": value} for kind in ("inference", "management", "API")}))
    return path


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = keys_of("x", tmp_path)
    assert main(["top", "--server", "http://127.0.0.1:9", "--key-file", str(keys), "--once"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is the server running" in said


def test_a_wrong_key_is_one_line(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = keys_of("wrong", tmp_path)
    assert main(["top", *options(server), "--key-file", str(keys), "--once"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "anyshape keys renew" in said
