"""How each kind of server is started."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from anyshape.server.ports import free_ports
from benchmarks.paths import BASELINES, MODEL_STORE, ROOT, WORK
from benchmarks.serving import models
from benchmarks.serving.artifacts import artifact, engines
from benchmarks.serving.client import render
from benchmarks.serving.judging import Judge
from benchmarks.serving.systems import torchserve
from benchmarks.serving.systems.processes import Server, environment, get_json, get_text
from benchmarks.serving.systems.system import TOLERANCES, Running, System, Unavailable
from benchmarks.serving.workloads import Workload


@dataclass(frozen=True)
class TorchServe(System):
    """A baseline in TorchServe: one handler file of `baselines/`, the files that it loads."""

    handler: str = ""
    shared: str = "sentences.py"
    files: tuple[str, ...] = ()
    model_files: tuple[str, ...] = ("tokenizer.json",)
    needs_engines: bool = False  # packages of requirements-engines.txt
    packages: tuple[str, ...] = ()  # folders of this repository that travel along
    padded_to: tuple[int, ...] = ()  # the lengths that texts are padded to, where they are fixed

    def start(self, folder: Path) -> Running:
        own = models.text_model_folder()
        files = [BASELINES / self.shared, *(artifact(name) for name in self.files)]
        files += [own / name for name in self.model_files]
        if "encoder.xml" in self.files:
            files.append(artifact("encoder.xml").with_suffix(".bin"))
        for package in self.packages:
            shutil.copytree(ROOT / package, folder / "packages" / package)
            files.append(folder / "packages")
        config = torchserve.model_config(
            self.workers, self.batch_size, self.max_batch_delay, self.engine_settings
        )
        mar = torchserve.archive(folder / "pack", BASELINES / self.handler, files, config)
        extra = {"PYTHONPATH": str(engines())} if self.needs_engines else {}
        return torchserve.start(folder, mar, self.workers, **extra)

    def padding_ratio(self, size: tuple[int, ...]) -> float:
        if self.kind == "image":
            return self.padded_to[0] ** 2 / (size[0] * size[1]) if self.padded_to else 1.0
        fitting = [length for length in self.padded_to if length >= size[0]]
        return min(fitting) / size[0] if fitting else 1.0


@dataclass(frozen=True)
class Bucketed(System):
    """Ours: an archive of `model_store/`, whose frontend settings may be overridden for a run."""

    archive: str = ""
    build: str = ""

    def start(self, folder: Path) -> Running:
        built = MODEL_STORE / self.archive
        if not built.exists():
            raise Unavailable(f"model_store/{self.archive} is missing: run ./build_mar.sh {self.build}")
        mar = folder / "store" / f"{torchserve.MODEL}.mar"
        mar.parent.mkdir(parents=True)
        self.copy_with_settings(built, mar)
        return torchserve.start(folder, mar, self.workers)

    def copy_with_settings(self, built: Path, target: Path) -> None:
        """The archive with this run's workers, threads and hand-over in its model-config.yaml."""
        with zipfile.ZipFile(built) as source, zipfile.ZipFile(target, "w") as copy:
            for entry in source.infolist():
                content = source.read(entry)
                if entry.filename == "model-config.yaml":
                    config = yaml.safe_load(content)
                    handler = {**config["handler"], "threads": self.threads, **self.settings}
                    config.update(
                        torchserve.model_config(self.workers, self.batch_size, self.max_batch_delay, handler)
                    )
                    content = yaml.safe_dump(config, sort_keys=False).encode()
                copy.writestr(entry.filename, content)


@dataclass(frozen=True)
class RayServe(Bucketed):
    """Ours behind Ray Serve: as many replicas as the archive would have workers."""

    def start(self, folder: Path) -> Running:
        if importlib.util.find_spec("ray") is None:
            raise Unavailable("Ray is missing: make cluster")
        mar = folder / f"{torchserve.MODEL}.mar"
        self.copy_with_settings(MODEL_STORE / self.archive, mar)
        (port,) = free_ports(1)
        chosen = {"archive": str(mar), "replicas": self.workers, "cores": self.threads, "waiting": 1000}
        (folder / "settings.json").write_text(json.dumps({**chosen, "port": port}))
        command = [sys.executable, str(BASELINES / "ray_app.py"), str(folder / "settings.json")]
        # Its sockets' paths must be short. The others are what docs/faces.md tells its user to set.
        env = environment(folder, PYTHONPATH=str(ROOT), RAY_TMPDIR="/tmp", RAY_USAGE_STATS_ENABLED="0")
        env |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
        server = Server(command, folder, env, (folder / "ready").exists)
        return Running(server, port, mar.stat().st_size / 1e6)


@dataclass(frozen=True)
class LitServe(System):
    """The engine of a TorchServe baseline behind LitServe."""

    module: str = ""
    class_name: str = ""
    files: tuple[str, ...] = ()

    path = "/predict"

    def start(self, folder: Path) -> Running:
        model = folder / "model"
        model.mkdir()
        paths = [artifact(name) for name in self.files]
        paths += [path.with_suffix(".bin") for path in paths if path.suffix == ".xml"]
        for path in [*paths, models.text_model_folder() / "tokenizer.json"]:
            (model / path.name).symlink_to(path)
        (port,) = free_ports(1)
        chosen: dict[str, Any] = {"module": self.module, "class": self.class_name, "folder": str(model)}
        chosen |= {"port": port, "workers": self.workers, **self.engine_settings}
        (folder / "settings.json").write_text(json.dumps(chosen))
        command = [sys.executable, str(BASELINES / "litserve_app.py"), str(folder / "settings.json")]

        def is_ready() -> bool:
            return get_text(port, "/health") == "ok"  # 503 until every worker has been set up

        env = environment(folder, PYTHONPATH=str(engines()))
        server = Server(command, folder, env, is_ready)
        return Running(server, port, sum(path.stat().st_size for path in paths) / 1e6)

    def requests(self, workload: Workload) -> list[bytes]:
        bodies = [json.dumps({"input": body.decode()}).encode() for body in workload.bodies]
        return [render(self.path, body, "application/json") for body in bodies]


@dataclass(frozen=True)
class Infinity(System):
    """infinity-emb, an embedding server from PyPI, in a virtual environment of its own."""

    path = "/embeddings"

    def start(self, folder: Path) -> Running:
        python = infinity_python()
        model = folder / "model"
        shutil.copytree(models.text_model_folder(), model)
        shutil.copyfile(artifact("hidden.onnx"), model / "model.onnx")
        (port,) = free_ports(1)
        command = [
            # "." because infinity looks for the ONNX file by a path relative to the model's folder
            *[str(python.with_name("infinity_emb")), "v2", "--model-id", "."],
            *["--served-model-name", "minilm", "--engine", "optimum", "--device", "cpu"],
            *["--batch-size", str(self.batch_size), "--no-model-warmup"],
            # This release's optimiser does not fit its optimum; ONNX Runtime's own, at load, is as fast.
            *["--pooling-method", "mean", "--onnx-disable-optimize"],
            *["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"],
        ]
        cache = str(folder / "cache")  # its optimised copy of the model, made at every start
        env = environment(folder, OMP_NUM_THREADS=str(self.threads), HF_HOME=cache)
        server = Server(command, model, env, lambda: get_json(port, "/models") is not None)
        return Running(server, port, (model / "model.onnx").stat().st_size / 1e6)

    def requests(self, workload: Workload) -> list[bytes]:
        bodies = [{"model": "minilm", "input": [body.decode()]} for body in workload.bodies]
        return [render(self.path, json.dumps(b).encode(), "application/json") for b in bodies]

    def judge(self, workload: Workload) -> Judge:
        return Judge(workload.references, "openai_vector", TOLERANCES[self.dtype])


def infinity_python() -> Path:
    """The Python of infinity's own environment, made on first use. Raises Unavailable if it cannot be."""
    folder = WORK / "infinity"
    python = folder / "bin" / "python"
    if not (folder / "bin" / "infinity_emb").exists():
        pins = ROOT / "benchmarks" / "requirements-infinity.txt"
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet"]
            subprocess.run([*install, "--require-hashes", "--no-deps", "-r", str(pins)], check=True)
            subprocess.run([*install, "-r", str(ROOT / "requirements/torch.txt")], check=True)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"infinity-emb does not install here: {error}") from error
    return python
