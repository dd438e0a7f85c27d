"""`anyshape score` on a Ray cluster of several nodes, each with processes of its own, one of which dies."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TextOf, assert_close
from tests.scoring.rows import write_jsonl, write_parquet
from tests.scoring.test_score import score

pytestmark = pytest.mark.cluster
MEMORY = 80 * 1024 * 1024  # a node's shared memory, Ray's least
ROWS, CHUNK = 2000, 50


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that scores nothing, and two nodes with one core each: processes that talk over loopback."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray._private.authentication_test_utils import reset_auth_token_state
        from ray.cluster_utils import Cluster

        reset_auth_token_state()  # another test of this process may have started Ray without tokens
        nodes = Cluster(initialize_head=True, head_node_args=_node(0))
        try:
            yield nodes
        finally:
            nodes.shutdown()
    reset_auth_token_state()


def _node(cores: int) -> dict[str, Any]:
    return {"num_cpus": cores, "object_store_memory": MEMORY, "include_dashboard": False}


@pytest.mark.filterwarnings("ignore")  # Ray's own, in this process
def test_a_node_is_killed_and_no_row_is_lost_or_twice(
    cluster: Any, embedding_archive: Path, text_of: TextOf, tmp_path: Path
) -> None:
    texts: list[Any] = [text_of(2 + i * 13 % 31, seed=i % 97) for i in range(ROWS)]
    texts[5], texts[1717], texts[1999] = text_of(40), None, text_of(33)
    half = ROWS // 2
    write_parquet(tmp_path / "a.parquet", texts[:half], group=70)
    write_jsonl(tmp_path / "b.jsonl", texts[half:])
    out = tmp_path / "out"
    nodes = [cluster.add_node(**_node(1)) for _ in range(2)]
    command = [sys.executable, "-m", "anyshape", "score", "--archive", str(embedding_archive)]
    command += ["--input", str(tmp_path / "[ab].*"), "--output", str(out), "--rows", str(CHUNK)]
    command += ["--actors", "2", "--address", cluster.address, "--json"]
    log = (tmp_path / "log").open("wb")
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env={**os.environ})
    try:
        _wait_for_parts(out, 5, job, tmp_path / "log")
        done_before = len(list(out.glob("part-*")))
        cluster.remove_node(nodes[0], allow_graceful=False)  # SIGKILL: its actor dies with a chunk in hand
        assert done_before < ROWS // CHUNK, "the job was over before the node died"
        said, _ = job.communicate(timeout=240)
    finally:
        job.kill()
        log.close()
    assert job.returncode == 0, (tmp_path / "log").read_text()
    assert json.loads(said)["rows"] == ROWS

    here = score(embedding_archive, tmp_path / "[ab].*", tmp_path / "here", "--rows", str(CHUNK))
    from pyarrow import parquet

    there = parquet.read_table(out).to_pylist()
    assert [(row["file"], row["row"]) for row in there] == [(row["file"], row["row"]) for row in here]
    assert len({(row["file"], row["row"]) for row in there}) == ROWS
    assert sum(row["status"] != 200 for row in there) == 3
    for one, other in zip(there, here):
        assert (one["status"], one["message"]) == (other["status"], other["message"])
        if one["status"] == 200:
            assert_close(one["answer"], other["answer"])


def _wait_for_parts(out: Path, count: int, job: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while len(list(out.glob("part-*"))) < count:
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_cluster_that_is_not_there_is_named(embedding_archive: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ["a text"])
    command = [sys.executable, "-m", "anyshape", "score", "--archive", str(embedding_archive)]
    command += ["--input", str(path), "--output", str(tmp_path / "out"), "--address", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "no Ray cluster answers at 127.0.0.1:1" in done.stderr.splitlines()[-1]
