"""The arguments of every command that asks a running server, or says which archives may be served."""

from __future__ import annotations

import argparse
from pathlib import Path

from anyshape.server.client import KEY_FILE, MANAGEMENT, Client
from anyshape.server.trust import Trust


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the server")
    group.add_argument(
        "--server", default=MANAGEMENT, metavar="URL", help=f"its management address (default: {MANAGEMENT})"
    )
    group.add_argument("--inference", default="", metavar="URL", help="default: the port before --server's")
    group.add_argument("--metrics", default="", metavar="URL", help="default: the port behind --server's")
    group.add_argument(
        "--key-file", type=Path, default=KEY_FILE, metavar="FILE", help=f"its keys (default: {KEY_FILE})"
    )
    group.add_argument("--no-keys", action="store_true", help="the server runs without keys")


def client_of(args: argparse.Namespace) -> Client:
    key_file = None if args.no_keys else args.key_file
    return Client(args.server, key_file, args.inference, args.metrics)


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sums",
        type=Path,
        metavar="FILE",
        help="serve only archives whose SHA-256 this file says, as sha256sum writes it",
    )
    parser.add_argument(
        "--signers",
        type=Path,
        metavar="FILE",
        help="serve only archives signed by one of OpenSSH's allowed signers (X.mar.sig, namespace anyshape)",
    )


def trusts_of(args: argparse.Namespace) -> list[Trust]:
    """What an archive must show before it is registered: what the server was told to ask for when it was
    started, and what is asked for here. Raises ServeError."""
    servers = Trust() if args.no_keys else Trust.of_server(args.key_file.parent)
    return [trust for trust in (servers, Trust(args.sums, args.signers)) if trust]
