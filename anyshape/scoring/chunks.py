"""A chunk: so many rows of one file, and where they begin in it."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Tuple, Union

from msgspec import Struct

from anyshape.errors import Refused


class Chunk(Struct, frozen=True):
    """file: which of the job's files, by its number, and path. kind: how it is read (`sources.KINDS`).
    number: which chunk of the file. first: its first row's number in the file.
    begin: where that row is, in the source's own terms. rows: how many rows it has."""

    file: int
    path: str
    kind: str
    number: int
    first: int
    begin: Union[int, List[str]]
    rows: int

    @property
    def part(self) -> str:
        """The file in the output folder that holds its answers."""
        return f"part-{self.file:05}-{self.number:06}.parquet"


class Row(NamedTuple):
    """What stands in one row of a file.

    key: its name, where it has one: a picture's path, a sample's key. values: its columns, or why they cannot
    be read.
    """

    key: Union[str, None]
    values: Union[Dict[str, Any], Refused]


Begin = Tuple[Union[int, List[str]], int]  # where a chunk begins, and how many rows it has
