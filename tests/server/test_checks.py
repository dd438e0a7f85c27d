"""What `anyshape serve` refuses, or says, before the server answers."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from anyshape.server.checks import ServeError, too_many_threads
from anyshape.server.ports import grpc_ports, port_of
from tests.conftest import ROOT
from tests.server.harness import ECHO, RECIPE, make_archive
from tests.server.served import Served


@pytest.fixture
def served(tmp_path: Path) -> Served:
    (tmp_path / "store").mkdir()
    make_archive(tmp_path / "store", "echo", ECHO, work=tmp_path)
    return Served(tmp_path, "echo")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("inference_address", "http://127.0.0.1", "has no port: write http://127.0.0.1:8080"),
        ("management_address", "https://localhost", "has no port: write https://localhost:8081"),
        ("metrics_address", "http://127.0.0.1:", "is no address: write http://HOST:PORT"),
        ("metrics_address", "http://127.0.0.1:80a", "is no address: write http://HOST:PORT"),
        ("inference_address", "127.0.0.1:8080", "is no address: write http://HOST:PORT"),
        ("inference_address", "unix:/tmp/socket", "is no address: write http://HOST:PORT"),
        ("inference_address", "http://127.0.0.1:70000", "70000 is no port"),
        ("grpc_inference_port", "http", "http is no port"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(key: str, value: str, said: str) -> None:
    with pytest.raises(ServeError) as raised:
        grpc_ports({key: value}) if key.startswith("grpc") else port_of(key, {key: value})
    assert str(raised.value).startswith(key)
    assert value in str(raised.value)
    assert said in str(raised.value)


def test_a_configuration_with_such_an_address_is_one_line(served: Served) -> None:
    config = served.store.parent / "config.properties"
    config.write_text(config.read_text().replace(f"127.0.0.1:{served.ports[0]}\n", "127.0.0.1\n"))
    served.start()
    assert served.process.wait(60) == 1
    expected = "error: inference_address=http://127.0.0.1 has no port: write http://127.0.0.1:8080"
    assert served.output.splitlines()[-1] == expected
    assert "Traceback" not in served.output


@pytest.mark.slow
def test_a_module_on_pythonpath_does_not_take_the_place_of_the_archives(
    served: Served, tmp_path: Path
) -> None:
    decoys = tmp_path / "decoys"
    decoys.mkdir()
    (decoys / "echo_handler.py").write_text(ECHO.replace('"echo"', '"decoy"'))
    served.environment = {**os.environ, "PYTHONPATH": str(decoys)}
    served.start()
    try:
        served.wait_for("READY: echo")
        assert served.ask() == "echo"
        assert "the workers do not see PYTHONPATH" in served.output
    finally:
        assert served.stop(signal.SIGINT) == 0


@pytest.mark.slow
def test_it_runs_from_any_folder_into_any_folder(tmp_path: Path) -> None:
    """Copied, as it must not matter where it lies: in a path that Java's replacement would change, too."""
    project = tmp_path / "pro$1ject"
    project.mkdir()
    for name in ("anyshape", "handler"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "store").mkdir()
    make_archive(tmp_path / "store", "echo", ECHO, work=tmp_path)
    served = Served(tmp_path, "echo")
    served.run = tmp_path / "far" / "away" / "run"
    served.project = project
    served.command[served.command.index("--run") + 1] = os.path.relpath(served.run, tmp_path / "decoys")
    (tmp_path / "decoys").mkdir()
    served.folder = tmp_path / "decoys"
    served.start()
    try:
        served.wait_for("READY: echo")
        assert served.ask() == "echo"
        children = psutil.Process(served.process.pid).children(recursive=True)
        files = project / "anyshape" / "server"
        assert any(str(files / "log4j2.xml") in " ".join(child.cmdline()) for child in children)
        metrics = httpx.get(f"http://127.0.0.1:{served.ports[2]}/metrics").text
        declared = yaml.safe_load((files / "metrics.yaml").read_text())["model_metrics"]["counter"][0]["name"]
        assert declared in metrics
    finally:
        assert served.stop(signal.SIGINT) == 0


def recipe(workers: int, threads: int | None) -> str:
    handler = {"task": "sentence-embedding", "model": "m:f", "buckets": [16], "threads": threads}
    values = {key: value for key, value in handler.items() if value is not None}
    text = RECIPE.replace("maxWorkers: 1", f"maxWorkers: {workers}")
    return text + yaml.safe_dump({"handler": values})


def test_threads_of_all_workers_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for module in ("anyshape.server.checks", "anyshape.threads"):
        monkeypatch.setattr(f"{module}.cores", lambda: 4)
    recipes = {
        "alone": recipe(1, None),
        "two": recipe(2, None),
        "scaled": recipe(3, 2),
        "small": recipe(2, 1),
        "foreign": RECIPE,
        "wrong": recipe(1, -1),
    }
    archives = {
        name: make_archive(tmp_path, name, ECHO, work=tmp_path, recipe=text) for name, text in recipes.items()
    }

    def said(*names: str) -> str:
        return too_many_threads({name: archives[name] for name in names})

    assert said("alone") == said("two") == said("small") == said("foreign", "wrong") == said() == ""
    assert said("small", "small") == ""
    assert said("alone", "two").startswith(
        "8 threads (workers × threads: alone 1 × 4, two 2 × 2) share 4 cores"
    )
    assert said("scaled").startswith("6 threads (workers × threads: scaled 3 × 2) share 4 cores")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert said("alone", "two") == ""


@pytest.mark.slow
def test_too_many_threads_are_told_at_the_start(served: Served, tmp_path: Path) -> None:
    make_archive(served.store, "many", ECHO, work=tmp_path, recipe=recipe(1, 4096))
    served.command[-1] = "many"
    served.start()
    try:
        served.wait_for("READY: many")
        assert "Note: 4096 threads (workers × threads: many 1 × 4096) share " in served.output
    finally:
        assert served.stop(signal.SIGINT) == 0
