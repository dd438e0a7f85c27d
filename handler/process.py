"""What must be set once in a worker's process before anything is loaded: threads, and the backend's needs."""

from __future__ import annotations

import os

import torch

from handler.backends import create_backend
from handler.config import HandlerConfig


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def threads_per_worker(config: HandlerConfig, workers: int) -> int:
    """Intra-op threads: the recipe's, else OMP_NUM_THREADS, else cores ÷ workers, so that threads × workers
    never exceed the cores."""
    if config.threads is not None:
        return config.threads
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return max(1, cores() // max(1, workers))


def prepare_process(config: HandlerConfig, workers: int) -> None:
    """Set the threads of torch and of the tokenizer, and let the backend prepare the process.

    Raises ConfigError where the backend cannot run so many workers.
    """
    threads = threads_per_worker(config, workers)
    torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    create_backend(config.backend, config.backend_options).prepare_process(workers)
