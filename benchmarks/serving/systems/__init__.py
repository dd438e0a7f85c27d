"""The systems under test, by name.

A name may carry settings, to try what suits a system best: `openvino-longest@workers=1,threads=2`.
Without them a system runs with the settings of table.py.
"""

from __future__ import annotations

from benchmarks.serving.systems.system import Running, System, Unavailable
from benchmarks.serving.systems.table import SYSTEMS

__all__ = ["SYSTEMS", "Running", "System", "Unavailable", "find"]


def find(name: str) -> System:
    """The system of that name, with the settings after `@`.

    Raises KeyError for an unknown name and ValueError for an unknown setting.
    """
    plain, _, extra = name.partition("@")
    system = SYSTEMS[plain]
    if not extra:
        return system
    settings = dict(part.split("=") for part in extra.split(","))
    return system.with_settings(name, {key: int(value) for key, value in settings.items()})
