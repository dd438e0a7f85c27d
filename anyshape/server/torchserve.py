"""One TorchServe with its workers, started on settings of ours, watched, and ended in order.

All that the server writes (keys, logs, temporary files) lives in the run folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from anyshape.server.checks import (
    ServeError,
    check_archive,
    check_room,
    check_there,
    escaped,
    read_properties,
)
from anyshape.server.java import java_home
from anyshape.server.logs import ServerLogs
from anyshape.server.ports import check_free, grpc_ports, port_of
from anyshape.server.trust import Trust

FOLDER = Path(__file__).resolve().parent  # with log4j2.xml and metrics.yaml
SOCKET_PATH_LIMIT = 90  # a Unix socket's path holds 107 characters; TorchServe adds "/.ts.sock.9000"
STOP_SECONDS = 20.0
PRIVATE = 0o700
FULL = 1 << 20  # bytes free: with less, a server that starts cannot even write why it fails


class TorchServe:
    """One TorchServe with its workers, a context manager: started on entry, gone on exit.

        with TorchServe(config, store=Path("model_store"), run=Path("run")) as server:
            server.wait_ready("minilm", seconds=300)
            print(server.key("inference"))

    `trust` is what each archive must show before it is loaded.
    `models` (archive names in the store, without .mar) replaces the configuration's load_models;
    `output` takes what the server prints. Raises ServeError, with the last lines of the logs, when
    the server or a worker fails.
    """

    def __init__(
        self,
        config: Path,
        *,
        store: Path,
        run: Path,
        models: list[str] | None = None,
        model_api: bool = False,
        trust: Trust | None = None,
        output: IO[Any] | None = None,
    ) -> None:
        self.config, self.store, self.run = config.resolve(), store.resolve(), run.resolve()
        self.output, self.trust = output, trust or Trust()
        if not self.config.is_file():
            raise ServeError(f"{config} does not exist: give another file with --config")
        self.properties = read_properties(self.config)
        self.model_api = model_api or self.properties.get("enable_model_api", "").lower() == "true"
        loaded = [item.strip() for item in self.properties.get("load_models", "").split(",") if item.strip()]
        self.models = loaded if models is None else [f"{name}={name}.mar" for name in models]
        self.inference = self.properties.get("inference_address", "http://127.0.0.1:8080")
        self.management = self.properties.get("management_address", "http://127.0.0.1:8081")
        self.metrics = self.properties.get("metrics_address", "http://127.0.0.1:8082")
        self.key_file = self.run / "key_file.json"
        self.logs = self.run / "logs"
        self.process: subprocess.Popen[bytes] | None = None
        self._temp = self.run / "tmp"
        self._log = ServerLogs(self.logs)

    @property
    def loads(self) -> list[tuple[str, Path]]:
        """(the name that it is served under, the archive) of each that is loaded at start.

        Of several versions of a model the first is the default.
        """
        pairs = (item.rsplit("=", 1) for item in self.models)
        return [(pair[0].removesuffix(".mar"), self.store / pair[-1]) for pair in pairs]

    @property
    def archives(self) -> dict[str, Path]:
        """The archives that are loaded at start, of several versions the default, by their names."""
        found: dict[str, Path] = {}
        for name, archive in self.loads:
            found.setdefault(name, archive)
        return found

    @property
    def open_to_all(self) -> bool:
        """Whether the settings have token authorization off; then there is no key file."""
        return self.properties.get("disable_token_authorization", "").lower() == "true"

    def __enter__(self) -> TorchServe:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; see wait_ready for when it answers."""
        self._check()
        if len(str(self._temp)) > SOCKET_PATH_LIMIT:
            self._temp = Path(tempfile.mkdtemp(prefix="torchserve-"))
        workflows = self._temp / "workflow_store"  # empty: a workflow may register models from anywhere
        try:
            shutil.rmtree(
                self._temp, ignore_errors=True
            )  # sockets and a pid file, if the last server was killed
            self.run.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            self._temp.mkdir(mode=PRIVATE, parents=True)  # workers' sockets: who reaches one can ask it
            workflows.mkdir(mode=PRIVATE)
            self.logs.mkdir(mode=PRIVATE, exist_ok=True)
            self.logs.chmod(PRIVATE)  # an earlier version's may be open
            self.key_file.unlink(missing_ok=True)  # so that the file, once there, holds this server's keys
            self.trust.save(self.run)
        except OSError as error:
            raise ServeError(
                f"the run folder cannot be written: {error}: make room, or give another one with --run"
            ) from None
        try:
            check_room([archive for _, archive in self.loads], self._temp)
            for name, archive in self.loads:
                check_archive(archive)
                self.trust.check(archive, [archive.name, f"{name}.mar"])
        except ServeError:
            shutil.rmtree(self._temp, ignore_errors=True)
            raise
        self._log = ServerLogs(self.logs)  # from here on
        environment = {
            **os.environ,
            "METRICS_CONFIG": escaped(FOLDER / "metrics.yaml"),
            "TEMP": str(self._temp),
            "TMPDIR": str(self._temp),
            "LOG_LOCATION": str(self.logs),
            "METRICS_LOCATION": str(self.logs),
        }
        environment.pop("TS_CONFIG_FILE", None)  # would silently replace the configuration
        environment.pop("PYTHONPATH", None)  # would come before the archive's own handler in the workers
        home = java_home()
        if home:
            environment["JAVA_HOME"] = home
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        command += ["--ts-config", str(self.config), "--model-store", str(self.store)]
        command += ["--workflow-store", str(workflows)]
        command += ["--log-config", str(FOLDER / "log4j2.xml")]
        if self.models:
            command += ["--models", *self.models]
        if self.model_api:
            command.append("--enable-model-api")
        # In a session of its own the server does not see Ctrl-C: stop() ends it in order.
        self.process = subprocess.Popen(
            command,
            cwd=self.run,
            env=environment,
            start_new_session=True,
            umask=0o077,  # logs, sockets and unpacked archives are for this user alone
            stdout=self.output,
            stderr=self.output,
        )

    def _check(self) -> None:
        if not self.store.is_dir():
            raise ServeError(
                f"the model store {self.store} does not exist: build an archive (./build_mar.sh)"
            )
        for _, archive in self.loads:
            check_there(archive)
        addresses = ("inference_address", "management_address", "metrics_address")
        for port in [port_of(key, self.properties) for key in addresses] + grpc_ports(self.properties):
            check_free(port, self.config)

    def key(self, kind: str) -> str:
        """The token for "inference", "management", or "API" (which renews the other two)."""
        return str(json.loads(self.key_file.read_text(encoding="utf-8"))[kind]["key"])

    def describe(self, model: str, version: str = "") -> Any:
        """The management API's description: one dict per version; None while there is none."""
        return self._get(_path(model, version))[1]

    def _get(self, path: str) -> tuple[int, Any]:
        """The status and the JSON that the management API answers; (0, None) if it does not listen."""
        try:
            headers = {} if self.open_to_all else {"Authorization": f"Bearer {self.key('management')}"}
            request = urllib.request.Request(self.management + path, headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None
        except (OSError, ValueError, KeyError):  # the key file may be missing or half written
            return 0, None

    def wait_started(self, *, seconds: float) -> None:
        """Return once the management API answers; models may still be loading."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            if self._get("/models")[0] == 200:
                return
            self._check_disk()
            time.sleep(0.2)
        raise ServeError(f"TorchServe did not answer in {seconds:.0f} seconds.\n{self.log_tail()}")

    def wait_ready(self, model: str, version: str = "", *, seconds: float) -> None:
        """Return once every worker of the model is READY (/ping says Healthy before that)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check_alive()
            status, described = self._get(_path(model, version))
            if status == 404:  # it listens only once it has loaded what it was told to load
                archive = self.archives.get(model, self.store / f"{model}.mar")
                why = self._log.why_not_loaded(archive)
                raise ServeError(f"TorchServe could not load {archive}: {why}")
            workers = described[0]["workers"] if described else []
            if workers and all(worker["status"] == "READY" for worker in workers):
                return
            if self._log.worker_died(model):
                time.sleep(0.5)  # the rest of the traceback
                why = self._log.why_worker_died(model)
                said = f"the worker of {model} does not start{': ' + why if why else '.'}"
                raise ServeError(f"{said}\n{self.log_tail()}")
            self._check_disk()
            time.sleep(0.2)
        raise ServeError(f"{model} was not ready within {seconds:.0f} seconds.\n{self.log_tail()}")

    def _check_disk(self) -> None:
        """Raise ServeError if the server cannot start because it cannot write."""
        for folder in (self.run, self._temp):
            if shutil.disk_usage(folder).free < FULL:
                raise ServeError(
                    f"the disk of {folder} is full, while TorchServe loads {', '.join(self.archives)}: "
                    "make room, or give a folder on another disk with --run"
                )

    def check_alive(self) -> None:
        """Raise ServeError if the server has stopped by itself."""
        if self.process is None or self.process.poll() is not None:
            raise ServeError(f"TorchServe has stopped.\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the server's and the workers' logs, for an error message."""
        return self._log.tail(lines)

    def stop(self) -> None:
        """End the server and its workers, remove its keys and temporary files; may be repeated."""
        if self.process is None:
            return
        group = self.process.pid
        for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + seconds
            try:
                while time.monotonic() < deadline:
                    os.killpg(group, sign)  # again: the frontend may just have started a worker anew
                    self._reap(group)
                    time.sleep(0.05)
            except ProcessLookupError:
                break
        self.process.wait()
        self.process = None
        shutil.rmtree(self._temp, ignore_errors=True)
        self.key_file.unlink(missing_ok=True)

    def _reap(self, group: int) -> None:
        """Let the group become empty. Its orphans are this process's if it is a container's first one."""
        assert self.process is not None
        if self.process.poll() is not None:
            with suppress(ChildProcessError):
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass


def _path(model: str, version: str) -> str:
    return f"/models/{model}{'/' + version if version else ''}"
