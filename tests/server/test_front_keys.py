"""TorchServe's keys end and are renewed; the front's tokens go on, whatever the clock does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from anyshape.cli.main import main
from tests.conftest import TextOf, assert_close
from tests.server.asking import Asked, asking
from tests.server.conftest import options
from tests.server.front_alone import FrontAlone
from tests.server.fronted import Fronted
from tests.server.harness import Server
from tests.server.honest import Honest
from tests.server.probe import make_probe

TOKEN = "a-token-of-the-test"
# `anyshape` with a clock that goes wrong by the seconds in a file.
CLOCK = """
import os, sys, time
right = time.time
def wrong():
    with open(os.environ["CLOCK"]) as file:
        return right() + float(file.read() or 0)
time.time = wrong
from anyshape.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def front(operated: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontAlone]:
    """Before the server that tests share, with a copy of its key file, and a clock of its own."""
    folder, served = tmp_path_factory.mktemp("keys"), operated.torchserve
    (folder / "clock").write_text("0")
    keys = ("--key-file", str(served.key_file))
    with FrontAlone(
        folder,
        TOKEN,
        *keys,
        server=(operated.ports[0], operated.ports[1]),
        program=("-c", CLOCK),
        environment={"CLOCK": str(folder / "clock")},
    ) as front:
        deadline = time.monotonic() + 30
        while front.http.get(f"{front.url}/readyz/tiny").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield front


@pytest.fixture
def asked(text_of: TextOf, plain_embedding: Callable[[str], np.ndarray]) -> Asked:
    text = text_of(9)
    vector = plain_embedding(text)
    return Asked(text.encode(), "text/plain", lambda answer: assert_close(answer, vector))


def test_renewed_keys_cost_no_client_an_answer(front: FrontAlone, operated: Server, asked: Asked) -> None:
    keys = set()
    with asking(f"{front.url}/predictions/tiny", TOKEN, [asked]) as wrong:
        for _ in range(4):
            keys.add(operated.torchserve.key("inference"))
            assert main(["keys", "renew", *options(operated)]) == 0
            time.sleep(0.6)
    assert len(keys) == 4
    assert wrong == []


def test_a_clock_that_jumps_costs_no_client_an_answer(
    front: FrontAlone, operated: Server, asked: Asked
) -> None:
    """Two hours on, every key seems to have ended; two hours back, none ends that TorchServe ends."""
    clock, first = front.folder / "clock", operated.torchserve.key("inference")
    with asking(f"{front.url}/predictions/tiny", TOKEN, [asked]) as wrong:
        for hours in (2, -2, 0):
            part = clock.with_suffix(".part")
            part.write_text(str(hours * 3600))
            part.replace(clock)
            time.sleep(1.5)
            if hours == 2:
                assert operated.torchserve.key("inference") != first, "it did not renew what seemed to end"
            assert main(["keys", "renew", *options(operated)]) == 0
            time.sleep(0.5)
    assert wrong == []


def test_a_key_file_that_is_being_written_costs_no_client_an_answer(
    front: FrontAlone, operated: Server, asked: Asked
) -> None:
    path = operated.torchserve.key_file
    whole = path.read_text()
    with asking(f"{front.url}/predictions/tiny", TOKEN, [asked]) as wrong:
        try:
            for half in (whole[: len(whole) // 2], ""):
                path.write_text(half)
                time.sleep(1.3)
        finally:
            path.write_text(whole)
        time.sleep(1.3)
    assert wrong == []


@pytest.mark.faults
def test_keys_that_end_every_minute_cost_no_client_an_answer(tmp_path: Path) -> None:
    """TorchServe's shortest. Also where the front stood still for longer than one lives."""
    make_probe(tmp_path, workers=2, queue=200)
    fronted = Fronted(tmp_path, "probe")
    config = tmp_path / "config.properties"
    config.write_text(config.read_text().replace("token_expiration_min=60", "token_expiration_min=1"))
    key_file = tmp_path / "run" / "key_file.json"
    with fronted as front:
        first = key_file.read_text()
        with Honest(front, clients=8) as honest:
            deadline = time.monotonic() + 150
            while time.monotonic() < deadline:
                honest.wait_for(100)
        assert key_file.read_text() != first
        assert honest.told.wrong == 0
        assert honest.told.lost == []
        assert set(honest.told.statuses) == {200}, honest.told
        (process,) = (
            each
            for each in psutil.Process(front.process.pid).children()
            if "anyshape front" in " ".join(each.cmdline())
        )
        process.suspend()
        time.sleep(75)
        process.resume()
        for _ in range(20):
            answer = front.post("/predictions/probe", b"x")
            assert answer.status_code == 200, answer.text
