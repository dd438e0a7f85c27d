"""A job: which files, with which archive, asked for what, into which folder; and what of it is done.

    job.open_folder()
    for chunk in job.left(job.chunks()):
        ...

The output folder says in `_job.json` what it holds the answers to, so that another run goes on with it or
refuses; a chunk is done when its part is there.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any, Dict, List, Optional

import msgspec
from msgspec import Struct, field

from anyshape.archive import sha256
from anyshape.errors import ConfigError
from anyshape.scoring.chunks import Chunk
from anyshape.scoring.sources import KINDS, kind_of

JOB = "_job.json"


class File(Struct, frozen=True):
    """One of the job's files. size: its bytes, or how many pictures a folder has."""

    path: str
    kind: str
    size: int


class Job(Struct, kw_only=True):
    """What is asked for.

    archive: its path, and `archive_sha256`. files: what is read. column: what holds the input, and `pair` the
    second text. keep: columns that the output repeats. parameters: as those of a request. rows: of a chunk.
    """

    archive: str
    archive_sha256: str
    files: List[File]
    output: str
    column: str
    rows: int
    pair: Optional[str] = None
    keep: List[str] = field(default_factory=list)
    parameters: Dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return Path(self.output)

    @property
    def columns(self) -> List[str]:
        """Every column that is read."""
        return list(dict.fromkeys([self.column, *([self.pair] if self.pair else []), *self.keep]))

    def chunks(self) -> List[Chunk]:
        """All chunks of all files, in order. Raises ConfigError for a file that cannot be read to its end."""
        return [
            chunk for number, file in enumerate(self.files) for chunk in chunks_of(file, number, self.rows)
        ]

    def left(self, chunks: List[Chunk]) -> List[Chunk]:
        """Those of `chunks` whose part is not in the output folder yet."""
        there = {path.name for path in self.folder.glob("part-*.parquet")}
        return [chunk for chunk in chunks if chunk.part not in there]

    def open_folder(self) -> None:
        """Make the output folder, or find that this very job was begun in it.

        Raises ConfigError if it holds something else.
        """
        path = self.folder / JOB
        if path.is_file():
            earlier = msgspec.json.decode(path.read_bytes(), type=Job)
            for name in ("archive_sha256", "files", "column", "pair", "keep", "parameters", "rows"):
                if getattr(earlier, name) != getattr(self, name):
                    raise ConfigError(
                        f"{self.output} holds the answers of another job (another {_said(name)}): choose "
                        f"another --output, or remove it"
                    )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise ConfigError(f"{self.output} is not empty and holds no {JOB}: choose another --output")
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)))


def find_files(patterns: List[str]) -> List[File]:
    """What the patterns of --input name, each once. Raises ConfigError if one names nothing."""
    found: Dict[str, File] = {}
    for pattern in patterns:
        paths = sorted(glob.glob(pattern, recursive=True))
        if not paths:
            raise ConfigError(f"--input {pattern} names nothing: is the path right, and in quotes?")
        for name in paths:
            path = Path(name).absolute()
            if path.is_dir() and not Path(pattern).is_dir():
                continue  # a pattern means files; a folder is named outright
            kind = kind_of(path)
            size = len(list(path.rglob("*"))) if path.is_dir() else path.stat().st_size
            found[str(path)] = File(str(path), kind, size)
    if not found:
        raise ConfigError(f"--input {' '.join(patterns)} names no file that is read")
    return list(found.values())


def chunks_of(file: File, number: int, rows: int) -> List[Chunk]:
    """The chunks of one file; `number` is its own."""
    chunks, first = [], 0
    for place, (begin, count) in enumerate(KINDS[file.kind].begins(Path(file.path), rows)):
        chunks.append(Chunk(number, file.path, file.kind, place, first, begin, count))
        first += count
    return chunks


def digest(archive: Path) -> str:
    """What tells one archive from another: the file's hash, or that of an unpacked one's index."""
    path = archive / "buckets.json" if archive.is_dir() else archive
    if not path.is_file():
        raise ConfigError(f"{archive} is not there: build it with `anyshape build`")
    return sha256(path)


def _said(name: str) -> str:
    return {"archive_sha256": "archive", "files": "input, or one that changed"}.get(name, f"--{name}")
