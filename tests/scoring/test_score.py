"""`anyshape score` in one process: the plain model's answers, errors as rows, going on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyshape.cli.main import main
from tests.conftest import TextOf, assert_close
from tests.scoring.rows import write_csv, write_jsonl, write_parquet, write_tar

pytestmark = pytest.mark.cluster
Plain = Callable[[str], np.ndarray]


def score(archive: Path, inputs: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    """What the command wrote, row by row."""
    from pyarrow import parquet

    command = ["score", "--archive", str(archive), "--input", str(inputs), "--output", str(output), *options]
    assert main(command) == 0
    rows: list[dict[str, Any]] = parquet.read_table(output).to_pylist()
    return rows


@pytest.fixture(scope="module")
def texts(text_of: TextOf) -> list[Any]:
    """Texts of every length up to the largest bucket, mixed, and three that are refused."""
    good: list[Any] = [text_of(2 + i * 7 % 31, seed=i) for i in range(60)]
    good[5], good[20], good[40] = text_of(40), None, "half \ud800 of a pair"
    return good


def test_rows_are_answered_as_the_plain_model_does(
    embedding_archive: Path, plain_embedding: Plain, texts: list[Any], tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", texts)
    rows = score(embedding_archive, path, tmp_path / "out", "--rows", "25", "--keep", "id")
    assert [(row["row"], row["input_id"]) for row in rows] == [(i, str(i)) for i in range(60)]
    assert {row["file"] for row in rows} == {str(path)}
    bad = {row["row"]: (row["status"], row["error"]) for row in rows if row["status"] != 200}
    assert bad == {
        5: (413, "InputTooLarge"),
        20: (422, "UnprocessableInput"),
        40: (422, "UnprocessableInput"),
    }
    assert "40 tokens" in rows[5]["message"]
    assert rows[5]["message"].endswith("""or score with --parameters '{"truncation": true}'""")
    assert all(row["answer"] is None for row in rows if row["row"] in bad)
    for row in rows:
        if row["row"] not in bad:
            assert_close(row["answer"], plain_embedding(texts[row["row"]]))
            assert row["bucket"] in ("4", "8", "16", "32")
            assert row["message"] is None


def test_every_kind_of_file_is_answered_the_same(
    embedding_archive: Path, texts: list[Any], tmp_path: Path
) -> None:
    good = [text for i, text in enumerate(texts[:20]) if i != 5]
    files = [
        write_jsonl(tmp_path / "rows.jsonl", good),
        write_csv(tmp_path / "rows.csv", good),
        write_parquet(tmp_path / "rows.parquet", good),
        write_tar(tmp_path / "rows.tar", [{"txt": text.encode()} for text in good]),
    ]
    scored = [
        score(embedding_archive, path, tmp_path / path.name.replace(".", "-"), "--rows", "8")
        for path in files
    ]
    for rows in scored:
        assert [row["row"] for row in rows] == list(range(len(good)))
        assert_close([row["answer"] for row in rows], [row["answer"] for row in scored[0]])


def test_a_stopped_job_goes_on_and_repeats_nothing(
    embedding_archive: Path, texts: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_jsonl(tmp_path / "rows.jsonl", texts), tmp_path / "out"
    whole = score(embedding_archive, path, out, "--rows", "10")
    parts = sorted(out.glob("part-*"))
    assert len(parts) == 6
    for part in (parts[1], parts[4]):
        part.unlink()
    (out / f".{parts[1].name}-killed").write_bytes(b"half a part")
    kept = {part: part.stat().st_mtime_ns for part in out.glob("part-*")}
    capsys.readouterr()
    again = score(embedding_archive, path, out, "--rows", "10", "--json")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["scored"]) == (60, 20)
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    free = {"answer": None, "bucket": None}  # each run measures costs anew, and packs by them
    assert [{**row, **free} for row in again] == [{**row, **free} for row in whole]
    for one, other in zip(again, whole):
        if one["answer"] is not None:
            assert_close(one["answer"], other["answer"])


def test_another_job_does_not_go_on_with_this_ones_answers(
    embedding_archive: Path, texts: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_jsonl(tmp_path / "rows.jsonl", texts[:3]), tmp_path / "out"
    score(embedding_archive, path, out)
    command = ["score", "--archive", str(embedding_archive), "--input", str(path), "--output", str(out)]
    assert main([*command, "--rows", "2"]) == 1
    assert "holds the answers of another job (another --rows)" in capsys.readouterr().err
    write_jsonl(path, texts[:4])
    assert main(command) == 1
    assert "another input, or one that changed" in capsys.readouterr().err
    shutil.rmtree(out)
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--column", "txet"], "the input has no column 'txet'; it has id, text"),
        (["--parameters", '{"top_k": 3}'], "--parameters: parameter 'top_k' is not known"),
        (["--input", "nowhere/*.csv"], "nowhere/*.csv names nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    options: list[str],
    says: str,
    embedding_archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ["a text"])
    command = [
        "score",
        "--archive",
        str(embedding_archive),
        "--input",
        str(path),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main([*command, *options]) == 1
    said = capsys.readouterr().err
    assert says in said.splitlines()[-1]


def test_classes_are_json_and_parameters_count(
    classification_archive: Path, texts: list[Any], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "rows.csv", texts[:4])
    rows = score(classification_archive, path, tmp_path / "out", "--parameters", '{"top_k": 2}')
    answers = [json.loads(row["answer"]) for row in rows]
    assert [len(answer) for answer in answers] == [2, 2, 2, 2]
    assert set(answers[0][0]) == {"label", "score"}
