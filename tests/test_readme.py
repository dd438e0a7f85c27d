"""What the README shows is true: its recipe is the one that ships, its Python runs, its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from builder.build import build
from handler.archive import read_recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_the_recipe_shown_is_the_one_that_ships() -> None:
    (shown,) = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
    assert shown == read_recipe(ROOT / "recipes" / "minilm.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model_store/minilm.mar in it: the recipe that ships, with fewer shapes to warm."""
    folder = tmp_path_factory.mktemp("project")
    recipe = read_recipe(ROOT / "recipes" / "minilm.yaml")
    recipe["handler"].update(buckets=[16, 256], largest_batch=1)
    path = folder / "minilm.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    build(path, folder / "model_store")
    return folder


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"])
def test_the_python_shown_runs(code: str, project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "384 [384, 384]\n"


def test_the_make_targets_shown_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^    |\$ |`)make ([a-z][a-z-]+)", README, re.MULTILINE))
    assert {"serve", "test", "demo"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("line", re.findall(r"\$ python -m (builder (?:plan --lengths|inspect).*)", README))
def test_the_builder_commands_shown_run(line: str, project: Path) -> None:
    arguments = [str(ROOT / part) if part.startswith("tests/") else part for part in line.split()]
    command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
