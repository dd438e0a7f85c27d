"""What must be set once in a worker's process, before anything is loaded: threads, memory, log, backend."""

from __future__ import annotations

import contextlib
import ctypes
import os

import torch

from handler.backends import create_backend
from handler.config import HandlerConfig
from handler.logs import keep_short
from handler.threads import threads_per_worker


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def keep_freed_memory() -> None:
    """Have the C library keep memory that is freed, instead of returning it to the system at once.

    Every call of a model needs the same large blocks again. glibc gives blocks above 32 MB back when they
    are freed, and the next call takes a page fault for every 4 kB of them: two fifths of the time of
    MobileNetV2 on two pictures of 480×640. The process then goes on holding what its largest calls needed.
    Other C libraries are left as they are. Source: mallopt(3).
    """
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_max, 0)  # every block from the heap, which is kept ...
        mallopt(m_trim_threshold, -1)  # ... and never cut back


def prepare_process(config: HandlerConfig, workers: int) -> None:
    """Set the threads, keep freed memory, shorten the log, and let the backend prepare the process.

    Raises ConfigError where the backend cannot run so many workers.
    """
    threads = threads_per_worker(config, workers)
    torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    keep_freed_memory()
    keep_short()
    create_backend(config.backend, config.backend_options).prepare_process(workers)
