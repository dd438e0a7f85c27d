from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from anyshape.backends import BACKENDS, create_backend
from anyshape.backends.base import Backend
from anyshape.building.backends import COMPILERS
from anyshape.building.backends.base import Compiler
from anyshape.building.tasks import BUILDERS
from anyshape.building.tasks.base import TaskBuilder
from anyshape.errors import ConfigError
from anyshape.registry import is_own, load
from anyshape.tasks import TASKS, task_class
from anyshape.tasks.base import Task
from tests.conftest import ROOT


def test_every_name_leads_to_a_class_of_that_name() -> None:
    for table, base in ((TASKS, Task), (BACKENDS, Backend)):
        for name in table:
            assert load(table, base, name, "x").name == name  # type: ignore[type-abstract]


@pytest.mark.parametrize(
    ("serving", "building", "base"), [(TASKS, BUILDERS, TaskBuilder), (BACKENDS, COMPILERS, Compiler)]
)
def test_every_strategy_has_two_halves_in_files_of_the_same_name(
    serving: dict[str, str], building: dict[str, str], base: type
) -> None:
    ours = {name: place for name, place in serving.items() if place.startswith("anyshape.")}
    assert ours.keys() == {name for name, place in building.items() if name in ours}
    for name, place in ours.items():
        served, built = place.split(":")[0], building[name].split(":")[0]
        assert built == served.replace("anyshape.", "anyshape.building.")
        assert issubclass(load(building, base, name, "x"), base)


def test_no_file_of_a_strategy_is_left_out_of_its_table() -> None:
    for folder, table in (("tasks", TASKS), ("backends", BACKENDS)):
        listed = {place.split(":")[0] for place in table.values()}
        for path in (ROOT / "anyshape" / folder).glob("*.py"):
            module = importlib.import_module(f"anyshape.{folder}.{path.stem}".removesuffix(".__init__"))
            named = [
                c
                for c in vars(module).values()
                if isinstance(c, type) and c.__module__ == module.__name__ and getattr(c, "name", "")
            ]
            assert not named or module.__name__ in listed, path


def test_nothing_is_imported_before_it_is_named() -> None:
    """A worker that serves text does not load Pillow, nor a backend that it does not run on."""
    code = (
        "import sys; from anyshape.tasks import task_class; task_class('text-classification'); "
        "print(sorted(m for m in sys.modules if m.split('.')[0] == 'PIL' or 'image' in m or 'neuron' in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"handler\.task must be one of .*sentence-embedding.*, not 'x'"):
        task_class("x")
    with pytest.raises(ConfigError, match=r"handler\.backend must be one of .*torchscript.*, not 'x'"):
        create_backend("x", {})


def test_an_option_that_a_backend_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"handler\.backend_options\.speed is not known to torchscript"):
        create_backend("torchscript", {"speed": 11})


@pytest.mark.parametrize(
    ("name", "own"), [("a:B", True), ("text-classification", False), ("a.b:C", False), (":B", False)]
)
def test_a_class_of_ones_own_is_a_file_and_a_class(name: str, own: bool) -> None:
    assert is_own(name) is own


def test_files_of_the_same_name_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            f"from anyshape.tasks.base import Task\nclass Mine(Task):\n    name = '{folder}'\n"
        )
        assert task_class("mine:Mine", tmp_path / folder).name == folder
    assert task_class("mine:Mine", tmp_path / "one").name == "one"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class Mine: pass", r"handler\.task: mine:Mine is no anyshape\.tasks\.base\.Task"),
        ("x = 1", "mine:Mine cannot be loaded: AttributeError"),
        ("1 / 0", "mine:Mine cannot be loaded: ZeroDivisionError"),
        ("import nothing_here", "mine:Mine cannot be loaded: ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_of_ones_own_that_is_wrong_is_named(code: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ConfigError, match=says):
        task_class("mine:Mine", tmp_path)
