"""The stages of a request around its model, in a process of their own: the worker's code is changed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_every_stage_is_told(embedding_archive: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "around", "--archive", str(embedding_archive)]
    command += ["--batch", "4", "--batches", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    stages = [float(number) for number in re.findall(r"^ *([\d.]+) µs", ended.stdout, re.MULTILINE)]
    assert len(stages) == 8
    assert all(stage > 0 for stage in stages)
