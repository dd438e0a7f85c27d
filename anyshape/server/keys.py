"""Renews the keys of a running TorchServe, which end after token_expiration_min minutes.

    renew(client, "inference")
    keep_renewed(client, ["inference", "management"], early=300)    # until it is stopped

TorchServe ends the old key a moment before it writes the new one to its key file: there is no overlap. Who
reads the file again where a key is refused, for as long as that takes, loses nothing but those tries.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Callable, Dict, Optional, Sequence

from anyshape.server.checks import ServeError
from anyshape.server.client import Client, said

KINDS = ("inference", "management")
AGAIN = 15.0  # seconds at least from one renewal to the next, also of one that failed
LOOK = 15.0  # seconds between two looks at the clock: keys end by it, also where it is set while this waits


def renew(client: Client, kind: str) -> None:
    """Have the server make a new key, which it writes to its key file. Raises ServeError."""
    old = client.key(kind)
    status, answer = client.renew(kind)
    if status != 200:
        raise ServeError(f"{client.management} does not renew the {kind} key (HTTP {status}: {said(answer)})")
    if client.key(kind) == old:
        raise ServeError(
            f"{client.management} says that it renewed the {kind} key, and {client.key_file} holds the old: "
            "is it this server's key file?"
        )


def expiry(client: Client, kind: str) -> Optional[float]:
    """When a key ends, in seconds since 1970; None for one that does not."""
    if client.key_file is None:
        raise ServeError("keys are off: there is none to renew")
    text = client.entry(kind).get("expiration time")
    return _moment(str(text)) if text else None


def _moment(text: str) -> float:
    """TorchServe writes 2026-11-28T21:05:09.123456789Z: nanoseconds."""
    whole, _, rest = text.rstrip("Z").partition(".")
    try:
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")
    except ValueError:
        raise ServeError(f"the key file's expiration time {text!r} cannot be read") from None


def keep_renewed(
    client: Client,
    kinds: Sequence[str],
    early: float,
    tell: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.time,
) -> None:
    """Renew each key `early` seconds before it ends (or half its time, where that is less), for ever."""
    due = {kind: now() + _left(client, kind, early, now) for kind in kinds}
    while True:
        kind = min(due, key=lambda each: due[each])
        left = due[kind] - now()
        if left > 0:
            sleep(min(left, LOOK))
            continue
        try:
            renew(client, kind)
            tell(f"renewed the {kind} key")
            due[kind] = now() + max(AGAIN, _left(client, kind, early, now))
        except ServeError as error:
            tell(f"error: {error}")
            due[kind] = now() + AGAIN


def _left(client: Client, kind: str, early: float, now: Callable[[], float]) -> float:
    """Seconds until a key is to be renewed."""
    ends = expiry(client, kind)
    if ends is None:
        raise ServeError(f"the {kind} key never ends: there is nothing to renew")
    left = ends - now()
    return left - min(early, left / 2)


def shown(client: Client) -> Dict[str, str]:
    """Each key's end, for people; never a key itself."""
    found = {}
    for kind in (*KINDS, "API"):
        ends = expiry(client, kind)
        minutes = None if ends is None else (ends - time.time()) / 60
        found[kind] = (
            "never" if minutes is None else "expired" if minutes < 0 else f"in {minutes:.0f} minutes"
        )
    return found
