"""Buckets planned from what a running server has seen, and the waste that was predicted for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.server.conftest import BUCKETS
from tests.server.harness import Server

LENGTHS = [3] * 20 + [9] * 12 + [20] * 10 + [30] * 6 + [70] * 4 + [100] * 3 + [200] * 2 + [310]


def plan(server: Server, *arguments: str) -> Any:
    """What `anyshape plan --server` prints as JSON."""
    command = [sys.executable, "-m", "anyshape", "plan", "--server", server.torchserve.management]
    command += ["--model", "minilm", "--token", server.torchserve.key("management"), "--json", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_waste_predicted_from_traffic_is_the_waste_that_is_measured(
    server: Server, minilm: str, text_of: Callable[[int], str], tmp_path: Path
) -> None:
    assert server.predict_text(minilm, text_of(400)).status_code == 200
    before = tmp_path / "before.json"
    before.write_text(server.manage("GET", f"/models/{minilm}", customized="true").text, encoding="utf-8")

    padded = real = 0.0
    for length in LENGTHS:
        answer = server.predict_text(minilm, text_of(length))
        assert answer.status_code == 200
        real += length
        padded += length * float(answer.headers["X-Padding-Ratio"])

    found = plan(server, "--buckets", "4", "--cost", "area", "--since", str(before))
    traffic = found["traffic"]
    assert traffic["items"] == len(LENGTHS)
    assert traffic["present"]["buckets"] == [[bucket] for bucket in BUCKETS]
    assert traffic["present"]["positions"] == pytest.approx(padded / real, rel=0.01)
    assert traffic["proposed"]["positions"] < traffic["present"]["positions"]
    assert found["buckets"][-1] == [310]


def test_the_inference_key_neither_reads_nor_erases_what_was_seen(server: Server, minilm: str) -> None:
    def seen() -> Any:
        (described,) = server.manage("GET", f"/models/{minilm}", customized="true").json()
        return described["customizedMetadata"]["seen"], described["customizedMetadata"]["seen_since"]

    assert server.predict_text(minilm, "one").status_code == 200
    before = seen()
    for value in ("reset", "True"):
        for method in ("GET", "POST"):
            address = f"{server.torchserve.inference}/predictions/{minilm}"
            headers = {**server.token("inference"), "describe": value}
            response = server.http.request(method, address, headers=headers)
            assert response.status_code == 400
            assert "no body" in response.json()["message"]
    assert before[0]
    assert seen() == before


def test_describe_tells_costs_sizes_and_memory(
    server: Server, minilm: str, text_of: Callable[[int], str]
) -> None:
    assert server.predict_text(minilm, text_of(33)).status_code == 200
    token = {"Authorization": f"Bearer {server.torchserve.key('management')}"}
    url = f"{server.torchserve.management}/models/{minilm}?customized=true"
    (described,) = server.http.get(url, headers=token).json()
    metadata = described["customizedMetadata"]
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    assert [33] in [size for size, _ in metadata["seen"]]
    assert {tuple(cost["bucket"]) for cost in metadata["costs"]} == {(bucket,) for bucket in BUCKETS}
    assert all(cost["seconds"] > 0 for cost in metadata["costs"])
    assert metadata["resident_bytes"] > 90e6  # the weights alone
