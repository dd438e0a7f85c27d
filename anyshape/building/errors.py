"""What stops a build. The command line prints it as one line and exits with 1."""

from __future__ import annotations

from anyshape.errors import ConfigError


class BuildError(ConfigError):
    """A build that cannot be finished. The message says what to do next."""


def first_line(error: Exception) -> str:
    """What an error of somebody else's code says, in one line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'it says no more').splitlines()[0]}"


def last_line(error: Exception) -> str:
    """The same, for errors that begin with a traceback, as those of torch.jit do."""
    return f"{type(error).__name__}: {(str(error).strip() or 'it says no more').splitlines()[-1]}"
