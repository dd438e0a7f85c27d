"""What rows can be read from: one small class per kind of file.

A source says where each chunk of a file begins (`begins`, once, without reading values where that can be
avoided) and reads the rows of one chunk (`rows`, anywhere, any number of times).
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from anyshape.errors import BadRequest, ConfigError, UnprocessableInput
from anyshape.scoring.chunks import Begin, Chunk, Row

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Source:
    """One kind of file. suffixes: how such files are called."""

    suffixes: ClassVar[Tuple[str, ...]] = ()

    @staticmethod
    def begins(path: Path, rows: int) -> Iterator[Begin]:
        """Where the chunks of a file begin, each of at most so many rows. Raises ConfigError for a file that
        cannot be read to its end."""
        raise NotImplementedError

    @staticmethod
    def rows(chunk: Chunk, columns: Optional[Sequence[str]] = None) -> Iterator[Row]:
        """The rows of a chunk. `columns`: those that are asked for; others may be left out."""
        raise NotImplementedError


class Parquet(Source):
    """A row is a row; its number is where it begins."""

    suffixes = (".parquet", ".pq")

    @staticmethod
    def begins(path: Path, rows: int) -> Iterator[Begin]:
        with _parquet(path) as file:
            total = file.metadata.num_rows
        for start in range(0, total, rows):
            yield start, min(rows, total - start)

    @staticmethod
    def rows(chunk: Chunk, columns: Optional[Sequence[str]] = None) -> Iterator[Row]:
        with _parquet(Path(chunk.path)) as file:
            groups, before = [], 0  # those that hold the chunk, and the rows before them
            end = 0
            for number in range(file.metadata.num_row_groups):
                start, end = end, end + file.metadata.row_group(number).num_rows
                if end <= chunk.first:
                    before = end
                elif start < chunk.first + chunk.rows:
                    groups.append(number)
            there = set(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in columns if name in there]
            table = file.read_row_groups(groups, columns=wanted)
        for values in table.slice(chunk.first - before, chunk.rows).to_pylist():
            yield Row(None, values)


class JsonLines(Source):
    """A row is a line that is not empty; a chunk begins at a byte."""

    suffixes = (".jsonl", ".ndjson")

    @staticmethod
    def begins(path: Path, rows: int) -> Iterator[Begin]:
        with path.open("rb") as file:
            yield from _grouped(((at, line) for at, line in _lines(file) if line.strip()), rows)

    @staticmethod
    def rows(chunk: Chunk, columns: Optional[Sequence[str]] = None) -> Iterator[Row]:
        with open(chunk.path, "rb") as file:
            file.seek(_at(chunk))
            for line in islice((line for line in file if line.strip()), chunk.rows):
                yield Row(None, _decoded(line))


class Csv(Source):
    """A row is what RFC 4180 calls a record, after the header; a chunk begins at a byte."""

    suffixes = (".csv", ".tsv")

    @staticmethod
    def begins(path: Path, rows: int) -> Iterator[Begin]:
        with path.open("rb") as file:
            records = _records(file, path)
            if next(records, None) is None:
                return
            yield from _grouped(((at, line) for at, line in records if line.strip(b"\r\n")), rows)

    @staticmethod
    def rows(chunk: Chunk, columns: Optional[Sequence[str]] = None) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        delimiter = "\t" if chunk.path.lower().endswith(".tsv") else ","
        # What is no UTF-8 becomes half surrogates, which are refused row by row as everywhere.
        with open(chunk.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header = next(csv.reader(file, delimiter=delimiter))
        with open(chunk.path, "rb") as raw:
            raw.seek(_at(chunk))
            text = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
            for cells in islice((c for c in csv.reader(text, delimiter=delimiter) if c), chunk.rows):
                if len(cells) != len(header):
                    refused = UnprocessableInput(
                        f"the row has {len(cells)} cells, and the header {len(header)}"
                    )
                    yield Row(None, refused)
                else:
                    yield Row(None, dict(zip(header, cells)))


class Folder(Source):
    """A folder of pictures, those in its folders too: a row is a file, a chunk a list of names."""

    @staticmethod
    def begins(path: Path, rows: int) -> Iterator[Begin]:
        found = (file for file in path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
        names = sorted(str(file.relative_to(path)) for file in found)
        for start in range(0, len(names), rows):
            part = names[start : start + rows]
            yield part, len(part)

    @staticmethod
    def rows(chunk: Chunk, columns: Optional[Sequence[str]] = None) -> Iterator[Row]:
        assert isinstance(chunk.begin, list)
        for name in chunk.begin:
            try:
                yield Row(name, {"image": (Path(chunk.path) / name).read_bytes()})
            except OSError as error:
                yield Row(name, BadRequest(f"the file cannot be read: {error.strerror or error}"))


class WebDataset(Source):
    """A tar of samples: files that stand together and have one name up to its first dot.

    A row is a sample, its columns are what stands behind that dot. A chunk begins at a byte.
    """

    suffixes = (".tar",)

    @staticmethod
    def begins(path: Path, rows: int) -> Iterator[Begin]:
        try:
            with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                yield from _grouped(((group[0][1].offset, group) for group in _samples(tar)), rows)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0") or file.tell() < tar.offset + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("it has no end")  # tarfile takes that for one
        except tarfile.TarError as error:
            raise ConfigError(
                f"{path} cannot be read as a tar ({error}): pack it again, uncompressed"
            ) from None

    @staticmethod
    def rows(chunk: Chunk, columns: Optional[Sequence[str]] = None) -> Iterator[Row]:
        with open(chunk.path, "rb") as file:
            file.seek(_at(chunk))
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for group in islice(_samples(tar), chunk.rows):
                    values = {}
                    for name, member in group:
                        if columns is None or name in columns:
                            opened = tar.extractfile(member)
                            assert opened is not None
                            values[name] = _member(name, opened.read())
                    yield Row(_key(group[0][1].name)[0], values)


KINDS: Mapping[str, Type[Source]] = {
    "parquet": Parquet,
    "jsonl": JsonLines,
    "csv": Csv,
    "folder": Folder,
    "webdataset": WebDataset,
}


def kind_of(path: Path) -> str:
    """Which kind of source a file or a folder is. Raises ConfigError, which lists what there is."""
    if path.is_dir():
        return "folder"
    for name, kind in KINDS.items():
        if path.name.lower().endswith(kind.suffixes):
            return name
    known = " ".join(suffix for kind in KINDS.values() for suffix in kind.suffixes)
    raise ConfigError(f"{path} is none of the files that are read ({known}, or a folder of pictures)")


def _at(chunk: Chunk) -> int:
    assert isinstance(chunk.begin, int)
    return chunk.begin


def _grouped(places: Iterable[Tuple[int, Any]], rows: int) -> Iterator[Begin]:
    """Every so-many-th place, with how many rows follow until the next."""
    begin, count = 0, 0
    for at, _ in places:
        if count == rows:
            yield begin, count
            count = 0
        if not count:
            begin = at
        count += 1
    if count:
        yield begin, count


def _lines(file: Any) -> Iterator[Tuple[int, bytes]]:
    """Every line, with the byte that it begins at."""
    at = 0
    for line in file:
        yield at, line
        at += len(line)


def _records(file: Any, path: Path) -> Iterator[Tuple[int, bytes]]:
    """Every record of a CSV file, with the byte that it begins at: a line break within quotes ends none.

    The last piece stands for a record of several lines.
    """
    begin, open_quote, row = 0, False, 0
    for at, line in _lines(file):
        if not open_quote:
            begin = at
        open_quote ^= bool(line.count(b'"') % 2)
        if not open_quote:
            row += 1
            yield begin, line
    if open_quote:
        raise ConfigError(f"{path}: a quote that is opened in row {row} is never closed: mend the file")


def _parquet(path: Path) -> Any:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except ArrowInvalid as error:
        raise ConfigError(f"{path} cannot be read as Parquet ({error}): write it again") from None


def _decoded(line: bytes) -> Any:
    """A line's columns; a value that is no object is its one column."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else error
        return BadRequest(f"the line is not valid JSON: {detail}")
    return value if isinstance(value, dict) else {"inputs": value}


def _key(name: str) -> Tuple[str, str]:
    """`train/0001.seg.png` is the sample `train/0001`, and in it `seg.png`."""
    folder, slash, base = name.rpartition("/")
    stem, _, column = base.partition(".")
    return folder + slash + stem, column


def _samples(tar: tarfile.TarFile) -> Iterator[List[Tuple[str, tarfile.TarInfo]]]:
    """The files of each sample, as (column, file)."""
    group: List[Tuple[str, tarfile.TarInfo]] = []
    last = None
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
        if not member.isfile():
            continue
        key, column = _key(member.name)
        if group and key != last:
            yield group
            group = []
        last = key
        group.append((column, member))
    if group:
        yield group


def _member(column: str, content: bytes) -> Any:
    """What a file of a sample holds: a text, JSON, or bytes."""
    if column.endswith("json"):
        return _decoded(content) if content else None
    if column.endswith("txt"):
        return content.decode("utf-8", "surrogateescape")
    return content


def columns_of(chunk: Chunk, rows: int = 20) -> Dict[str, Any]:
    """The columns of a chunk's first rows that can be read, each with a value that is not empty."""
    found: Dict[str, Any] = {}
    for row in islice(KINDS[chunk.kind].rows(chunk), rows):
        if isinstance(row.values, dict):
            for name, value in row.values.items():
                if found.get(name) is None:
                    found[name] = value
    return found
