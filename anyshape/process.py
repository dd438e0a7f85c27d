"""What must be set once in a worker's process, before anything is loaded: threads, memory, backend."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Optional

import torch

from anyshape.backends import create_backend
from anyshape.settings import Settings
from anyshape.threads import threads_per_worker


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def mapped_bytes() -> int:
    """Resident pages of files in this process: other processes that map the same files share them."""
    import psutil

    return int(getattr(psutil.Process().memory_info(), "shared", 0))  # Linux counts them, others do not


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


def give_back_freed_memory() -> None:
    """Undo `keep_freed_memory`, for a process that goes on with something else.

    glibc moves its thresholds by itself until one of them is set, up to these: they are what a process that
    handles large tensors ends with. What the operator set in the environment stays.
    """
    m_trim_threshold, m_mmap_threshold, m_mmap_max = -1, -3, -4  # malloc.h
    largest = 4 * 1024 * 1024 * ctypes.sizeof(ctypes.c_long)
    wanted = {
        m_mmap_max: ("MALLOC_MMAP_MAX_", 65536),
        m_mmap_threshold: ("MALLOC_MMAP_THRESHOLD_", largest),
        m_trim_threshold: ("MALLOC_TRIM_THRESHOLD_", 2 * largest),
    }
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for parameter, (variable, usual) in wanted.items():
            chosen = os.environ.get(variable, "")
            library.mallopt(parameter, int(chosen) if chosen.isdecimal() else usual)
        library.malloc_trim(0)


def prepare_process(settings: Settings, workers: int, folder: Optional[Path] = None) -> None:
    """Set the threads, keep freed memory, and let the backend prepare the process; one's own is in `folder`.

    Raises ConfigError where the backend cannot run so many workers.
    """
    threads = threads_per_worker(settings, workers)
    torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    if threads == 1:  # a pool of one costs a tenth of a short text's tokens
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    keep_freed_memory()
    create_backend(settings.backend, settings.backend_options, folder).prepare_process(workers)
