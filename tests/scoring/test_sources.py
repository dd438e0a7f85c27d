"""Rows of files: any chunk can be read by itself, and together they are the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.errors import BadRequest, ConfigError, UnprocessableInput
from anyshape.scoring.job import find_files
from tests.scoring.rows import NASTY, read_all, write_csv, write_jsonl, write_parquet, write_tar

TEXT = st.characters(exclude_categories=["Cs"])


def texts_of(path: Path, rows: int, column: str = "text") -> list[Any]:
    return [row.values[column] for row in read_all(path, rows) if isinstance(row.values, dict)]


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", pytest.param("parquet", marks=pytest.mark.cluster)])
def test_chunks_together_are_the_file(kind: str, rows: int, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        write_jsonl(path, NASTY)
    elif kind == "parquet":
        write_parquet(path, NASTY)
    else:
        write_csv(path, NASTY, "\t" if kind == "tsv" else ",")
    assert texts_of(path, rows) == NASTY


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1), st.integers(1, 5)
)
def test_any_texts_in_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str], rows: int) -> None:
    path = write_csv(tmp_path_factory.mktemp("csv") / "rows.csv", texts)
    assert texts_of(path, rows) == texts


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_samples_of_a_tar_begin_at_any_chunk(rows: int, tmp_path: Path) -> None:
    samples = [{"txt": f"text {i}".encode(), "cls": b"1", "json": b'{"n": %d}' % i} for i in range(7)]
    path = write_tar(tmp_path / "shard.tar", samples)
    read = read_all(path, rows)
    assert [row.values["txt"] for row in read] == [f"text {i}" for i in range(7)]  # type: ignore[index]
    assert [row.values["json"] for row in read] == [{"n": i} for i in range(7)]  # type: ignore[index]
    assert len({row.key for row in read}) == 7
    assert set(read_all(path, rows, ["txt"])[0].values) == {"txt"}  # type: ignore[arg-type]


def test_a_folder_is_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "sub/a.JPG", "notes.txt", "a.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    read = read_all(tmp_path, 2)
    assert [row.key for row in read] == ["a.webp", "b.png", "sub/a.JPG"]
    assert read[1].values == {"image": b"b.png"}


def test_a_line_that_is_no_json_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": \n"just a text"\n\xff\xfe\n[1, 2]\n{"text": "b"}\n')
    read = [row.values for row in read_all(path, 2)]
    assert [type(values) for values in read] == [dict, BadRequest, dict, BadRequest, dict, dict]
    assert read[2] == {"inputs": "just a text"}
    assert read[4] == {"inputs": [1, 2]}
    assert "not valid JSON" in str(read[1])


def test_a_record_with_too_few_cells_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbftext,id\na,1\nb\n\n   \nc,3\nd\xff,4\n")
    read = [row.values for row in read_all(path, 2)]
    assert read[0] == {"text": "a", "id": "1"}
    assert isinstance(read[1], UnprocessableInput)
    assert str(read[1]) == "the row has 1 cells, and the header 2"
    assert isinstance(read[2], UnprocessableInput)  # spaces are a cell
    assert read[3] == {"text": "c", "id": "3"}
    assert read[4] == {"text": "d\udcff", "id": "4"}  # refused where it is read as a text


def test_files_that_cannot_be_read_to_their_end_are_named(tmp_path: Path) -> None:
    opened = tmp_path / "open.csv"
    opened.write_text('text\na\n"b\nc\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="a quote that is opened in row 2 is never closed"):
        read_all(opened, 2)
    cut = write_tar(tmp_path / "cut.tar", [{"txt": b"a" * 2000}, {"txt": b"b" * 2000}])
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"cut\.tar cannot be read as a tar"):
        read_all(cut, 2)


@pytest.mark.cluster
def test_a_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", ["a"])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ConfigError, match=r"rows\.parquet cannot be read as Parquet"):
        read_all(path, 1)


def test_inputs_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.jsonl"):
        (tmp_path / name).write_text("text\n", encoding="utf-8")
    found = find_files([str(tmp_path / "*.csv"), str(tmp_path / "a.csv"), str(tmp_path / "c.*")])
    assert [Path(file.path).name for file in found] == ["a.csv", "b.csv", "c.jsonl"]
    with pytest.raises(ConfigError, match="names nothing"):
        find_files([str(tmp_path / "*.parquet")])
    (tmp_path / "x.docx").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.docx is none of the files that are read"):
        find_files([str(tmp_path / "x.docx")])
