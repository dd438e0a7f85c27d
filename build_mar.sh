#!/usr/bin/env bash
# Build an archive: ./build_mar.sh RECIPE [--store DIR] [--model-version V]     (--help says more)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
make --silent -C "$root" venv >&2
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# The store that serve.py reads, wherever this is called from; a --store of the caller's comes later and wins.
exec "$root/.venv/bin/python" -m builder build --store "$root/model_store" "$@"
