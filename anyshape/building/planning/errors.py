"""The one error of the planner, in a module of its own so that every part of it can raise it."""

from __future__ import annotations

from anyshape.errors import ConfigError


class PlanError(ConfigError, ValueError):
    """The plan cannot be made; the message is one line and says what to do next."""
