"""The command `anyshape`: one file per command, imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Dict, List, Optional

from anyshape import __version__
from anyshape.errors import ConfigError

# A command's module has the same name; it offers HELP (the help text) and two functions:
# add_arguments(parser) and run(args) -> exit code.
COMMANDS: Dict[str, str] = {
    "build": "turn a model and a recipe into one .mar",
    "serve": "start TorchServe with archives of the model store",
    "front": "stand before a running TorchServe: tokens, TLS, bounds, true errors",
    "top": "watch a running server in the terminal",
    "swap": "put a new version in the place of the one that serves, proved first",
    "tune": "plan buckets from a server's traffic, build them, swap them in",
    "keys": "renew the keys of a running server",
    "demo": "send inputs of many sizes to a running server",
    "capacity": "the cores that a rate of requests needs",
    "score": "answer files of inputs, here or on a Ray cluster",
    "plan": "choose buckets from data or from a server's traffic",
    "inspect": "print what is inside a .mar",
    "neuron": "try everything on an Inferentia or Trainium instance",
    "report": "write what is inside a .mar as a page",
}


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line. The exit code: 0 done, 1 refused with one line on stderr, 2 wrong usage."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    parsed = sys.argv[1:] if arguments is None else arguments
    try:
        args = _parser(parsed).parse_args(parsed)
        return int(args.run(args))
    except BrokenPipeError:
        os.close(sys.stdout.fileno())
        return 0
    except (ConfigError, OSError) as error:
        print("error:", *str(error).split(), file=sys.stderr)  # one line, whatever a library says
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(arguments: List[str]) -> argparse.ArgumentParser:
    """The parser of the command that is asked for; of all commands where none is."""
    parser = argparse.ArgumentParser(
        prog="anyshape",
        description="Fixed-shape compiled models that take inputs of any shape: build an archive, serve it.",
        epilog="`anyshape COMMAND --help` explains each command with examples.",
    )
    parser.add_argument("--version", action="version", version=f"anyshape {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name, summary in COMMANDS.items():
        # The others are listed without being imported: torch alone takes a second.
        module = importlib.import_module(f"anyshape.cli.{name}") if name == asked else None
        command = commands.add_parser(
            name,
            help=summary,
            description=module.HELP if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
