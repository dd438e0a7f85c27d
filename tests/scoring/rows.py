"""Rows of every kind of file, the same texts in each."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyshape.scoring.chunks import Row
from anyshape.scoring.job import chunks_of, find_files
from anyshape.scoring.sources import KINDS

NASTY = ["plain", 'a "quoted", text', "two\nlines", "", "naïve 漢字 🙂", " spaces ", 'ends in "', "a,b\r\nc"]


def write_jsonl(path: Path, texts: Sequence[Any]) -> Path:
    lines = [json.dumps({"text": text, "id": i}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
    path.write_text("\n\n".join(lines), encoding="utf-8")  # empty lines are no rows
    return path


def write_csv(path: Path, texts: Sequence[str], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))
    return path


def write_parquet(path: Path, texts: Sequence[Any], group: int = 3) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"text": pa.array(texts, pa.string()), "id": range(len(texts))})
    parquet.write_table(table, path, row_group_size=group)
    return path


def write_tar(path: Path, samples: Sequence[dict[str, bytes]]) -> Path:
    """Samples of files; long names take headers of their own, which a chunk must begin with."""
    with tarfile.open(path, "w") as tar:
        for i, sample in enumerate(samples):
            for column, content in sample.items():
                member = tarfile.TarInfo(f"{'deep/' * (i % 3) * 12}{'n' * (i % 2) * 120}{i:04}.{column}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def read_all(path: Path, rows: int, columns: Sequence[str] | None = None) -> list[Row]:
    """Every row of a file, read in chunks of so many, the last chunk first."""
    (file,) = find_files([str(path)])
    chunks = chunks_of(file, 0, rows)
    assert [chunk.first for chunk in chunks] == list(range(0, sum(c.rows for c in chunks), rows))
    read = [list(KINDS[chunk.kind].rows(chunk, columns)) for chunk in reversed(chunks)]
    assert [len(part) for part in reversed(read)] == [chunk.rows for chunk in chunks]
    return [row for part in reversed(read) for row in part]
