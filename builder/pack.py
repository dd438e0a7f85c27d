"""Packs a folder of compiled models into one .mar with TorchServe's own archiver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from builder.errors import BuildError
from handler import archive

HANDLER = Path(__file__).resolve().parent.parent / "handler"


def pack(folder: Path, name: str, version: str, store: Path) -> Path:
    """Pack `folder` (models/, assets/, buckets.json, model-config.yaml) as `store/name.mar`.

    The archiver runs in a process of its own, because it deletes whatever lies at $TMPDIR/<name> first; the
    finished archive is moved into the store in one step. Raises BuildError if the archiver fails.
    """
    store.mkdir(parents=True, exist_ok=True)
    # On the store's own disk, so that the last move cannot leave half a file behind.
    with tempfile.TemporaryDirectory(dir=store, prefix=f".{name}-") as temporary:
        content = Path(temporary) / "content"
        staging, out = Path(temporary) / "staging", Path(temporary) / "out"
        for path in (staging, out):
            path.mkdir()
        shutil.copytree(HANDLER, content / "handler", ignore=shutil.ignore_patterns("__pycache__"))
        for part in (archive.MODELS, archive.ASSETS):
            shutil.copytree(folder / part, content / part, copy_function=_link)
        shutil.copy(folder / archive.INDEX, content / archive.INDEX)
        command = [
            *(sys.executable, "-m", "model_archiver.model_packaging"),
            *("--model-name", name, "--version", version),
            *("--handler", str(HANDLER / "bucketed_handler.py")),
            *("--config-file", str(folder / archive.RECIPE)),
            *("--extra-files", str(content)),
            *("--export-path", str(out), "--archive-format", "zip-store"),
        ]
        environment = {**os.environ, "TMPDIR": str(staging), "TEMP": str(staging)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        packed = out / f"{name}.mar"
        if result.returncode != 0 or not packed.is_file():
            detail = (result.stderr.strip() or result.stdout.strip() or "it said nothing").splitlines()[-1]
            raise BuildError(f"torch-model-archiver failed: {detail}")
        final = store / f"{name}.mar"
        os.replace(packed, final)
        return final


def _link(source: str, target: str) -> None:
    """A hard link where the disk allows it: models are large, and the archiver copies them again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
