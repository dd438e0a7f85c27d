#!/usr/bin/env bash
# Build an archive: ./build_mar.sh RECIPE [--store DIR] [--model-version V]     (--help says more)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
make --silent -C "$root" venv >&2
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$root/.venv/bin/python" -m builder build "$@"
