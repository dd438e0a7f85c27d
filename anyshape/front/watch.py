"""What the front knows of TorchServe: which models are READY, and keys that are valid."""

from __future__ import annotations

import asyncio
import calendar
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple
from urllib.parse import urlsplit

import orjson

from anyshape.front.errors import NotReady
from anyshape.front.upstream import Answer, HungUp, Upstream, UpstreamConnection

ASK_SECONDS = 5.0
KEY_SECONDS = 1.0  # that TorchServe may take to write a new key where it is read
RENEW_SECONDS = 300.0  # before a key ends
USUAL_LOAD = 10.0  # seconds: what is guessed while no load was seen


def ends(written: Any) -> float:
    """When a key ends, as seconds since the epoch, from "2026-01-31T10:00:00.123456Z"; infinity for never."""
    try:
        return calendar.timegm(time.strptime(str(written)[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return float("inf")


@dataclass
class Version:
    """One version of a model, as the management API describes it."""

    number: str
    workers: int = 0
    ready: int = 0
    response_seconds: float = 120.0
    queue: int = 100  # requests that may wait in TorchServe
    held: Set[UpstreamConnection] = field(default_factory=set)  # requests in TorchServe's hands
    lost: float = 0.0  # when its last READY worker went; 0 while there is one
    load_seconds: float = USUAL_LOAD  # how long it last took to be READY again


@dataclass
class Model:
    """A registered model; `default` is the number of the version that is asked without one."""

    name: str
    default: str = ""
    versions: Dict[str, Version] = field(default_factory=dict)

    def version(self, number: Optional[str] = None) -> Optional[Version]:
        return self.versions.get(number or self.default)


class Watch:
    """Looks at TorchServe every now and then, and at once where something went wrong."""

    def __init__(self, management: str, key_file: Path) -> None:
        self.models: Dict[str, Model] = {}
        self.up = False
        self._upstream = Upstream(management, ASK_SECONDS)
        self._host = urlsplit(management).netloc
        self._key_file = key_file
        self._stamp: Tuple[int, int] = (0, 0)
        self._keys: Dict[str, str] = {}
        self._ends: Dict[str, float] = {}
        self._renewed: Dict[str, float] = {}
        self._looking: Optional[asyncio.Task[None]] = None

    @property
    def key(self) -> str:
        """TorchServe's inference key; "" while there is none."""
        return self._keys.get("inference", "")

    def find(self, name: Optional[str]) -> Optional[Model]:
        return self.models.get(name) if name else None

    def wait_seconds(self, version: Optional[Version]) -> float:
        """About how long it takes until a version that is not READY is."""
        if version is None or not version.lost:
            return USUAL_LOAD
        return max(1.0, version.load_seconds - (time.monotonic() - version.lost))

    async def look(self) -> None:
        """Ask now; who asks while that is under way waits for the same answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        try:
            self._read_keys()
            await self._renew_keys()
            names = await self._names()
            found = {name: await self._describe(name) for name in names}
        except (TimeoutError, asyncio.TimeoutError, PermissionError):
            return  # it is busy, or its keys are being written: what was known is still the best guess
        except (OSError, ValueError, KeyError):
            self.up = False
            for model in self.models.values():
                for version in model.versions.values():
                    version.ready = 0  # what it had in hand ends with its own connection
            return
        self.up = True
        for name, described in found.items():
            if described is not None:
                self._take(self.models.setdefault(name, Model(name)), *described)
        for name in set(self.models) - {name for name, described in found.items() if described}:
            self._lose(self.models.pop(name), {})

    async def _names(self) -> List[str]:
        names: List[str] = []
        token = ""
        while True:
            page = await self._get(f"/models?limit=100{token}")
            names += [model["modelName"] for model in page["models"]]
            if not page.get("nextPageToken"):
                return names
            token = f"&next_page_token={page['nextPageToken']}"

    async def _describe(self, name: str) -> Optional[Tuple[str, List[Dict[str, Any]]]]:
        """(the default version's number, all versions); None for one that is gone by now."""
        try:
            default = await self._get(f"/models/{name}")
            every = await self._get(f"/models/{name}/all")
        except KeyError:
            return None
        return str(default[0]["modelVersion"]), every

    def _take(self, model: Model, default: str, described: List[Dict[str, Any]]) -> None:
        model.default = default
        seen = {}
        for one in described:
            number = str(one["modelVersion"])
            version = model.versions.setdefault(number, Version(number))
            version.workers = len(one["workers"])
            seen[number] = sum(worker["status"] == "READY" for worker in one["workers"])
            version.response_seconds = float(one.get("responseTimeout", 120))
            waiting = one.get("jobQueueStatus") or {}
            keys = ("remainingCapacity", "pendingRequests")
            version.queue = sum(int(waiting.get(key, 0)) for key in keys) or 100
        self._lose(model, seen)
        for number in set(model.versions) - set(seen):
            del model.versions[number]

    def _lose(self, model: Model, ready: Dict[str, int]) -> None:
        """Note how many workers are READY now. Where the last is gone, nobody waits for what it had."""
        now = time.monotonic()
        for version in model.versions.values():
            before, version.ready = version.ready, ready.get(version.number, 0)
            if version.ready and version.lost:
                version.load_seconds, version.lost = now - version.lost, 0.0
            elif before and not version.ready:
                version.lost = now
                for connection in list(version.held):
                    connection.fail(
                        NotReady(
                            f"no worker of {model.name} is up: it is being loaded again",
                            self.wait_seconds(version),
                        )
                    )

    # Keys.

    def _read_keys(self) -> None:
        """The keys that TorchServe wrote when it started, or when they were renewed.

        It writes the file in place: where that cannot be read just now, keys stay as they are.
        """
        try:
            status = os.stat(self._key_file)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            written = json.loads(self._key_file.read_text(encoding="utf-8"))
            keys = {kind: str(written[kind]["key"]) for kind in ("inference", "management", "API")}
            self._ends = {kind: ends(entry.get("expiration time")) for kind, entry in written.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            if not self._keys:
                raise ValueError(f"{self._key_file} holds no keys") from None
        else:
            self._keys, self._stamp = keys, stamp

    async def _renew_keys(self) -> None:
        """Have new keys made before they end; the old one ends when the new one is made."""
        for kind in ("inference", "management"):
            if time.time() < self._ends.get(kind, float("inf")) - RENEW_SECONDS:
                continue
            if not self._may_renew(kind, 10.0):
                continue  # the file is still being written, or the keys are short-lived indeed
            await self._ask(f"/token?type={kind}", self._keys["API"])
            self._read_keys()

    def _may_renew(self, kind: str, seconds: float) -> bool:
        """Whether the last time is so long ago; by a clock that nobody sets, as keys' own may be."""
        now = time.monotonic()
        may = now - self._renewed.get(kind, float("-inf")) > seconds
        if may:
            self._renewed[kind] = now
        return may

    async def renew(self, refused: str) -> None:
        """The inference key was refused: read it again, and have a new one made if it is still the same."""
        with suppress(OSError, ValueError, KeyError, asyncio.TimeoutError):  # the next look says so
            await self._replacement("inference", refused)

    async def _replacement(self, kind: str, refused: str) -> bool:
        """Whether there is another key than the one that was refused; where there is none it is renewed."""
        if await self._replaced(kind, refused):
            return True
        if self._may_renew(f"refused {kind}", 5.0):
            await self._ask(f"/token?type={kind}", self._keys["API"])
        return await self._replaced(kind, refused, KEY_SECONDS)

    async def _replaced(self, kind: str, refused: str, seconds: float = 0.1) -> bool:
        """Whether the key file holds another key than the one that was refused, as far as it does in time."""
        deadline = time.monotonic() + seconds
        while True:
            self._stamp = (0, 0)  # two writes may share one
            self._read_keys()
            if self._keys[kind] != refused:
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)

    async def _get(self, path: str) -> Any:
        """JSON from the management API.

        Raises KeyError for 404, PermissionError where the key is refused, ValueError for other refusals,
        OSError.
        """
        key = self._keys["management"]
        answer = await self._ask(path, key)
        # Somebody renewed it, or TorchServe's clock was set.
        if answer.status in (400, 401, 403) and await self._replacement("management", key):
            answer = await self._ask(path, self._keys["management"])
        if answer.status in (400, 401, 403):
            raise PermissionError(f"{path}: {answer.status}")
        if answer.status == 404:
            raise KeyError(path)
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status}")
        return orjson.loads(answer.body)

    async def _ask(self, path: str, key: str) -> Answer:
        head = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {key}\r\n\r\n"
        try:
            return await self._upstream.ask(head.encode("ascii"))
        except HungUp:
            return await self._upstream.ask(head.encode("ascii"))

    def close(self) -> None:
        self._upstream.close()
