"""`python -m anyshape.kserve`: KServe's options, and `--cores`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import kserve
from kserve import model_server

from anyshape.errors import ConfigError
from anyshape.kserve import Runtime, find_archive


def main() -> int:
    parser = argparse.ArgumentParser(parents=[model_server.parser], description=__doc__)
    parser.add_argument("--model_dir", type=Path, default=Path("/mnt/models"), help="where the archive is")
    parser.add_argument("--cores", type=int, help="threads of a call (all)")
    given, _ = parser.parse_known_args()
    try:
        runtime = Runtime(given.model_name, find_archive(given.model_dir), given.cores)
        runtime.load()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    kserve.ModelServer(enable_grpc=False, enable_docs_url=False).start([runtime])
    return 0


if __name__ == "__main__":
    sys.exit(main())
