"""Puts a new version of a model in the place of the one that serves, without losing a request.

    swap(client, Path("minilm.mar"), store=Path("model_store"), tell=print)

Register the new version beside the old one, wait until it is READY, ask it the archive's own sample requests,
make it the default, let the old one finish what it has, unregister it. Until it is the default nobody is sent
to the new version, and whatever goes wrong before that removes it again: the old one serves on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from anyshape.archive import Packed, read_packed, sha256
from anyshape.errors import ConfigError
from anyshape.recipe import parse_yaml
from anyshape.server.checks import ServeError, check_archive
from anyshape.server.client import Client, said
from anyshape.server.logs import ServerLogs
from anyshape.server.samples import Samples, difference, read_samples
from anyshape.server.trust import Trust, signature_of

Tell = Callable[[str], None]
STEP = 0.25  # seconds between two looks
QUIET = 2.5  # seconds without a request: a worker says what it has in hand once a second
LATER = 30.0  # seconds beyond startupTimeout that a worker may take
NO_API = (
    "the server registers no models: start it with `anyshape serve --enable-model-api`, or set "
    "enable_model_api=true in its config.properties"
)


def swap(
    client: Client,
    archive: Path,
    *,
    store: Path,
    tell: Tell,
    drain_seconds: float = 60.0,
    unproved: bool = False,
    trusts: Sequence[Trust] = (),
) -> str:
    """Put `archive` into the place of the version that serves its model now. Returns the old version.

    store: the folder that the server loads models from. tell: is told each step. drain_seconds: how long the
    old version may take to finish. unproved: also an archive that has no samples. trusts: what the archive
    must show, as the one that a restart would serve by the model's name.

    Raises ServeError or ConfigError; the old version then serves on, and the message says so.
    """
    check_archive(archive)
    packed, samples = read_packed(archive), read_samples(archive)
    name, version = packed.name, packed.version
    if not samples.samples and not unproved:
        raise ServeError(
            f"{archive} holds no sample requests that could prove it: build it again, or say --unproved"
        )
    old = client.default_version(name)
    served = {str(each["modelVersion"]): each for each in client.versions(name)}
    if version in served:
        raise ServeError(
            f"{archive} is version {version} of {name}, which is served already: build it with another "
            "--model-version"
        )
    for trust in trusts:
        trust.check(archive, [f"{name}.mar"])
    # Its hash in its name: what an earlier swap left in the server's own store must not stand for it.
    file = _into_store(archive, store, f"{name}-{version}-{sha256(archive)[:8]}.mar")
    try:
        for trust in trusts:
            trust.check(file, [f"{name}.mar"])  # what is registered is the copy
        _register(client, file, packed, max(1, len(served[old].get("workers", []))), tell)
        _prove(client, packed, samples, len(served[old].get("workers", [])) or 1, tell)
        _set_default(client, name, version)
    except BaseException as error:
        with contextlib.suppress(ConfigError):
            client.manage("DELETE", f"/models/{name}/{version}")
        if not file.samefile(archive):
            for each in (file, signature_of(file)):
                each.unlink(missing_ok=True)
        if isinstance(error, (ConfigError, OSError)):
            raise ServeError(f"{' '.join(str(error).split())}. {name} {old} serves on") from error
        raise
    tell(f"{name} {version} serves")
    _keep(file, store, name, old)
    _drain(client, name, old, drain_seconds, tell)
    return old


def _into_store(archive: Path, store: Path, name: str) -> Path:
    """The archive, and its signature if any, as files of the store: itself, where it lies there."""
    if not store.is_dir():
        raise ServeError(f"the model store {store} does not exist: name the server's with --store")
    if archive.resolve().parent == store.resolve():
        return archive
    target = store / name
    temporary = target.with_suffix(".part")
    try:
        shutil.copyfile(archive, temporary)
        os.replace(temporary, target)
        if signature_of(archive).is_file():
            shutil.copyfile(signature_of(archive), signature_of(target))
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ServeError(f"{archive} cannot be copied to {store}: {error.strerror or error}") from None
    return target


def _register(client: Client, file: Path, packed: Packed, workers: int, tell: Tell) -> None:
    name, version = packed.name, packed.version
    logs = _logs(client)
    tell(f"registering {name} {version} with {workers} worker{'s' * (workers > 1)}")
    status, answer = client.manage(
        "POST", "/models", url=file.name, model_name=name, initial_workers=workers, synchronous="false"
    )
    if status == 405:
        raise ServeError(NO_API)
    if status == 404:
        raise ServeError(f"the server does not find {file.name}: is {file.parent} its model store (--store)?")
    if status not in (200, 202):
        raise ServeError(f"the server refuses {file.name} (HTTP {status}: {said(answer)})")
    seconds = float(parse_yaml(packed.recipe.encode(), "the recipe").get("startupTimeout", 120)) + LATER
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        described = _version(client, name, version)
        states = [str(worker["status"]) for worker in (described or {}).get("workers", [])]
        if len(states) >= workers and set(states) == {"READY"}:
            tell(f"{name} {version} is READY")
            return
        if logs is not None and logs.worker_died(name, version):
            time.sleep(0.5)  # the rest of the traceback
            why = logs.why_worker_died(name, version)
            raise ServeError(f"the worker of {name} {version} does not start{': ' + why if why else ''}")
        time.sleep(STEP)
    raise ServeError(
        f"{name} {version} was not READY within {seconds:.0f} seconds (the server's logs say more)"
    )


def _logs(client: Client) -> Optional[ServerLogs]:
    """The logs beside the keys, from where they end now; None where there are none."""
    folder = client.key_file.parent / "logs" if client.key_file else None
    return ServerLogs(folder) if folder and folder.is_dir() else None


def _version(client: Client, name: str, version: str) -> Optional[Dict[str, Any]]:
    found: List[Dict[str, Any]] = [
        each for each in client.versions(name) if str(each["modelVersion"]) == version
    ]
    return found[0] if found else None


def _prove(client: Client, packed: Packed, samples: Samples, workers: int, tell: Tell) -> None:
    """Ask the new version its samples, as often as it has workers."""
    for _ in range(workers):
        for sample in samples.samples:
            body = json.dumps(sample.request).encode()
            status, answer = client.predict(packed.name, packed.version, body, "application/json")
            if status != 200:
                raise ServeError(f"a sample request is answered {status}: {said(_decoded(answer))}")
            wrong = difference(_decoded(answer), sample.answer, samples.tolerance)
            if wrong:
                raise ServeError(f"a sample request is answered wrongly: {wrong}")
    count = len(samples.samples)
    tell(f"{count} sample requests are answered as when it was built" if count else "nothing was proved")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _set_default(client: Client, name: str, version: str) -> None:
    status, answer = client.manage("PUT", f"/models/{name}/{version}/set-default")
    if status != 200:
        raise ServeError(f"the server does not make it the default (HTTP {status}: {said(answer)})")


def _keep(file: Path, store: Path, name: str, old: str) -> None:
    """What serves now is what a restart serves: NAME.mar. The one before stays as NAME-OLD.mar."""
    usual = store / f"{name}.mar"
    if file.resolve() == usual.resolve():
        return
    if usual.is_file():
        _move(usual, store / f"{name}-{old}.mar")
    _move(file, usual)  # the server has unpacked it


def _move(archive: Path, target: Path) -> None:
    """Rename an archive, and its signature with it."""
    os.replace(archive, target)
    signature_of(target).unlink(missing_ok=True)
    if signature_of(archive).is_file():
        os.replace(signature_of(archive), signature_of(target))


def _drain(client: Client, name: str, old: str, seconds: float, tell: Tell) -> None:
    """Unregister the old version once it has had nothing to do for a while."""
    deadline, quiet_since = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() - quiet_since < QUIET:
        if time.monotonic() > deadline:
            tell(
                f"{name} {old} still has requests after {seconds:.0f} s, perhaps by its number: it stays "
                f"registered; remove it with DELETE {client.management}/models/{name}/{old}"
            )
            return
        described = _version(client, name, old) or {}
        waiting = int((described.get("jobQueueStatus") or {}).get("pendingRequests") or 0)
        labels = {"model_name": name, "model_version": old}
        if waiting or client.scrape().total("anyshape_requests_in_hand", **labels):
            quiet_since = time.monotonic()
        time.sleep(STEP)
    status, answer = client.manage("DELETE", f"/models/{name}/{old}")
    if status != 200:
        raise ServeError(
            f"{name} {old} cannot be unregistered (HTTP {status}: {said(answer)}); the new one serves"
        )
    tell(f"{name} {old} has finished and is unregistered")
