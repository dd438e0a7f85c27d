"""Faults under honest clients that check every answer: none wrong, none lost, nobody waits for nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.fronted import Fronted
from tests.server.honest import Honest, Told
from tests.server.probe import make_probe

CLIENTS = int(os.environ.get("FAULTS_CLIENTS", "16"))
SEED = int(os.environ.get("FAULTS_SEED", "0"))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    """One server for all faults, which they follow upon each other: each leaves it serving."""
    folder = tmp_path_factory.mktemp("faults")
    make_probe(folder, workers=2, queue=200)
    with Fronted(folder, "probe", "--enable-model-api") as front:
        yield front


def manage(front: Fronted, method: str, path: str, **query: object) -> httpx.Response:
    key = json.loads((front.run / "key_file.json").read_text())["management"]["key"]
    return front.http.request(
        method,
        f"http://127.0.0.1:{front.ports[1]}{path}",
        params={name: str(value) for name, value in query.items()},
        headers={"Authorization": f"Bearer {key}"},
    )


def wait_ready(front: Fronted, seconds: float = 90) -> float:
    """Seconds until /readyz says so."""
    started = time.monotonic()
    while front.http.get(f"{front.url}/readyz").status_code != 200:
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
    return time.monotonic() - started


def none_lost(told: Told) -> None:
    assert told.wrong == 0
    assert told.lost == []
    assert told.unsaid == 0


def test_with_two_workers_a_killed_one_costs_nobody_an_answer(front: Fronted) -> None:
    with Honest(front, clients=CLIENTS, seed=SEED) as honest:
        honest.wait_for(50)
        front.family("model_service_worker")[0].kill()
        honest.wait_for(500)
    none_lost(honest.told)
    assert set(honest.told.statuses) == {200}, honest.told
    assert honest.told.longest < 20


@pytest.mark.faults
def test_where_the_only_worker_dies_nobody_waits_for_it(tmp_path: Path) -> None:
    make_probe(tmp_path, workers=1)
    with Fronted(tmp_path, "probe", environment={**os.environ, "PROBE_LOAD_SECONDS": "6"}) as front:
        with Honest(front, clients=CLIENTS, seed=SEED) as honest:
            honest.wait_for(50)
            front.family("model_service_worker")[0].kill()
            while front.http.get(f"{front.url}/readyz").status_code == 200:
                time.sleep(0.02)
            honest.told.longest = 0.0
            took = wait_ready(front)
            assert took > 3
            longest = honest.told.longest
            honest.wait_for(100)
        none_lost(honest.told)
        assert set(honest.told.statuses) == {200, 503}
        assert set(honest.told.types) <= {"NotReady", "WorkerDied"}
        assert longest < took / 2, "somebody waited for the worker instead of being told"


@pytest.mark.faults
def test_workers_come_and_go_without_a_loss(front: Fronted) -> None:
    with Honest(front, clients=CLIENTS, seed=SEED) as honest:
        for workers in (1, 3, 2):
            honest.wait_for(100)
            scaled = manage(
                front, "PUT", "/models/probe", min_worker=workers, max_worker=workers, synchronous="true"
            )
            assert scaled.status_code == 200, scaled.text
        honest.wait_for(100)
    none_lost(honest.told)
    assert set(honest.told.statuses) == {200}, honest.told


@pytest.mark.faults
def test_a_new_version_takes_over_and_the_old_one_goes_without_a_loss(front: Fronted) -> None:
    """Also for paths that name no version, which the front sends to the default one."""
    make_probe(front.store.parent, workers=2, version="2.0", queue=200)
    with (
        Honest(front, clients=CLIENTS // 2, seed=SEED) as honest,
        Honest(front, clients=CLIENTS // 2, seed=SEED + 1, path="/embed") as bare,
    ):
        bare.wait_for(50)
        registered = manage(front, "POST", "/models", url="probe.mar", initial_workers=2, synchronous="true")
        assert registered.status_code == 200, registered.text
        assert manage(front, "PUT", "/models/probe/2.0/set-default").status_code == 200
        bare.wait_for(50)
        gone = manage(front, "DELETE", "/models/probe/1.0")
        assert gone.status_code == 200, gone.text
        bare.wait_for(100)
    for each in (honest, bare):
        none_lost(each.told)
        assert set(each.told.statuses) == {200}, each.told


@pytest.mark.slow
def test_torchserve_is_started_again_with_what_it_served_last_and_tokens_stay_good(
    front: Fronted, tmp_path: Path
) -> None:
    """A version that came while it ran, which is the default by now, and its number of workers."""
    before = front.family("model_service_worker")
    keys = (front.run / "key_file.json").read_text()
    make_probe(tmp_path, workers=1, version="7.0", queue=200)
    (tmp_path / "store" / "probe.mar").rename(front.store / "newer.mar")
    came = manage(front, "POST", "/models", url="newer.mar", initial_workers=1, synchronous="true")
    assert came.status_code == 200, came.text
    grown = manage(front, "PUT", "/models/probe/7.0", min_worker=2, max_worker=2, synchronous="true")
    assert grown.status_code == 200, grown.text
    assert manage(front, "PUT", "/models/probe/7.0/set-default").status_code == 200
    (front.store / "newer.mar").rename(front.store / "probe-new.mar")  # as a swap does
    served = versions(front)
    with Honest(front, clients=CLIENTS, seed=SEED) as honest:
        honest.wait_for(100)
        time.sleep(2.5)  # what the last second brought is not known yet
        (java,) = [process for process in front.family("org.pytorch.serve") if "java" in process.name()]
        java.kill()
        while front.http.get(f"{front.url}/readyz").status_code == 200:
            time.sleep(0.02)
        wait_ready(front)
        honest.wait_for(100)
    none_lost(honest.told)
    assert set(honest.told.statuses) == {200, 503}
    assert set(honest.told.types) <= {"ServerDown", "NotReady", "WorkerDied"}
    assert (front.run / "key_file.json").read_text() != keys
    assert [process for process in before if process.is_running()] == []
    deadline = time.monotonic() + 60
    while versions(front) != served:
        assert time.monotonic() < deadline, (versions(front), served)
        time.sleep(0.2)
    assert served["7.0"] == (True, 2)


def versions(front: Fronted) -> dict[str, tuple[bool, int]]:
    """{version: (whether it is the default, how many workers it is to have)} of the probe."""
    (default,) = manage(front, "GET", "/models/probe").json()
    return {
        each["modelVersion"]: (each["modelVersion"] == default["modelVersion"], each["minWorkers"])
        for each in manage(front, "GET", "/models/probe/all").json()
    }


@pytest.mark.faults
def test_the_front_itself_is_started_again(front: Fronted) -> None:
    front.family("anyshape front")[0].kill()
    time.sleep(0.5)
    deadline = time.monotonic() + 30
    while True:
        try:
            assert front.post("/predictions/probe", b"x").status_code in (200, 503)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    wait_ready(front)
    assert front.post("/predictions/probe", b"x").status_code == 200


@pytest.mark.faults
def test_of_two_models_in_one_server_one_that_fails_leaves_the_other_alone(tmp_path: Path) -> None:
    make_probe(tmp_path, queue=200)
    make_probe(tmp_path, "other", queue=200)
    with Fronted(tmp_path, "probe", "--model", "other", "--front-model", "probe") as front:
        with Honest(front, clients=CLIENTS, seed=SEED) as honest:
            for _ in range(5):
                honest.wait_for(50)
                died = front.post("/predictions/other", b"die")
                assert died.status_code == 503, died.text
                assert "retry-after" in died.headers
                assert front.http.get(f"{front.url}/readyz/probe").status_code == 200
            honest.wait_for(50)
        none_lost(honest.told)
        assert set(honest.told.statuses) == {200}, honest.told


@pytest.mark.faults
def test_a_disk_that_fills_up_while_serving_costs_no_answer(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root mounts a small disk, and not everywhere")
    try:
        make_probe(tmp_path, workers=2, queue=200)
        with Fronted(tmp_path, "probe", run=disk / "run") as front:
            with Honest(front, clients=CLIENTS, seed=SEED) as honest:
                honest.wait_for(50)
                filler = disk / "filler"
                with filler.open("wb") as out, contextlib.suppress(OSError):
                    while True:
                        out.write(bytes(1 << 16))
                        out.flush()
                assert shutil.disk_usage(disk).free == 0
                honest.wait_for(300)
                filler.unlink()
                honest.wait_for(50)
            none_lost(honest.told)
            assert set(honest.told.statuses) == {200}, honest.told
            assert front.logged(status=200)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_at_sigterm_every_request_in_hand_is_answered(front: Fronted) -> None:
    with Honest(front, clients=CLIENTS, seed=SEED) as honest:
        honest.wait_for(100)
        assert front.stop(signal.SIGTERM) == 0
    none_lost(honest.told)
    assert set(honest.told.statuses) <= {200, 503}
    assert set(honest.told.types) <= {"NotReady"}
    assert front.leftovers() == []
