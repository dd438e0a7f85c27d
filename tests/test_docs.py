"""The pages say what the code does: every status, header, task, backend, key and command is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from anyshape import errors, recipe
from anyshape.backends import BACKENDS
from anyshape.cli.main import COMMANDS
from anyshape.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in [*DOCS.glob("*.md"), ROOT / "CONTRIBUTING.md"]
}
BLOCKS = [
    (page, kind, text)
    for page, content in PAGES.items()
    for kind, text in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```", content, re.DOTALL | re.MULTILINE)
]
RECIPES = [(page, text) for page, kind, text in BLOCKS if kind == "yaml" and "minWorkers" in text]


HANDLERS = [kind for kind in errors.Refused.__subclasses__() if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", HANDLERS, ids=lambda kind: kind.__name__)
def test_every_status_has_its_row(kind: Any) -> None:
    assert f"| {kind.code} | `{kind.__name__}` | handler |" in PAGES["wire.md"]


def test_every_response_header_has_its_row() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "handler").rglob("*.py"))
    written = re.findall(r'"(X-[A-Za-z-]+)"', code)
    assert len(set(written)) >= 5
    for header in written:
        assert f"| `{header}` |" in PAGES["wire.md"], header


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_row(task: str) -> None:
    assert f"| `{task}` |" in PAGES["tasks.md"] + PAGES["images.md"] + PAGES["audio.md"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_its_row(backend: str) -> None:
    assert re.search(rf"^\| `{backend}`", PAGES["backends.md"], re.MULTILINE)


@pytest.mark.parametrize("kind", [recipe.Section, recipe.BucketPlan, recipe.Recipe], ids=lambda k: k.__name__)
def test_the_tables_of_the_recipe_leave_no_key_out(kind: Any) -> None:
    """A table begins where its mark says, and ends where the next one begins: the first key must be named."""
    fields = [field.name for field in msgspec.structs.fields(kind) if field.name != "handler"]
    marks = re.findall(rf"^<!-- keys {kind.__name__} from (\w+) -->$", PAGES["recipe.md"], re.MULTILINE)
    assert marks[0] == fields[0]
    assert [fields.index(mark) for mark in marks] == sorted(fields.index(mark) for mark in marks)


@pytest.mark.parametrize(("page", "text"), RECIPES, ids=[page for page, _ in RECIPES])
def test_the_recipes_shown_are_recipes(page: str, text: str) -> None:
    read = recipe.Recipe.from_mapping(yaml.safe_load(text))
    assert read.handler.task in TASKS


def test_the_commands_shown_exist() -> None:
    shown = {
        command
        for page in PAGES.values()
        for command in re.findall(r"(?:\.venv/bin/|\$ |`)anyshape ([a-z]+)", page)
    }
    assert {"build", "serve", "plan", "inspect", "report"} <= shown <= set(COMMANDS)


def test_the_make_targets_shown_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = {
        target for page in PAGES.values() for target in re.findall(r"(?:\$ |`)make ([a-z][a-z0-9-]+)", page)
    }
    assert {"serve", "demo", "docs", "schema"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_what_lies_where_contributing_says_exists() -> None:
    named = re.findall(
        r"`((?:anyshape|handler|tests|recipes|benchmarks|docs)/[\w./]*)`", PAGES["CONTRIBUTING.md"]
    )
    assert len(named) >= 10
    for name in named:
        assert (ROOT / name).exists(), name


def _texts(folder: str) -> set[str]:
    """Every text in the source, those that are written in several pieces joined."""
    files = (ROOT / folder).rglob("*.py")
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_messages_of_troubleshooting_are_in_the_code() -> None:
    """A row's message is written as the code has it, with … for what changes."""
    said = PAGES["troubleshooting.md"].split("## Answering")[0]
    messages = re.findall(r"^\| [^|`]*`([^`]+)` \|", said, re.MULTILINE)
    assert len(messages) > 20
    texts = _texts("anyshape")
    for message in messages:
        for part in message.split("…"):
            assert any(part in text for text in texts), f"{message!r}: nothing says {part!r}"
