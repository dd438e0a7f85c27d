"""What stops a build. The command line prints it as one line and exits with 1."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import List

from anyshape.errors import ConfigError


class BuildError(ConfigError):
    """A build that cannot be finished. The message says what to do next."""


def first_line(error: Exception) -> str:
    """What an error of somebody else's code says, in one line."""
    return f"{type(error).__name__}: {_said(error)[0]}"


def last_line(error: Exception) -> str:
    """The same, for errors that begin with a traceback, as those of torch.jit do."""
    return f"{type(error).__name__}: {_said(error)[-1]}"


def _said(error: Exception) -> List[str]:
    """The lines of its message; of one without, such as a bare assertion, the line of code it comes from."""
    said = str(error).strip().splitlines()
    frames = traceback.extract_tb(error.__traceback__)
    if said or not frames:
        return said or ["it says no more"]
    place = frames[-1]
    return [f"it says no more ({Path(place.filename).name}, line {place.lineno}: {place.line})"]
