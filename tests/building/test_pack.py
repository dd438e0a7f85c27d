from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anyshape.building.errors import BuildError
from anyshape.building.pack import pack
from tests.conftest import ROOT


def content(folder: Path, model: bytes = b"a model") -> Path:
    """What a build hands over."""
    for part in ("models", "assets"):
        (folder / part).mkdir(parents=True)
    (folder / "models" / "buckets.pt").write_bytes(model)
    (folder / "assets" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "buckets.json").write_text("{}", encoding="utf-8")
    (folder / "model-config.yaml").write_text("minWorkers: 1\n", encoding="utf-8")
    return folder


def test_an_archive_holds_everything_that_serving_needs(tmp_path: Path) -> None:
    packed = pack(content(tmp_path / "in"), "mine", "1.5", tmp_path / "deep" / "store")
    assert packed == tmp_path / "deep" / "store" / "mine.mar"
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
        stored = {info.compress_type for info in archive.infolist() if not info.is_dir()}
    assert {n for n in names if not n.startswith(("handler/", "anyshape/")) and not n.endswith("/")} == {
        "MAR-INF/MANIFEST.json",
        "buckets.json",
        "model-config.yaml",
        "bucketed_handler.py",
        "assets/tokenizer.json",
        "models/buckets.pt",
    }
    assert stored == {zipfile.ZIP_STORED}
    assert manifest["modelName"] == "mine"
    assert manifest["modelVersion"] == "1.5"
    assert manifest["handler"] == "bucketed_handler.py"
    assert manifest["configFile"] == "model-config.yaml"


def test_the_handler_and_the_serving_half_are_inside_as_they_are_here_and_nothing_else(
    tmp_path: Path,
) -> None:
    """Not what builds, not the command line, not the server's starter: a worker needs none of it."""
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "handler").rglob("*.py")}
    for folder in ("", "tasks", "backends"):
        wanted |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "anyshape" / folder).glob("*.py")}
    wanted.remove("anyshape/__main__.py")  # the command line's
    assert {"anyshape/model.py", "anyshape/tasks/text.py", "handler/batch.py"} <= wanted
    packed = pack(content(tmp_path / "in"), "mine", "1.0", tmp_path)
    with zipfile.ZipFile(packed) as archive:
        found = {n for n in archive.namelist() if n.startswith(("handler/", "anyshape/"))}
        assert {name for name in found if not name.endswith("/")} == wanted
        for name in wanted:
            assert archive.read(name) == (ROOT / name).read_bytes(), name


def test_a_folder_of_the_same_name_among_the_temporary_files_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archiver deletes $TMPDIR/<name> before it begins."""
    temporary = tmp_path / "tmp"
    (temporary / "mine").mkdir(parents=True)
    (temporary / "mine" / "precious").write_text("keep", encoding="utf-8")
    for variable in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(variable, str(temporary))
    pack(content(tmp_path / "in"), "mine", "1.0", tmp_path / "store")
    assert (temporary / "mine" / "precious").read_text(encoding="utf-8") == "keep"
    assert [path.name for path in temporary.iterdir()] == ["mine"]


def test_two_builds_of_one_name_at_once_do_not_mix(tmp_path: Path) -> None:
    models = [bytes([i]) * 300_000 for i in range(4)]
    folders = [content(tmp_path / str(i), model) for i, model in enumerate(models)]
    store = tmp_path / "store"
    with ThreadPoolExecutor(len(folders)) as pool:
        packed = list(pool.map(lambda folder: pack(folder, "mine", "1.0", store), folders))
    assert set(packed) == {store / "mine.mar"}
    assert [path.name for path in store.iterdir()] == ["mine.mar"]
    with zipfile.ZipFile(store / "mine.mar") as archive:
        assert archive.testzip() is None
        assert archive.read("models/buckets.pt") in models


def test_an_archive_of_the_same_name_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Who reads the old one while the new one comes reads it to its end."""
    packed = pack(content(tmp_path / "0", b"old"), "mine", "1.0", tmp_path / "store")
    before = packed.read_bytes()
    with packed.open("rb") as reading:
        pack(content(tmp_path / "1", b"new"), "mine", "1.0", tmp_path / "store")
        assert reading.read() == before
    with zipfile.ZipFile(packed) as archive:
        assert archive.read("models/buckets.pt") == b"new"


def test_what_was_handed_over_stays_as_it_was(tmp_path: Path) -> None:
    folder = content(tmp_path / "in")
    pack(folder, "mine", "1.0", tmp_path / "store")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["assets/tokenizer.json", "buckets.json", "model-config.yaml", "models/buckets.pt"]
    assert (folder / "models" / "buckets.pt").read_bytes() == b"a model"


@pytest.mark.parametrize("name", ["two words", "a+b", "ä", "a,b", "a:b", "-a"])
def test_a_name_that_torchserve_refuses_leaves_the_store_as_it_was(name: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(BuildError, match="named after the recipe's file") as stopped:
        pack(content(tmp_path / "in"), name, "1.0", store)
    assert "\n" not in str(stopped.value)
    assert not store.exists()


KILLED = """
import subprocess, sys, time
from pathlib import Path
from anyshape.building.pack import pack
subprocess.run = lambda *a, **k: (print("packing", flush=True), time.sleep(60))
pack(Path(sys.argv[1]), "mine", "1.0", Path(sys.argv[2]))
"""


def packing(folder: Path, store: Path) -> subprocess.Popen[str]:
    """A process in the middle of packing."""
    command = [sys.executable, "-c", KILLED, str(folder), str(store)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "packing\n"
    return process


@pytest.mark.slow
def test_what_a_killed_build_left_goes_with_the_next_one_and_what_lives_stays(tmp_path: Path) -> None:
    folder, store = content(tmp_path / "in"), tmp_path / "store"
    with packing(folder, store) as killed:
        killed.kill()
    (left,) = store.iterdir()
    with packing(folder, store) as living:
        (work,) = store.iterdir()
        assert work != left
        pack(folder, "mine", "1.0", store)
        assert {path.name for path in store.iterdir()} == {"mine.mar", work.name}
        content_of, staging = sorted(path.name for path in work.iterdir())
        assert content_of == "content"
        assert staging.startswith("staging-")
        living.kill()
    pack(folder, "mine", "1.0", store)
    assert [path.name for path in store.iterdir()] == ["mine.mar"]
