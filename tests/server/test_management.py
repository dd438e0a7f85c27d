"""The management API with our archives: register, describe, scale, versions, unregister."""

from __future__ import annotations

from pathlib import Path

from tests.server.conftest import BUCKETS
from tests.server.harness import BROKEN, Server, make_archive


def test_describe_says_what_the_archive_holds(server: Server, minilm: str) -> None:
    response = server.manage("GET", f"/models/{minilm}", customized="true")
    assert response.status_code == 200, server.explain(response)
    (described,) = response.json()
    assert described["batchSize"] == 32
    assert described["workers"][0]["status"] == "READY"
    ours = described["customizedMetadata"]
    assert ours["task"] == "sentence-embedding"
    assert ours["backend"] == "torchscript"
    for bucket in BUCKETS:
        assert str(bucket) in str(ours["buckets"])


def test_workers_scale_up_and_down(server: Server, minilm: str) -> None:
    response = server.manage("PUT", f"/models/{minilm}", min_worker=2, max_worker=2, synchronous="true")
    assert response.status_code == 200, server.explain(response)
    server.wait_ready(minilm)
    (described,) = server.torchserve.describe(minilm)
    assert len(described["workers"]) == 2
    for _ in range(4):
        assert server.predict_text(minilm, "two workers").status_code == 200
    response = server.manage("PUT", f"/models/{minilm}", min_worker=1, max_worker=1, synchronous="true")
    assert response.status_code == 200, server.explain(response)
    (described,) = server.torchserve.describe(minilm)
    assert len(described["workers"]) == 1
    assert server.predict_text(minilm, "one worker").status_code == 200


def test_a_second_version_serves_beside_the_first_and_becomes_the_default(server: Server) -> None:
    server.register("versions", archive="echo.mar", version="1.0")
    server.register("versions", archive="echo2.mar", version="2.0")
    assert server.predict_text("versions", "x").text == "echo"
    assert server.predict_text("versions", "x", version="2.0").text == "second echo"

    response = server.manage("PUT", "/models/versions/2.0/set-default")
    assert response.status_code == 200, server.explain(response)
    assert server.predict_text("versions", "x").text == "second echo"
    assert server.predict_text("versions", "x", version="1.0").text == "echo"

    response = server.manage("DELETE", "/models/versions/1.0")
    assert response.status_code == 200, server.explain(response)
    assert server.predict_text("versions", "x", version="1.0").status_code == 404
    assert server.predict_text("versions", "x").text == "second echo"

    assert server.manage("DELETE", "/models/versions/2.0").status_code == 200
    assert server.predict_text("versions", "x").status_code == 404
    assert server.manage("GET", "/models/versions").status_code == 404


def test_a_model_that_cannot_start_does_not_disturb_the_others(
    server: Server, minilm: str, tmp_path: Path
) -> None:
    make_archive(server.store, "broken", BROKEN, work=tmp_path)
    response = server.manage("POST", "/models", url="broken.mar", initial_workers=1)
    assert response.status_code == 500, server.explain(response)
    assert "RuntimeError: this worker cannot start" in server.torchserve.log_tail()
    assert server.predict_text(minilm, "still here").status_code == 200
    # TorchServe unregisters a model that cannot start by itself, in its own time.
    assert server.manage("DELETE", "/models/broken").status_code in (200, 404)
    assert server.manage("GET", "/models/broken").status_code == 404
