"""What a running TorchServe serves, so that one that is started again after it serves the same.

    memory = Memory(server, say=print)
    memory.keep()        # again and again while it serves
    memory.restore()     # before it is started again

A version that was swapped in, the one that is the default, versions beside it and the numbers of workers come
back; what a registration said beside these (batch_size, response_timeout, …) is the archive's again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional

from anyshape.errors import ConfigError
from anyshape.packed import read_manifest
from anyshape.server.checks import ServeError
from anyshape.server.client import Client
from anyshape.server.torchserve import TorchServe

LOOK_SECONDS = 1.0  # between two looks: what changed since the last one is not known at a restart


@dataclass(frozen=True)
class Kept:
    """One version of a model, as the management API describes it. archive: as it was registered."""

    model: str
    version: str
    default: bool
    archive: str
    workers: tuple[int, int]  # at least, at most


class Memory:
    """kept: what was served last, the default of a model before other versions; None until it is known."""

    def __init__(self, server: TorchServe, say: Callable[[str], None]) -> None:
        self.server, self.say = server, say
        self.kept: Optional[List[Kept]] = None
        keys = server.properties.get("disable_token_authorization") != "true"
        self._client = Client(server.management, server.key_file if keys else None, seconds=10.0)
        self._settled, self._looked = True, 0.0

    def keep(self) -> None:
        """Look at the server, if the last look is over a second old; after a restart put it right first."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            if not self._settled:
                self._settle()
                self._settled = True
            self.kept = self._look()
        except (ServeError, LookupError, TypeError, ValueError):
            pass  # it is not there, or busy: what was known last counts

    def restore(self) -> None:
        """Have the server load what it served last when it starts, from where that lies in the store now."""
        if self.kept is None:
            return
        loads, lost = [], []
        for one in self.kept:
            file = self._find(one)
            if file is None:
                lost.append(one)
            else:
                loads.append(f"{one.model}={file.name}")
        for one in lost:
            self.say(f"{one.model} {one.version} is not loaded again: {one.archive} is not in the store.")
            usual = self.server.store / f"{one.model}.mar"
            if one.default and usual.is_file():
                self.say(f"{usual} takes its place.")
                loads.insert(0, f"{one.model}={usual.name}")
        self.server.models = list(dict.fromkeys(loads))
        self._settled = False

    def _look(self) -> List[Kept]:
        kept = []
        for model in self._client.models():
            default = self._client.default_version(model)
            for each in self._client.versions(model):
                version, workers = (
                    str(each["modelVersion"]),
                    (int(each["minWorkers"]), int(each["maxWorkers"])),
                )
                kept.append(Kept(model, version, version == default, str(each["modelUrl"]), workers))
        return sorted(kept, key=lambda one: not one.default)

    def _settle(self) -> None:
        """Set defaults and workers as they were. Raises ServeError while the server does not answer yet."""
        served = {(one.model, one.version): one for one in self._look()}
        for one in self.kept or []:
            now = served.get((one.model, one.version))
            if now is None:
                continue
            path, (least, most) = f"/models/{one.model}/{one.version}", one.workers
            if one.default and not now.default:
                self._client.manage("PUT", f"{path}/set-default")
            if one.workers != now.workers:
                self._client.manage("PUT", path, min_worker=least, max_worker=most, synchronous="false")

    def _find(self, one: Kept) -> Optional[Path]:
        """The archive of a version: a swap may have renamed it since it was registered."""
        store, registered = self.server.store, Path(one.archive).name
        names = [registered, f"{one.model}.mar", f"{one.model}-{one.version}.mar"]
        others = sorted(path.name for path in store.glob("*.mar"))
        for name in dict.fromkeys([*names, *others]):
            try:
                said = read_manifest(store / name)
            except ConfigError:
                continue
            known = name == registered or said.get("modelName") == one.model
            if known and str(said.get("modelVersion")) == one.version:
                return store / name
        return None
