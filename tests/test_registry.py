from __future__ import annotations

import pytest

from anyshape.backends import create_backend
from anyshape.backends.base import Backend
from anyshape.errors import ConfigError
from anyshape.registry import discover, find
from anyshape.tasks import task_class
from anyshape.tasks.base import Task
from anyshape.tasks.sentence_embedding import SentenceEmbedding
from anyshape.tasks.text import TextTask
from handler import backends, tasks


def test_every_named_class_is_found_under_its_name() -> None:
    for package, base, some in (
        (tasks, Task, {"sentence-embedding", "feature-extraction", "text-classification"}),
        (backends, Backend, {"torchscript"}),
    ):
        found = discover(package.__name__, base)  # type: ignore[type-abstract]
        assert some <= set(found)
        assert all(cls.name == name and issubclass(cls, base) for name, cls in found.items())


def test_a_class_that_only_others_build_on_has_no_name() -> None:
    assert TextTask not in discover(tasks.__name__, Task).values()
    assert find(tasks.__name__, Task, "sentence-embedding", "task") is SentenceEmbedding


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"handler\.task must be one of .*sentence-embedding.*, not 'x'"):
        task_class("x")
    with pytest.raises(ConfigError, match=r"handler\.backend must be one of .*torchscript.*, not 'x'"):
        create_backend("x", {})


def test_an_option_that_a_backend_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"handler\.backend_options\.speed is not known to torchscript"):
        create_backend("torchscript", {"speed": 11})
