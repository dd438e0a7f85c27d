"""`anyshape score`: answers to files of inputs, here or on a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anyshape.errors import ConfigError, Refused

HELP = """\
Answer files of inputs with an archive: no server, every row once, errors as rows of the output.
Rows are read in chunks, sorted and packed together; each chunk becomes one Parquet file of --output.
A run that was stopped goes on where it stopped: give the same command again.

  anyshape score --archive model_store/minilm.mar --input 'texts/*.parquet' --output out/
  anyshape score --archive X.mar --input reviews.csv --column review --keep id --output out/
  anyshape score --archive mobilenet.mar --input pictures/ --output out/
  anyshape score --archive X.mar --input 'shards/*.tar' --output out/ --actors 8 --address ray://head:10001

Reads Parquet, JSON lines, CSV, folders of pictures, and WebDataset's tars. Needs the extra `score`; with
--actors or --address the extra `ray`, and files that every node sees at the same path.
"""
USUAL = ("text", "inputs", "image", "jpg", "jpeg", "png", "webp", "txt")  # columns that are taken unasked
TEXT_ROWS, FILE_ROWS = 1024, 64  # of a chunk: pictures are large once they are decoded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--archive", type=Path, required=True, metavar="X.mar")
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="PATTERN",
        help="files, or a folder of pictures; again and again for several",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder for the answers")
    parser.add_argument("--column", help=f"what holds the input (default: {', '.join(USUAL[:3])}, …)")
    parser.add_argument("--pair", metavar="COLUMN", help="what holds the second text of a pair")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN", help="repeat it in the output"
    )
    parser.add_argument("--parameters", type=_mapping, default={}, metavar="JSON", help="as in a request")
    parser.add_argument(
        "--rows", type=_count, metavar="N", help=f"of a chunk ({TEXT_ROWS}; of files {FILE_ROWS})"
    )
    parser.add_argument("--cores", type=_count, metavar="N", help="threads of a call (all; 1 for each actor)")
    parser.add_argument("--actors", type=_count, metavar="N", help="processes that score, by Ray Data")
    parser.add_argument("--address", metavar="URL", help="a Ray cluster (default: Ray on this machine)")
    parser.add_argument(
        "--resource",
        type=_resource,
        action="append",
        default=[],
        metavar="NAME=N",
        help="what each actor holds besides cores, such as neuron_cores=1",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Score what is left. Returns 0; errors of rows are rows, not failures."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError("scoring writes Parquet: pip install 'anyshape[score]'") from None
    from anyshape.scoring.job import Job, digest, find_files

    files = find_files(args.input)
    column, rows = _column(args, files)
    job = Job(
        archive=str(args.archive.absolute()),
        archive_sha256=digest(args.archive),
        files=files,
        output=str(args.output.absolute()),
        column=column,
        pair=args.pair,
        keep=args.keep,
        parameters=args.parameters,
        rows=rows,
    )
    chunks = job.chunks()
    job.open_folder()
    left = job.left(chunks)
    total, waiting = sum(c.rows for c in chunks), sum(c.rows for c in left)
    started, errors = time.perf_counter(), 0
    try:
        # What Ray says of a node that died, it says on stdout.
        with contextlib.redirect_stdout(sys.stderr), _bar() as bar:
            scored = bar.add_task("scored", total=total, completed=total - waiting, errors=0)
            for done, bad in _steps(args, job, left):
                errors += bad
                bar.update(scored, advance=done, errors=errors)
    except Refused as error:
        raise ConfigError(f"--parameters: {error}") from None
    seconds = time.perf_counter() - started
    summary = {
        "rows": total,
        "scored": waiting,
        "errors": errors,
        "seconds": round(seconds, 3),
        "output": str(args.output),
    }
    if args.json:
        print(json.dumps(summary))
    else:
        before = f", {total - waiting} of them before" if total > waiting else ""
        print(
            f"{args.output}: {total} rows{before}; {errors} of the {waiting} scored now are errors "
            f"(column status); {waiting / seconds:.0f} rows a second with the start"
        )
    return 0


def _steps(args: argparse.Namespace, job: Any, left: List[Any]) -> Iterator[Tuple[int, int]]:
    if not left:
        return iter(())
    if args.actors is None and args.address is None:
        from anyshape.scoring.local import score_here

        return score_here(job, left, args.cores)
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ConfigError("--actors and --address need Ray: pip install 'anyshape[ray]'") from None
    from anyshape.scoring.cluster import score_on_cluster

    resources = dict(args.resource)
    return score_on_cluster(job, left, args.address, args.actors or 1, args.cores or 1, resources)


def _column(args: argparse.Namespace, files: List[Any]) -> Tuple[str, int]:
    """The column of the input and the rows of a chunk, by what the first file with a row holds.

    Raises ConfigError if the column is not there, or none is asked for and several might be meant.
    """
    from anyshape.scoring.job import chunks_of
    from anyshape.scoring.sources import columns_of

    found: Dict[str, Any] = {}
    for number, file in enumerate(files):
        first = next(iter(chunks_of(file, number, 20)), None)
        found = columns_of(first) if first else {}
        if found:
            break
    if not found:
        raise ConfigError(f"--input {' '.join(args.input)} holds no row that can be read")
    names = ", ".join(sorted(found))
    for name in (args.column, args.pair, *args.keep):
        if name is not None and name not in found:
            raise ConfigError(f"the input has no column {name!r}; it has {names}")
    column = args.column
    if column is None:
        usual = [name for name in (*USUAL, *found) if name in found]
        if usual[0] not in USUAL and len(found) > 1:
            raise ConfigError(f"which column holds the input? Say --column, one of {names}")
        column = usual[0]
    value = found[column]
    is_file = isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)
    return column, args.rows or (FILE_ROWS if is_file else TEXT_ROWS)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[errors]} errors"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a positive whole number, not {text!r}")
    return int(text)


def _mapping(text: str) -> Dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'a JSON object such as {{"top_k": 1}}, not {text!r}')
    return value


def _resource(text: str) -> Tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        value: Optional[float] = float(amount)
    except ValueError:
        value = None
    if not name or not value or value < 0:
        raise argparse.ArgumentTypeError(f"a resource such as neuron_cores=1, not {text!r}")
    return name, value
