"""What measured seconds depend on beside the programs: those from elsewhere are not to be used here."""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path
from typing import Dict, Mapping

import torch

from anyshape.backends.cpu import cpu_flags
from anyshape.threads import cores


def conditions(versions: Mapping[str, str]) -> Dict[str, str]:
    """The CPU, its cores and instruction sets, this process's threads, and the versions of what runs."""
    flags = " ".join(cpu_flags())
    return {
        **{key: str(version) for key, version in versions.items()},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpu_flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "cores": str(cores()),
        "threads": str(torch.get_num_threads()),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """As the system names it."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^(?:model name|Model|CPU part)\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()
