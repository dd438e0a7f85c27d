"""`anyshape report X.mar -o report.html`: an archive as one self-contained page."""

from __future__ import annotations

import argparse
from pathlib import Path

from anyshape.archive import read_packed
from anyshape.building.errors import BuildError
from anyshape.building.report_page import page

HELP = """\
Write one page about an archive, to look at or to send on: what is inside, the buckets over the
distribution that they were planned from, what a call costs, how far each bucket deviates from the
unpadded model, and the waste to expect. It loads nothing from anywhere and follows the reader's
light or dark setting.

  anyshape report model_store/minilm.mar -o report.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, metavar="X.mar")
    parser.add_argument("-o", "--output", type=Path, metavar="HTML", help="default: X.html here")


def run(args: argparse.Namespace) -> int:
    """Write the page. Returns 0; raises BuildError if the archive or the page's place is no good."""
    output = args.output or Path(args.archive.stem + ".html")
    content = page(read_packed(args.archive))
    try:
        output.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BuildError(f"cannot write {output}: {error.strerror}") from error
    print(f"written to {output}")
    return 0
