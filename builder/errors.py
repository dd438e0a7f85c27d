"""What stops a build. The command line prints it as one line and exits with 1."""

from __future__ import annotations


class BuildError(Exception):
    """A build that cannot be finished. The message says what to do next."""
