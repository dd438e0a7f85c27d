"""TorchServe with one archive, set up alike for the baselines and for ours.

Alike: the frontend's settings, log level, no token authorisation (for either), own temporary folders
and ports. `workers`, `threads`, `batch_size` and `max_batch_delay` are each system's own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

from anyshape.building.pack import run_archiver
from anyshape.server.java import java_home
from anyshape.server.ports import free_ports
from benchmarks.paths import ROOT
from benchmarks.serving.systems.processes import Server, environment, get_json, get_text
from benchmarks.serving.systems.system import Running

MODEL = "model"

METRICS = ROOT / "anyshape" / "server" / "metrics.yaml"  # TorchServe's own and the bucketed handler's

CONFIG = """\
inference_address=http://127.0.0.1:{0}
management_address=http://127.0.0.1:{1}
metrics_address=http://127.0.0.1:{2}
grpc_inference_port={3}
grpc_management_port={4}
disable_token_authorization=true
enable_envvars_config=false
install_py_dep_per_model=false
default_response_timeout=120
metrics_mode=prometheus
metrics_config={metrics}
"""

LOG_CONFIG = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c %m%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


def model_config(
    workers: int, batch_size: int, max_batch_delay: int, handler: dict[str, object]
) -> dict[str, object]:
    return {
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": batch_size,
        "maxBatchDelay": max_batch_delay,
        "startupTimeout": 300,
        "responseTimeout": 120,
        "jobQueueSize": 1000,
        "handler": handler,
    }


def archive(folder: Path, handler: Path, files: list[Path], config: dict[str, object]) -> Path:
    """Pack a baseline as an archive of this project is packed."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "model-config.yaml"
    recipe.write_text(yaml.safe_dump(config, sort_keys=False))
    return run_archiver(folder, MODEL, "1.0", handler=handler, recipe=recipe, files=list(map(str, files)))


def start(folder: Path, mar: Path, workers: int, **environ: str) -> Running:
    """TorchServe with that archive as `/predictions/model`, every worker ready."""
    ports = free_ports(5)
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    target = store / f"{MODEL}.mar"
    if mar != target:
        target.unlink(missing_ok=True)
        target.symlink_to(mar)
    (folder / "config.properties").write_text(CONFIG.format(*ports, metrics=METRICS))
    (folder / "log4j2.xml").write_text(LOG_CONFIG)
    command = [
        *[str(Path(sys.executable).with_name("torchserve")), "--start", "--foreground", "--ncs"],
        *["--ts-config", str(folder / "config.properties"), "--disable-token-auth"],
        *["--log-config", str(folder / "log4j2.xml")],
        *["--model-store", str(store), "--models", f"{MODEL}={MODEL}.mar"],
    ]
    home = java_home()
    java = {"JAVA_HOME": home} if home else {}
    env = environment(folder, PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin", **java, **environ)

    def is_ready() -> bool:
        described = get_json(ports[1], f"/models/{MODEL}")
        states = [worker["status"] for worker in described[0]["workers"]] if described else []
        return len(states) == workers and set(states) == {"READY"}

    server = Server(command, folder, env, is_ready)
    return Running(server, ports[0], mar.stat().st_size / 1e6, lambda: counted(ports[2]))


def counted(port: int) -> dict[str, float] | None:
    """What the bucketed handler has counted: seconds in and around the model, items. None for a baseline."""
    text = get_text(port, "/metrics") or ""
    names = {
        "model_seconds": r'anyshape_stage_seconds_total\{stage="run"',
        "handler_seconds": r'anyshape_stage_seconds_total\{stage="(?:read|answer)"',
        "items": r"anyshape_items_total\{",
    }
    totals = {
        key: sum(map(float, re.findall(rf"^{name}.*\}} (\S+)$", text, flags=re.MULTILINE)))
        for key, name in names.items()
    }
    return totals if totals["items"] else None
