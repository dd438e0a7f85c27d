"""`anyshape keys`: when the keys of a running server end, and new ones."""

from __future__ import annotations

import argparse

from anyshape.cli.client import add_server_arguments, client_of
from anyshape.server.checks import ServeError
from anyshape.server.keys import KINDS, keep_renewed, renew, shown

HELP = """\
Say when the keys of a running server end, or renew them. TorchServe writes the new key to its key file and
ends the old one at once: clients read the file again when a key is refused. The API key, in the same file,
is what renews them.

  anyshape keys show
  anyshape keys renew                       both keys, now
  anyshape keys renew inference             one of them
  anyshape keys renew --keep --early 300    again and again, 5 minutes before each ends, until it is stopped
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("show", "renew"), help="show never prints a key")
    parser.add_argument(
        "kinds", nargs="*", metavar="KEY", help=f"of {', '.join(KINDS)} (default: both)", default=[]
    )
    add_server_arguments(parser)
    parser.add_argument("--keep", action="store_true", help="stay, and renew each key before it ends")
    parser.add_argument(
        "--early", type=float, default=300.0, metavar="SECONDS", help="how long before (default: 300)"
    )


def run(args: argparse.Namespace) -> int:
    client = client_of(args)
    unknown = [kind for kind in args.kinds if kind not in KINDS]
    if unknown:
        raise ServeError(f"there is no key {unknown[0]} to renew: name {' or '.join(KINDS)}")
    kinds = args.kinds or list(KINDS)
    if args.what == "show":
        for kind, ends in shown(client).items():
            print(f"{kind:<11} ends {ends}")
    elif args.keep:
        keep_renewed(client, kinds, args.early, tell=lambda line: print(line, flush=True))
    else:
        for kind in kinds:
            renew(client, kind)
            print(f"renewed the {kind} key: it is in {client.key_file}")
    return 0
