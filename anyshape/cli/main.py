"""The command line of the builder: `anyshape build | inspect | plan | report`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import List, Optional

from anyshape.building import build_command, inspect_command, plan_command, report_command
from anyshape.building.errors import BuildError
from anyshape.building.planning.errors import PlanError
from anyshape.errors import ConfigError

COMMANDS = (build_command, inspect_command, plan_command, report_command)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="anyshape",
        description="Build and look into archives of bucketed models for TorchServe.",
        epilog="`anyshape COMMAND --help` explains each command with examples.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    args = parser.parse_args(arguments)
    try:
        return int(args.run(args))
    except BrokenPipeError:
        os.close(sys.stdout.fileno())
        return 0
    except (BuildError, ConfigError, PlanError, OSError) as error:
        print("error:", *str(error).split(), file=sys.stderr)  # one line, whatever the library says
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
