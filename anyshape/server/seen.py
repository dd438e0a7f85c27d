"""What a running server has seen: the sizes that came in, asked of its management API.

    seen = ask_seen("http://127.0.0.1:8081", "minilm", read_token(Path("run/key_file.json")))
    seen.histogram                                   # {(37,): 12, (120,): 3}
    without_earlier(seen, Path("yesterday.json"))    # without what an earlier answer held

All raise ServeError with what to do next.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Dict, List, Optional, Tuple

import msgspec
from msgspec import Meta, Struct

from anyshape.buckets import Bucket, Size, parse_buckets
from anyshape.costs import CostRow
from anyshape.server.checks import ServeError
from anyshape.server.client import Client

Sides = Annotated[Tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1, max_length=2)]


class Description(Struct):
    """What a worker says of its model, as far as it is read here; `handler.describe_handle` writes it."""

    buckets: Annotated[List[Sides], Meta(min_length=1)]
    seen: List[Tuple[Sides, Annotated[int, Meta(ge=1)]]]
    costs: Optional[List[CostRow]] = None
    seen_since: Optional[str] = None


@dataclass(frozen=True)
class Seen:
    """What a server says of a model: sizes seen, present buckets, the cost table if any, and the time since
    when it counts."""

    histogram: Dict[Size, int]
    buckets: List[Bucket]
    costs: List[CostRow]
    since: Optional[str] = None


def ask_seen(url: str, model: str, token: Optional[str]) -> Seen:
    """Ask a running server what `model` has seen; `url` is the address of its management API."""
    address = f"{url.rstrip('/')}/models/{model}"
    try:
        request = urllib.request.Request(f"{address}?customized=true")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code in (400, 401, 403):
            raise ServeError(
                f"{address} refuses the token (HTTP {error.code}): pass the management key "
                "with --token-file run/key_file.json or --token"
            ) from error
        raise ServeError(
            f"{address} answers HTTP {error.code}: check --model against the server's models"
        ) from error
    except json.JSONDecodeError as error:
        raise ServeError(f"{address} answers something else than JSON: is it TorchServe's?") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address at all
        raise ServeError(
            f"no answer from {address} ({error}): is the server running, and is this its "
            "management address (port 8081 unless configured otherwise)?"
        ) from error
    return seen_in(answer, address)


def ask_version(client: Client, model: str, version: str) -> Seen:
    """Ask what a version of a model has seen, through a client that has the server's keys."""
    status, answer = client.manage("GET", f"/models/{model}/{version}", customized="true")
    if status != 200:
        raise ServeError(f"{client.management} does not describe {model} {version} (HTTP {status})")
    return seen_in(answer, f"{client.management}/models/{model}/{version}")


def seen_in(answer: object, where: str, empty: bool = False) -> Seen:
    """Read an answer to `GET /models/NAME?customized=true`; `where` is its place, for messages.

    Raises ServeError if the model has seen nothing, unless `empty` is allowed.
    """
    try:
        described = msgspec.convert(_metadata(answer), Description)
        buckets = parse_buckets(described.buckets)
    except (TypeError, ValueError, LookupError) as error:
        raise ServeError(
            f"{where}: the model does not say what it has seen ({error}): is it an archive of ours, READY?"
        ) from error
    histogram: Counter[Size] = Counter()
    for size, count in described.seen:
        histogram[size] += count
    if not histogram and not empty:
        raise ServeError(f"{where}: the model has seen no traffic yet: send requests, then plan")
    return Seen(dict(histogram), buckets, described.costs or [], described.seen_since)


def _metadata(answer: object) -> object:
    """What the worker said, out of what TorchServe wraps it in; of several versions the first one's."""
    entry = answer[0] if isinstance(answer, list) else answer
    metadata = entry["customizedMetadata"] if isinstance(entry, dict) else None
    return json.loads(metadata) if isinstance(metadata, str) else metadata


def without_earlier(seen: Seen, path: Path) -> Seen:
    """`seen` without what was seen before `path` was saved: an earlier answer of the same server.

    Raises ServeError if the server began to count anew after it.
    """
    before = seen_in(_read_json(path), str(path), empty=True)
    left = {size: count - before.histogram.get(size, 0) for size, count in seen.histogram.items()}
    lost = before.histogram.keys() - left.keys() or any(count < 0 for count in left.values())
    if lost or before.since != seen.since:
        raise ServeError(
            f"the server counts anew since {seen.since}, after {path} was saved: plan without --since"
        )
    histogram = {size: count for size, count in left.items() if count}
    if not histogram:
        raise ServeError(f"the model has seen nothing since {path} was saved: send requests, then plan")
    return replace(seen, histogram=histogram)


def read_token(key_file: Path) -> str:
    """The management token out of the key file that TorchServe writes."""
    try:
        return str(_read_json(key_file)["management"]["key"])  # type: ignore[index]
    except (KeyError, TypeError) as error:
        raise ServeError(f'{key_file} holds no {{"management": {{"key": ...}}}}') from error


def _read_json(path: Path) -> object:
    try:
        found: object = json.loads(path.read_bytes())
        return found
    except OSError as error:
        raise ServeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ServeError(f"{path} is not valid JSON: {error}") from error
