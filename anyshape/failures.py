"""What went wrong in a worker, in one line of the log and without a client's words."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Optional

logger = logging.getLogger(__name__)

EXITS = (KeyboardInterrupt, SystemExit)  # never caught; a panic in compiled code is no Exception, and is
_FRAMES = 4


def log_failure(what: str, error: BaseException) -> None:
    """Log `what`, the error's class and where it was raised. Its message may quote a text: it is left out."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = ", ".join(f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in reversed(frames))
    logger.error("%s: %s at %s", what, type(error).__name__, places)


class survived:
    """Whatever is raised inside is logged as `what` and goes no further.

    A class, since a generator takes three times as long and this is entered for every answer.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: Optional[BaseException], frames: object) -> bool:
        if error is None or isinstance(error, EXITS):
            return False
        log_failure(self.what, error)
        return True
