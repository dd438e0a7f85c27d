#!/usr/bin/env bash
# ./build_mar.sh RECIPE [--store DIR] [--model-version V]: the front of `anyshape build`, which says more with --help.
# In an active environment that has anyshape, that one builds; else the project's own .venv, which is made where needed.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ -z "${VIRTUAL_ENV:-}" ] || ! command -v anyshape >/dev/null; then
    make --silent -C "$root" venv >&2
    PATH="$root/.venv/bin:$PATH"
fi
exec anyshape build --store "$root/model_store" "$@"
