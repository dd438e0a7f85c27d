"""Exits with 0 when every model's workers are READY, else with 1 and why: a container's probe.

TorchServe's /ping says Healthy while a model still loads, so the management API is asked, within the pod.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any


def main(address: str = "http://127.0.0.1:8081") -> str:
    """Why the server is not ready; empty if it is."""
    try:
        names = [model["modelName"] for model in _get(f"{address}/models")["models"]]
        if not names:
            return "no model is registered"
        for name in names:
            for version in _get(f"{address}/models/{name}/all"):
                states = [worker["status"] for worker in version["workers"]]
                if not states or set(states) != {"READY"}:
                    return f"{name}: {', '.join(states) or 'no worker'}"
    except (OSError, ValueError, KeyError) as error:
        return f"{address}: {error}"
    return ""


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=4) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
