"""A build as a library call leaves the process as it found it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from pathlib import Path
from typing import Iterator

import torch

from anyshape.process import give_back_freed_memory


@contextlib.contextmanager
def restored(folder: Path) -> Iterator[None]:
    """Put back what a build sets for itself and what the model's code may change: threads, environment,
    the import path, random numbers, how the C library keeps memory. Modules found in `folder`, the
    recipe's, are forgotten: another recipe may have others of the same name.
    """
    threads, environment, path = torch.get_num_threads(), dict(os.environ), list(sys.path)
    modules, drawn, numbers = set(sys.modules), random.getstate(), torch.get_rng_state()
    gradients = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_rng_state(numbers)
        random.setstate(drawn)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and folder.resolve() in Path(file).resolve().parents:
                del sys.modules[name]
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        give_back_freed_memory()
