from __future__ import annotations

from pathlib import Path

import pytest

from anyshape.building.build import build
from anyshape.errors import ConfigError
from anyshape.tasks import task_class
from tests.test_own_task import example_in

# A case is a file to write, what to write into it, and the task it makes.

TASK = "from anyshape.tasks.base import Task\nclass Mine(Task):\n    builder = '{}'\n"
REFUSED: dict[str, tuple[str, str, str, str]] = {
    "no file": ("", "", "mine:Mine", r"mine:Mine needs the file mine\.py beside the recipe"),
    "no class": ("mine.py", "x = 1", "mine:Mine", "mine:Mine cannot be loaded: AttributeError"),
    "no task": ("mine.py", "class Mine: pass", "mine:Mine", r"mine:Mine is no anyshape\.tasks\.base\.Task"),
    "raises": ("mine.py", "raise ValueError('so\\nthere')", "mine:Mine", "cannot be loaded: ValueError: so$"),
    "exits": ("mine.py", "import sys; sys.exit('no')", "mine:Mine", "cannot be loaded: SystemExit: no$"),
    "no Python": ("mine.py", "class", "mine:Mine", "cannot be loaded: SyntaxError: invalid syntax"),
    "of Python": ("json.py", TASK, "json:Mine", r"json\.py has the name of another module: rename it"),
    "of ours": ("anyshape.py", TASK, "anyshape:Mine", r"anyshape\.py has the name of another"),
    "of the handler": ("handler.py", TASK, "handler:Mine", r"handler\.py has the name of another"),
    "installed": ("numpy.py", TASK, "numpy:Mine", r"numpy\.py has the name of another"),
    "a neighbour": (
        "mine.py",
        "import audio_model",
        "mine:Mine",
        r"mine\.py imports audio_model, .* not packed",
    ),
    "a neighbour, later": (
        *("mine.py", "def f():\n    from audio_model import RATE\n", "mine:Mine"),
        r"mine\.py imports audio_model, .* not packed",
    ),
    "the builder": (
        *("mine.py", "from anyshape.building.tasks.base import TaskBuilder", "mine:Mine"),
        r"mine\.py imports anyshape\.building, which a worker does not have",
    ),
    "the builder, as a name": (
        *("mine.py", "from anyshape import building", "mine:Mine"),
        r"mine\.py imports anyshape\.building, which a worker does not have",
    ),
    "no builder": (
        "mine.py",
        TASK.format(""),
        "mine:Mine",
        'does not say what builds it: give it builder = "',
    ),
    "no builder's file": (
        "mine.py",
        TASK.format("b:B"),
        "mine:Mine",
        r"b:B needs the file b\.py, which is not",
    ),
    "a builder that is none": (
        "mine.py",
        TASK.format("mine:Mine"),
        "mine:Mine",
        "mine:Mine is no .*TaskBuilder",
    ),
    "a builder of no name": ("mine.py", TASK.format("b"), "mine:Mine", "must be one of .*, not 'b'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_serve_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file, content, task, says = REFUSED[name]
    recipe = example_in(tmp_path / "recipe", task=task)
    if file:
        (tmp_path / "recipe" / file).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=says) as refused:
        build(recipe, tmp_path / "store")
    assert str(refused.value).startswith("handler.task")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "store").glob("*"))


def test_an_own_file_may_change_while_a_process_lives(tmp_path: Path) -> None:
    """Python would take what it compiled of a file before, if that was as long and a second younger."""
    for name in ("one", "two"):
        (tmp_path / "mine.py").write_text(f"{TASK.format('')}    name = '{name}'\n", encoding="utf-8")
        assert task_class("mine:Mine", tmp_path).name == name
