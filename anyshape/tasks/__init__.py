"""What turns a request into items and a model's outputs into an answer: one small class per task."""

from __future__ import annotations

from pathlib import Path

from anyshape.settings import HandlerConfig
from anyshape.registry import find
from anyshape.tasks.base import Task


def task_class(name: str) -> type[Task]:
    """The task called `name`. Raises ConfigError that lists what there is."""
    return find(__name__, Task, name, "task")


def load_task(config: HandlerConfig, folder: Path) -> Task:
    """The recipe's task, with what it saved in `folder` when the archive was built."""
    return task_class(config.task)(config, folder)
