"""The arguments of every command that asks a running server."""

from __future__ import annotations

import argparse
from pathlib import Path

from anyshape.server.client import KEY_FILE, MANAGEMENT, Client


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
