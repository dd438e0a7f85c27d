"""What a build tells while it works."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A stage begins with so many steps; a step is done."""

    def stage(self, name: str, steps: int) -> None: ...
    def step(self, what: str) -> None: ...


class Silent:
    """Says nothing."""

    def stage(self, name: str, steps: int) -> None:
        pass

    def step(self, what: str) -> None:
        pass
