"""`anyshape capacity --from-server`: what a running server has seen and counted is what is simulated."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from anyshape.cli.main import main
from tests.conftest import TextOf
from tests.server.conftest import options
from tests.server.harness import Server

pytestmark = pytest.mark.cluster


def test_cores_by_what_a_server_has_seen(
    operated: Server, text_of: TextOf, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["capacity", "--from-server", "--costs", str(operated.store / "tiny.mar"), *options(operated)]
    command += ["--rate", "100000", "--p99", "1000", "--json"]
    assert main(command) == 1
    assert "has seen no traffic yet" in capsys.readouterr().err

    for _ in range(20):
        for length in (5, 14):
            assert operated.predict_text("tiny", text_of(length)).status_code == 200
    deadline = time.monotonic() + 30  # the worker says what it has counted a second later
    while True:
        assert main(command) == 0
        found = json.loads(capsys.readouterr().out)
        if found["slowness"] != 1.0:
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    counted = operated.http.get(f"{operated.torchserve.metrics}/metrics").text
    assert "anyshape_call_duration_ratio_count" in counted
    assert found["larger_than_every_bucket"] == 0
    assert found["p99_ms"] <= 1000
    assert found["servers"] * found["rate"] == pytest.approx(100_000)


def test_a_server_that_is_not_there_is_named(
    embedding_archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["capacity", "--from-server", "--costs", str(embedding_archive), "--no-keys"]
    assert main([*command, "--server", "http://127.0.0.1:9", "--rate", "1", "--p99", "10"]) == 1
    assert "no answer from http://127.0.0.1:9/models" in capsys.readouterr().err
