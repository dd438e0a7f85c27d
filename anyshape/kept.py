"""Costs that a start settled on, in a file for the next: a worker that is started again is soon ready."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict, List, Optional

from msgspec import Struct, to_builtins

from anyshape.convert import convert
from anyshape.costs import CostRow
from anyshape.errors import ConfigError


class KeptCosts(Struct, forbid_unknown_fields=True):
    """measured_on: under which conditions, as `machine.conditions` says it."""

    measured_on: Dict[str, str]
    costs: List[CostRow]


def read_costs(path: Path) -> Optional[KeptCosts]:
    """None where there are none, or none that can be read: they are measured again then."""
    try:
        return convert(json.loads(path.read_text(encoding="utf-8")), KeptCosts, path.name)
    except (OSError, ValueError, ConfigError):
        return None


def write_costs(path: Path, kept: KeptCosts) -> None:
    """Several workers may do so at once: the file is whole at any time. Raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(to_builtins(kept)), encoding="utf-8")
    part.replace(path)
