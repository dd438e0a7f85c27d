"""What an archive brings to a worker: little to import, and nothing that an older Python cannot read."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

OLDEST = (3, 9)  # of the Pythons that the serving half is written for
BUILDS = ("anyshape.building", "anyshape.cli", "anyshape.server")
HEAVY = ("PIL", "scipy", "transformers", "rich")

# Of this checkout nothing is to be found: -I leaves out where it is started, PYTHONPATH and user packages.
WORKER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import anyshape, handler
from anyshape import BucketedModel
model = BucketedModel.load(sys.argv[1])
found = {"answer": len(model("three little words")), "modules": sorted(sys.modules)}
found["files"] = [anyshape.__file__, handler.__file__]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def served(embedding_archive_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a process with nothing but an unpacked text archive loaded, and imported for it."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", WORKER, str(embedding_archive_folder)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_text_archive_serves_with_nothing_else_on_the_path(
    served: dict[str, object], embedding_archive_folder: Path
) -> None:
    assert served["answer"] == 16
    assert served["files"] == [
        str(embedding_archive_folder / package / "__init__.py") for package in ("anyshape", "handler")
    ]


@pytest.mark.parametrize("package", [*HEAVY, *BUILDS])
def test_a_text_archive_imports_nothing_that_serving_texts_does_not_need(
    package: str, served: dict[str, object]
) -> None:
    modules = served["modules"]
    assert isinstance(modules, list)
    assert "anyshape.tasks.text" in modules
    assert [name for name in modules if f"{name}.".startswith(f"{package}.")] == []


def test_every_module_in_an_archive_parses_on_the_oldest_python(embedding_archive_folder: Path) -> None:
    files = sorted(embedding_archive_folder.rglob("*.py"))
    names = {path.relative_to(embedding_archive_folder).as_posix() for path in files}
    assert {
        "bucketed_handler.py",
        "handler/batch.py",
        "anyshape/model.py",
        "anyshape/tasks/image.py",
    } <= names
    for path in files:
        ast.parse(path.read_bytes(), str(path), feature_version=OLDEST)
