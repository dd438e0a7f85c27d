"""`anyshape swap X.mar`: a new version in the place of the one that serves."""

from __future__ import annotations

import argparse
from pathlib import Path

from anyshape.cli.client import add_server_arguments, add_trust_arguments, client_of, trusts_of
from anyshape.server.swap import swap

HELP = """\
Put a new version of a model in the place of the one that a running server serves, without losing a request:
register it, wait until it is READY, ask it the sample requests that the archive holds and compare their
answers with those of the build, make it the default, let the old one finish, unregister it.

Whatever goes wrong before the new one is the default removes it again; the old one serves on, and the error
says why. Both are in memory for a while. The server needs its model API (anyshape serve --enable-model-api),
and the archive another version than the one that is served.

An archive that `anyshape serve --sums` or `--signers` would refuse is not registered: what the server was
started with counts here, and --sums and --signers beside it.

  anyshape build recipes/minilm.yaml --store /tmp/new --model-version 2.0
  anyshape swap /tmp/new/minilm.mar --server http://127.0.0.1:8081

Afterwards the store has the new archive as minilm.mar and the old one as minilm-1.0.mar: to go back, swap
that.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, metavar="X.mar", help="the archive of the new version")
    add_server_arguments(parser)
    add_swap_arguments(parser)


def add_swap_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("model_store"),
        help="the server's model store (default: model_store)",
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long the old version may take to finish (default: 60)",
    )
    parser.add_argument(
        "--unproved", action="store_true", help="also an archive that holds no sample requests"
    )
    add_trust_arguments(parser)


def run(args: argparse.Namespace) -> int:
    swap(
        client_of(args),
        args.archive,
        store=args.store,
        tell=lambda line: print(line, flush=True),
        drain_seconds=args.drain,
        unproved=args.unproved,
        trusts=trusts_of(args),
    )
    return 0
